"""The commands of one kind, made from its methods when they are asked for."""

import uuid
from collections.abc import Callable
from typing import Any

import click

from kowa import contract
from kowactl import files, help_texts, options
from kowactl.session import Session
from kowactl.terminal import escaped, interruptible, print_message

FORMATS = ["table", "json", "yaml", "name"]
OPERATION_LIMIT = "10m"
EMPTY = "google.protobuf.Empty"
COMMON_FIELDS = {"id", "etag", "request_id", "validate_only", "timeout"}  # of requests; no options of their own


class KindGroup(click.Group):
    """`kowactl KIND`: a command for each method."""

    def __init__(self, kind: contract.Kind) -> None:
        comment = kind.message.comment
        super().__init__(kind.command, help=comment, short_help=help_texts.first_sentence(comment))
        self.kind = kind

    def list_commands(self, context: click.Context) -> list[str]:
        """In the order of the contract."""
        methods = self.kind.service.methods
        # A stream other than a watch has a command of its own, which uses what is called after it: type-console.
        streams = {verb for verb, method in methods.items() if method.streams and verb != "watch"}
        return [verb for verb in methods if not {verb, verb.partition("-")[2]} & streams]

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        """By its verb."""
        if name not in self.list_commands(context):
            return None
        makers = {"list": _list, "get": _get, "create": _create, "update": _update, "watch": _watch}
        maker = _wait if self.kind.name == "Operation" and name == "wait" else makers.get(name, _custom)
        return maker(self.kind, self.kind.service.methods[name])


def _command(
    kind: contract.Kind, method: contract.Method, parameters: list[click.Parameter], run: Callable[..., None]
) -> click.Command:
    text = help_texts.help_text(kind, method)
    return click.Command(
        method.verb,
        params=parameters,
        callback=click.pass_obj(run),
        help=text,
        short_help=help_texts.first_sentence(text),
        epilog="\b\nExample:\n  " + help_texts.example(kind, method),
    )


def _list(kind: contract.Kind, method: contract.Method) -> click.Command:
    def run(
        session: Session,
        filter: str,  # noqa: A002
        order_by: str,
        limit: int,
        output: str,
        show_labels: bool = False,
    ) -> None:
        from itertools import islice

        from kowactl.output import show_all

        size = min(limit, 1000) if limit else 0
        columns = [*kind.columns, *(["labels"] if show_labels else [])]
        with interruptible():
            items = getattr(session.client, kind.nouns).list(filter=filter, order_by=order_by, page_size=size)
            show_all(kind, list(islice(items, limit or None)), output, session.references, columns)

    parameters: list[click.Parameter] = [
        _filter_option(kind),
        click.Option(
            ["--order-by"],
            default="name" if "name" in kind.message.fields else "meta.create_time desc",
            show_default=True,
            help="Fields to sort by, joined by commas; desc behind one turns it round.",
        ),
        click.Option(["--limit"], type=click.IntRange(1), help="The most to print; all by default."),
        _output_option(),
    ]
    if "labels" in kind.message.fields:
        parameters.append(
            click.Option(["--show-labels"], is_flag=True, help="Show the labels in a column of the table.")
        )
    return _command(kind, method, parameters, run)


def _get(kind: contract.Kind, method: contract.Method) -> click.Command:
    def run(session: Session, which: str, output: str) -> None:
        from kowactl.output import show

        id_ = session.references.id_of(kind, which)
        show(kind, getattr(session.client, kind.nouns).get(id_), output, session.references)

    return _command(kind, method, [_target_argument(kind), _output_option()], run)


def _watch(kind: contract.Kind, method: contract.Method) -> click.Command:
    def run(session: Session, filter: str, revision: int, output: str) -> None:  # noqa: A002
        from kowactl.output import show_event

        complete, paths = False, dict[str, str]()
        with interruptible():
            for event in getattr(session.client, kind.nouns).watch(filter, revision):
                if event.resource and output in ("table", "name"):
                    paths[event.id] = session.references.path_of(kind, event.resource)
                if event.change != "synced" or not complete or output in ("json", "yaml"):
                    show_event(kind, event, output, session.references, paths.get(event.id, event.id))
                if event.change == "removed":
                    paths.pop(event.id, None)
                complete = complete or event.change == "synced"

    revision = click.Option(["--revision"], default=0, help=options.explained(method.request.fields["revision"]))
    return _command(kind, method, [_filter_option(kind), revision, _output_option()], run)


