"""The commands of one kind, made from its methods when they are asked for."""

import re
import uuid
from collections.abc import Callable
from typing import Any

import click

from kowa import contract
from kowactl import fields, help_texts
from kowactl.examples import example
from kowactl.files import Document
from kowactl.parts import spelled
from kowactl.requests import message
from kowactl.session import Session
from kowactl.terminal import escaped, interruptible, print_message

FORMATS = ["table", "json", "yaml", "name"]
OPERATION_LIMIT = "10m"
EMPTY = "google.protobuf.Empty"
COMMON_FIELDS = {
    "id",
    "etag",
    "request_id",
    "validate_only",
    "timeout",
}  # fields of requests that are no options of their own


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
        method = self.kind.service.methods[name]
        make: dict[str, Callable[[contract.Kind, contract.Method], click.Command]] = {
            "list": _list,
            "get": _get,
            "create": _create,
            "update": _update,
            "delete": _delete,
            "watch": _watch,
        }
        if self.kind.name == "Operation" and name == "wait":
            return _wait(self.kind, method)
        return make.get(name, _custom)(self.kind, method)


class Duration(click.ParamType[float]):
    """A length of time."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, context: click.Context | None) -> float:
        """In seconds."""
        found = re.fullmatch(r"(\d+(?:\.\d+)?)(s|m|h)?", str(value))
        if not found:
            self.fail(f"{value!r} is not a time, such as 90s or 10m", param, context)
        return float(found[1]) * {"s": 1, "m": 60, "h": 3600}[found[2] or "s"]


def _output(what: str = "it", *, named: bool = True) -> click.Option:
    formats = click.Choice([form for form in FORMATS if named or form != "name"])
    return click.Option(["-o", "--output"], type=formats, default="table", help=f"How to print {what}.")


def _wait_limit() -> click.Option:
    return click.Option(
        ["--timeout"], type=Duration(), default=OPERATION_LIMIT, show_default=True, help="Wait no longer."
    )


def _change_options(method: contract.Method) -> list[click.Parameter]:
    """What every change has. Only what has a plan can be tried, and begins what can be awaited."""
    planned: list[click.Parameter] = [
        click.Option(["--validate-only"], is_flag=True, help="Check everything and change nothing."),
        click.Option(["--wait/--no-wait"], default=True, help="Wait until it is done (the default)."),
        _wait_limit(),
    ]
    why = click.Option(["--reason"], metavar="TEXT", help="Why; kept with the operation.")
    what = "its operation; a table is silent" if method.response == EMPTY else "it"
    kinds = {EMPTY, *(kind.message.name for kind in contract.load().kinds.values())}
    return [why, *(planned if method.mutates else ()), _output(what, named=method.response in kinds)]


def _target_argument(kind: contract.Kind) -> click.Argument:
    return click.Argument(["which"], metavar="NAME|ID" if "name" in kind.message.fields else "ID")


def _command(
    kind: contract.Kind, method: contract.Method, parameters: list[click.Parameter], run: Callable[..., None]
) -> click.Command:
    def callback(session: Session, **values: Any) -> None:
        session.reason = values.get("reason") or ""
        run(session, **values)

    said = help_texts.help_text(kind, method)
    return click.Command(
        method.verb,
        params=parameters,
        callback=click.pass_obj(callback),
        help=said,
        short_help=help_texts.first_sentence(said),
        epilog="\b\nExample:\n  " + example(kind, method),
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

    options: list[click.Parameter] = [
        _filter(kind),
        click.Option(
            ["--order-by"],
            default="name" if "name" in kind.message.fields else "meta.create_time desc",
            show_default=True,
            help="Fields to sort by, joined by commas; desc behind one turns it round.",
        ),
        click.Option(["--limit"], type=click.IntRange(1), help="The most to print; all by default."),
        _output(),
    ]
    if "labels" in kind.message.fields:
        options.append(click.Option(["--show-labels"], is_flag=True, help="Show the labels in a column of the table."))
    return _command(kind, method, options, run)


def _get(kind: contract.Kind, method: contract.Method) -> click.Command:
    def run(session: Session, which: str, output: str) -> None:
        from kowactl.output import show

        id_ = session.references.id_of(kind, which)
        show(kind, getattr(session.client, kind.nouns).get(id_), output, session.references)

    return _command(kind, method, [_target_argument(kind), _output()], run)


def _create(kind: contract.Kind, method: contract.Method) -> click.Command:
    def run(session: Session, from_file: bytes | None, **options: Any) -> None:
        _refuse_to_lose_the_secret(kind, options["output"])
        document, _ = fields.from_file(kind, from_file) if from_file is not None else ({}, "")
        document |= fields.given(kind.writable, options)
        _check_given(kind, method, kind.message, document)
        resource = message(session.references, kind.message, document)
        _change(session, kind, method, _request(method, **{kind.noun: resource}), options)

    own = [_create_option(field) for field in kind.writable]
    return _command(kind, method, [*own, _from_file(), *_change_options(method)], run)


def _update(kind: contract.Kind, method: contract.Method) -> click.Command:
    changeable = fields.changeable(kind)

    def run(session: Session, which: str, from_file: bytes | None, clear: tuple[str, ...], **options: Any) -> None:
        if said := fields.contradictions(options, clear):
            raise click.UsageError("; ".join(said))
        # What can't be changed is sent as well when a file holds it: Kahuna refuses to change it, by its name.
        document, etag = fields.from_file(kind, from_file) if from_file is not None else ({}, "")
        mask = dict.fromkeys(document)
        for name, value in fields.given(changeable, options).items():
            # Of a part that is one, what is not given stays.
            inner = value if name in kind.message.parts and isinstance(value, dict) else {}
            single = inner and not kind.message.fields[name].many and name not in document
            mask |= dict.fromkeys(f"{name}.{each}" for each in inner) if single else {name: None}
            document[name] = value
        for name in (name.replace("-", "_") for name in clear):
            mask[name] = document[name] = None
        if not mask:
            raise click.UsageError(f"nothing to change; see: kowactl {kind.command} update --help")
        document["meta"] = {"id": session.references.id_of(kind, which), "etag": etag}
        resource = message(session.references, kind.message, document)
        _change(session, kind, method, _request(method, **{kind.noun: resource}, update_mask={"paths": mask}), options)

    choices = click.Choice([spelled(field) for field in changeable])
    clear = click.Option(
        ["--clear"], type=choices, metavar="FIELD", multiple=True, help="Empty a field. Can be repeated."
    )
    own = [_update_option(field) for field in changeable]
    return _command(kind, method, [_target_argument(kind), *own, clear, _from_file(), *_change_options(method)], run)


def _delete(kind: contract.Kind, method: contract.Method) -> click.Command:
    def run(session: Session, **options: Any) -> None:
        request = _request(method, id=session.references.id_of(kind, options["which"]))
        _change(session, kind, method, request, options)

    return _command(kind, method, [_target_argument(kind), *_change_options(method)], run)


def _custom(kind: contract.Kind, method: contract.Method) -> click.Command:
    own = [field for field in method.request.fields.values() if field.name not in COMMON_FIELDS]
    has_target = "id" in method.request.fields

    def run(session: Session, which: str = "", **options: Any) -> None:
        document, beside = fields.given(own, options), dict[str, str]()
        _check_given(kind, method, method.request, document)
        if has_target:
            document["id"] = session.references.id_of(kind, which)
            if method.request.references and kind.parents:  # what it names is likely to be where it is itself
                target = getattr(session.client, kind.nouns).get(document["id"])
                beside = {field: getattr(target, field) for field in kind.parents}
        _change(session, kind, method, message(session.references, method.request, document, **beside), options)

    target = [_target_argument(kind)] if has_target else []
    return _command(kind, method, [*target, *map(_create_option, own), *_change_options(method)], run)


def _wait(kind: contract.Kind, method: contract.Method) -> click.Command:
    def run(session: Session, which: str, timeout: float, output: str) -> None:
        from kowactl.output import show
        from kowactl.progress import follow

        show(kind, follow(session.client, which, timeout), output, session.references)

    return _command(kind, method, [_target_argument(kind), _wait_limit(), _output()], run)


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

    options: list[click.Parameter] = [
        _filter(kind),
        click.Option(["--revision"], default=0, help=fields.explained(method.request.fields["revision"])),
        _output(),
    ]
    return _command(kind, method, options, run)


def _filter(kind: contract.Kind) -> click.Option:
    said = kind.service.methods["list"].request.fields["filter"]
    return click.Option(["--filter"], default="", help=fields.explained(said))


def _from_file() -> click.Option:
    said = "Values as JSON or YAML, such as get prints; texts as they stand, also with @ before them. - is stdin."
    return click.Option(["--from-file"], type=Document(), metavar="FILE", help=said)


def _refuse_to_lose_the_secret(kind: contract.Kind, output: str) -> None:
    if output == "name" and "secret" in kind.message.fields:
        raise click.UsageError("-o name would throw away the secret, which is shown only once; take it from -o json")


def _create_option(field: contract.Field) -> click.Option:
    option = fields.option(field)
    option.help = f"{option.help}  [required]" if field.required else option.help
    return option


def _update_option(field: contract.Field) -> click.Option:
    option = fields.option(field)
    many = field.repeated or field.is_map
    option.help = f"{option.help} Those given replace all that were there." if many else option.help
    return option


def _check_given(
    kind: contract.Kind, method: contract.Method, about: contract.Message, document: dict[str, Any]
) -> None:
    """Raises click.UsageError naming what is missing, or what of several is given beside another."""
    required = [field for field in about.fields.values() if field.required and field.name not in COMMON_FIELDS]
    missing = [fields.flag(field) for field in required if not document.get(field.name)]
    for oneof in about.oneofs.values():
        flags = [fields.flag(about.fields[name]) for name in oneof.fields]
        given = [flag for flag, name in zip(flags, oneof.fields, strict=True) if document.get(name) is not None]
        if len(given) > 1:
            raise click.UsageError(f"{' and '.join(given)} contradict each other; give one of them")
        missing += [" or ".join(flags)] if oneof.required and not given else []
    if missing:
        said = f"missing {', '.join(missing)}; see: kowactl {kind.command} {method.verb} --help"
        raise click.UsageError(said)


def _request(method: contract.Method, **fields: Any) -> Any:
    return contract.load().stub(method.request.name)(**fields)


def _change(
    session: Session, kind: contract.Kind, method: contract.Method, request: Any, options: dict[str, Any]
) -> None:
    """Sends a change, waits for it if asked to, and prints what is there then."""
    from kowactl.output import show

    plan, following = options.get("validate_only", False), options.get("wait", False)
    for name, value in (("request_id", str(uuid.uuid4())), ("validate_only", plan)):
        if name in method.request.fields:
            setattr(request, name, value)
    begun = session.client.call(method, request)
    answer, operation, output = begun.resource, begun.operation_id, options["output"]
    if plan:
        print_message("valid; nothing was changed")
    elif operation and not following:
        print_message(f"begun; wait for it with: kowactl operation wait {operation}")
    elif operation:
        from kowactl.progress import committed, follow

        with committed(operation):
            done = follow(session.client, operation, options["timeout"])
            if kind.converges and method.response == kind.message.name:
                answer = getattr(session.client, kind.nouns).get(answer.meta.id)
        if method.verb == "delete":
            print_message(escaped(f"{kind.command} {done.target_name or options['which']} is gone"))
    if method.response != EMPTY:
        show(kind, answer, output, session.references)
    elif operation and output != "table":  # nothing is left to be shown but what was done
        show(contract.load().kinds["Operation"], session.client.operations.get(operation), output, session.references)