def _wait(kind: contract.Kind, method: contract.Method) -> click.Command:
    def run(session: Session, which: str, timeout: float, output: str) -> None:
        from kowactl.output import show
        from kowactl.progress import follow

        show(kind, follow(session.client, which, timeout), output, session.references)

    return _command(kind, method, [_target_argument(kind), _timeout_option(), _output_option()], run)


def _create(kind: contract.Kind, method: contract.Method) -> click.Command:
    def run(session: Session, from_file: bytes | None, **values: Any) -> None:
        if values["output"] == "name" and "secret" in kind.message.fields:
            raise click.UsageError(
                "-o name would throw away the secret, which is shown only once; take it from -o json"
            )
        document, _ = files.resource(kind, from_file) if from_file is not None else ({}, "")
        document |= options.given(kind.writable, values)
        _check_given(kind, method, kind.message, document)
        resource = session.references.message(kind.message, document)
        _change(session, kind, method, _request(method, **{kind.noun: resource}), values)

    own = [_create_option(field) for field in kind.writable]
    return _command(kind, method, [*own, _file_option(), *_change_options(method)], run)


def _update(kind: contract.Kind, method: contract.Method) -> click.Command:
    changeable = options.changeable(kind)

    def run(session: Session, which: str, from_file: bytes | None, clear: tuple[str, ...], **values: Any) -> None:
        # What can't be changed is sent as well when a file holds it: Kahuna refuses to change it, by its name.
        document, etag = files.resource(kind, from_file) if from_file is not None else ({}, "")
        mask = dict.fromkeys(document)
        typed = options.given(changeable, values)
        for name, value in typed.items():
            # Of a part that is one, what is not given stays.
            inner = value if name in kind.message.parts and isinstance(value, dict) else {}
            single = inner and not kind.message.fields[name].many and name not in document
            mask |= dict.fromkeys(f"{name}.{each}" for each in inner) if single else {name: None}
            document[name] = value
        for flag in clear:
            name = flag.replace("-", "_")
            if name in typed:
                raise click.UsageError(f"--{flag} and --clear {flag} contradict each other")
            mask[name] = document[name] = None
        if not mask:
            raise click.UsageError(f"nothing to change; see: kowactl {kind.command} update --help")
        document["meta"] = {"id": session.references.id_of(kind, which), "etag": etag}
        resource = session.references.message(kind.message, document)
        _change(session, kind, method, _request(method, **{kind.noun: resource}, update_mask={"paths": mask}), values)

    clear = click.Option(
        ["--clear"],
        type=click.Choice([options.spelled(field) for field in changeable]),
        metavar="FIELD",
        multiple=True,
        help="Empty a field. Can be repeated.",
    )
    replaced = " Those given replace all that were there."
    own = [options.option(field, replaced if field.many else "") for field in changeable]
    return _command(kind, method, [_target_argument(kind), *own, clear, _file_option(), *_change_options(method)], run)


def _custom(kind: contract.Kind, method: contract.Method) -> click.Command:
    """A deletion, or a verb of the kind's own."""
    own = [field for field in method.request.fields.values() if field.name not in COMMON_FIELDS]
    target = [_target_argument(kind)] if "id" in method.request.fields else []

    def run(session: Session, **values: Any) -> None:
        document, parents = options.given(own, values), dict[str, str]()
        _check_given(kind, method, method.request, document)
        if target:
            document["id"] = session.references.id_of(kind, values["which"])
            if method.request.references and kind.parents:  # what it names is likely to be where it is itself
                resource = getattr(session.client, kind.nouns).get(document["id"])
                parents = {field: getattr(resource, field) for field in kind.parents}
        _change(session, kind, method, session.references.message(method.request, document, parents), values)

    return _command(kind, method, [*target, *map(_create_option, own), *_change_options(method)], run)


def _change(
    session: Session, kind: contract.Kind, method: contract.Method, request: Any, values: dict[str, Any]
) -> None:
    """Sends a change, waits for it if asked to, and prints what is there then."""
    from kowactl.output import show

    if "request_id" in method.request.fields:
        request.request_id = str(uuid.uuid4())
    if plan := values.get("validate_only", False):
        request.validate_only = True
    begun = session.client.call(method, request)
    answer, operation, output = begun.resource, begun.operation_id, values["output"]
    if plan:
        print_message("valid; nothing was changed")
    elif operation and not values.get("wait"):
        print_message(f"begun; wait for it with: kowactl operation wait {operation}")
    elif operation:
        from kowactl.progress import committed, follow

        with committed(operation):
            done = follow(session.client, operation, values["timeout"])
            if kind.converges and method.response == kind.message.name:
                answer = getattr(session.client, kind.nouns).get(answer.meta.id)
        if method.verb == "delete":
            print_message(escaped(f"{kind.command} {done.target_name or values['which']} is gone"))
    if method.response != EMPTY:
        show(kind, answer, output, session.references)
    elif operation and output != "table":  # nothing is left to be shown but what was done
        show(contract.load().kinds["Operation"], session.client.operations.get(operation), output, session.references)


def _check_given(
    kind: contract.Kind, method: contract.Method, about: contract.Message, document: dict[str, Any]
) -> None:
    """Raises click.UsageError naming what is missing, or what of several is given beside another."""
    required = [field for field in about.fields.values() if field.required and field.name not in COMMON_FIELDS]
    missing = [options.flag(field) for field in required if not document.get(field.name)]
    for oneof in about.oneofs.values():
        flags = {name: options.flag(about.fields[name]) for name in oneof.fields}
        given = [flag for name, flag in flags.items() if document.get(name) is not None]
        if len(given) > 1:
            raise click.UsageError(f"{' and '.join(given)} contradict each other; give one of them")
        missing += [" or ".join(flags.values())] if oneof.required and not given else []
    if missing:
        raise click.UsageError(f"missing {', '.join(missing)}; see: kowactl {kind.command} {method.verb} --help")


def _request(method: contract.Method, **fields: Any) -> Any:
    return contract.load().stub(method.request.name)(**fields)


def _target_argument(kind: contract.Kind) -> click.Argument:
    return click.Argument(["which"], metavar="NAME|ID" if "name" in kind.message.fields else "ID")


def _create_option(field: contract.Field) -> click.Option:
    return options.option(field, "  [required]" if field.required else "")


def _change_options(method: contract.Method) -> list[click.Parameter]:
    """What every change has. Only what has a plan can be tried, and begins what can be awaited."""
    planned: list[click.Parameter] = [
        click.Option(["--validate-only"], is_flag=True, help="Check everything and change nothing."),
        click.Option(["--wait/--no-wait"], default=True, help="Wait until it is done (the default)."),
        _timeout_option(),
    ]
    why = click.Option(["--reason"], metavar="TEXT", help="Why; kept with the operation.")
    what = "its operation; a table is silent" if method.response == EMPTY else "it"
    kinds = {EMPTY, *(kind.message.name for kind in contract.load().kinds.values())}
    return [why, *(planned if method.mutates else ()), _output_option(what, named=method.response in kinds)]


def _output_option(what: str = "it", *, named: bool = True) -> click.Option:
    formats = click.Choice([form for form in FORMATS if named or form != "name"])
    return click.Option(["-o", "--output"], type=formats, default="table", help=f"How to print {what}.")


def _timeout_option() -> click.Option:
    return click.Option(
        ["--timeout"], type=options.Duration(), default=OPERATION_LIMIT, show_default=True, help="Wait no longer."
    )


def _filter_option(kind: contract.Kind) -> click.Option:
    field = kind.service.methods["list"].request.fields["filter"]
    return click.Option(["--filter"], default="", help=options.explained(field))


def _file_option() -> click.Option:
    text = "Values as JSON or YAML, such as get prints; texts as they stand, also with @ before them. - is stdin."
    return click.Option(["--from-file"], type=files.Document(), metavar="FILE", help=text)
