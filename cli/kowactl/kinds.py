"""The commands of one kind, built from its methods when they are used."""

import uuid
from collections.abc import Callable
from functools import partial
from itertools import islice
from typing import Any

import click

from kowa import contract, errors
from kowa.contract import Field, Kind, Message, Method
from kowactl import files, help_texts, options
from kowactl.groups import first_sentence
from kowactl.output import show, show_all, show_event
from kowactl.references import PAGE_SIZE
from kowactl.session import Session
from kowactl.terminal import escaped, interruptible, print_message

FORMATS = ["table", "json", "yaml", "name"]
DEFAULT_TIMEOUT = "10m"  # of waiting for an operation
EMPTY = "google.protobuf.Empty"
COMMON_FIELDS = {"id", "etag", "request_id", "validate_only", "timeout"}  # of requests; not options

Command = tuple[Callable[..., None], list[click.Parameter]]  # (callback, parameters)


def command(kind: Kind, method: Method) -> click.Command:
    """The command of a method."""
    makers = {"list": _list, "get": _get, "create": _create, "update": _update, "watch": _watch}
    maker = _wait if kind.name == "Operation" and method.verb == "wait" else makers.get(method.verb, _custom)
    run, parameters = maker(kind, method)
    text = help_texts.help_text(kind, method)
    return click.Command(
        method.verb,
        params=parameters,
        callback=click.pass_obj(run),
        help=text,
        short_help=first_sentence(text),
        epilog="\b\nExample:\n  " + help_texts.example(kind, method),
    )


def _list(kind: Kind, method: Method) -> Command:
    def run(session: Session, output: str, limit: int | None, show_labels: bool = False, **query: str) -> None:
        columns = [*kind.columns, *(["labels"] if show_labels else [])]
        with interruptible(session.client.close):
            items = getattr(session.client, kind.nouns).list(**query, page_size=min(limit or 0, PAGE_SIZE))
            show_all(kind, list(islice(items, limit)), output, session.references, columns)

    order = "name" if "name" in kind.message.fields else "meta.create_time desc"
    text = "Fields to sort by, joined by commas; append desc for descending order."
    parameters: list[click.Parameter] = [
        _filter_option(kind),
        click.Option(["--order-by"], default=order, show_default=True, help=text),
        click.Option(["--limit"], type=click.IntRange(1), help="The most to print; all by default."),
        _output_option(),
    ]
    labels = click.Option(["--show-labels"], is_flag=True, help="Show the labels in a column of the table.")
    return run, [*parameters, labels] if "labels" in kind.message.fields else parameters


def _get(kind: Kind, method: Method) -> Command:
    def run(session: Session, name_or_id: str, output: str) -> None:
        id_ = session.references.id_of(kind, name_or_id)
        show(kind, getattr(session.client, kind.nouns).get(id_), output, session.references)

    return run, [_target_argument(kind), _output_option()]


def _watch(kind: Kind, method: Method) -> Command:
    def run(session: Session, output: str, **query: Any) -> None:
        complete, paths = False, dict[str, str]()
        with interruptible(session.client.close):
            for event in getattr(session.client, kind.nouns).watch(**query):
                if event.resource and output in ("table", "name"):
                    paths[event.id] = session.references.path_of(kind, event.resource)
                if event.change != "synced" or not complete or output in ("json", "yaml"):
                    show_event(kind, event, output, session.references, paths.get(event.id, event.id))
                if event.change == "removed":
                    paths.pop(event.id, None)
                complete = complete or event.change == "synced"

    revision = click.Option(["--revision"], default=0, help=options.field_help(method.request.fields["revision"]))
    return run, [_filter_option(kind), revision, _output_option()]


def _wait(kind: Kind, method: Method) -> Command:
    def run(session: Session, name_or_id: str, timeout: float, output: str) -> None:
        show(kind, session.follow(name_or_id, timeout), output, session.references)

    return run, [_target_argument(kind), _timeout_option(), _output_option()]


def _create(kind: Kind, method: Method) -> Command:
    def run(session: Session, from_file: files.Resource | None, **values: Any) -> None:
        if values["output"] == "name" and "secret" in kind.message.fields:
            raise click.UsageError("-o name would throw away the secret, which is shown once; take it from -o json")
        document, _ = from_file or ({}, "")
        document |= options.given_values(kind.writable, values)
        _check_given(kind, method, kind.message, document)
        _change(session, kind, method, session.references.message(method.request, {kind.noun: document}), values)

    field_options = [_create_option(field) for field in kind.writable]
    return run, [*field_options, _file_option(kind), *_change_options(method)]


def _update(kind: Kind, method: Method) -> Command:
    changeable = options.changeable(kind)

    def run(session: Session, from_file: files.Resource | None, clear: tuple[str, ...], **values: Any) -> None:
        # Immutable fields from a file are sent too, so that Kahuna rejects them by name.
        document, etag = from_file or ({}, "")
        mask = dict.fromkeys(document)
        given = options.given_values(changeable, values)
        for name, value in given.items():
            # For a single submessage, mask only the subfields given; the others keep their values.
            subfields = value if name in kind.message.submessages and isinstance(value, dict) else {}
            single = subfields and not kind.message.fields[name].is_collection and name not in document
            mask |= dict.fromkeys(f"{name}.{each}" for each in subfields) if single else {name: None}
            document[name] = value
        for flag in clear:
            name = flag.replace("-", "_")
            if name in given:
                raise click.UsageError(f"--{flag} and --clear {flag} contradict each other")
            mask[name] = document[name] = None
        if not mask:
            raise click.UsageError(f"nothing to change; see: kowactl {kind.command} update --help")
        document["meta"] = {"id": session.references.id_of(kind, values["name_or_id"]), "etag": etag}
        request = session.references.message(method.request, {kind.noun: document})
        request.update_mask.paths.extend(mask)
        _change(session, kind, method, request, values)

    names, text = click.Choice([options.option_name(field) for field in changeable]), "Empty a field. Can be repeated."
    clear = click.Option(["--clear"], type=names, metavar="FIELD", multiple=True, help=text)
    replaced = " Those given replace all that were there."
    field_options = [options.option(field, replaced if field.is_collection else "") for field in changeable]
    return run, [_target_argument(kind), *field_options, clear, _file_option(kind), *_change_options(method)]


def _custom(kind: Kind, method: Method) -> Command:
    """A deletion, or a custom verb of the kind."""
    fields = [field for field in method.request.fields.values() if field.name not in COMMON_FIELDS]
    arguments = [_target_argument(kind)] if "id" in method.request.fields else []

    def run(session: Session, **values: Any) -> None:
        document, parents = options.given_values(fields, values), dict[str, str]()
        _check_given(kind, method, method.request, document)
        if arguments:
            document["id"] = session.references.id_of(kind, values["name_or_id"])
            if method.request.references and kind.parents:  # look them up in the target's own project or region first
                resource = getattr(session.client, kind.nouns).get(document["id"])
                parents = {field: getattr(resource, field) for field in kind.parents}
        _change(session, kind, method, session.references.message(method.request, document, parents), values)

    return run, [*arguments, *map(_create_option, fields), *_change_options(method)]


def _change(session: Session, kind: Kind, method: Method, request: Any, values: dict[str, Any]) -> None:
    """Sends a change, waits for it unless --no-wait is given, and prints the result."""
    if "request_id" in method.request.fields:
        request.request_id = str(uuid.uuid4())
    if is_dry_run := values.get("validate_only", False):
        request.validate_only = True
    answer = session.client.call(method, request)
    resource, operation, output = answer.resource, answer.operation_id, values["output"]
    if is_dry_run:
        print_message("valid; nothing was changed")
    elif operation and not values.get("wait"):
        print_message(f"started; wait for it with: kowactl operation wait {operation}")
    elif operation:
        try:
            done = session.follow(operation, values["timeout"])
            if kind.converges and method.response == kind.message.name:
                resource = getattr(session.client, kind.nouns).get(resource.meta.id)
        except (errors.OperationFailed, errors.OperationPending):  # these errors already name the operation
            raise
        except BaseException:
            print_message(f"the change is committed and goes on; wait for it with: kowactl operation wait {operation}")
            raise
        if method.verb == "delete":
            print_message(escaped(f"{kind.command} {done.target_name or values['name_or_id']} is gone"))
    if method.response != EMPTY:
        show(kind, resource, output, session.references)
    elif operation and output != "table":  # the resource is gone: show the operation
        show(contract.load().kinds["Operation"], session.client.operations.get(operation), output, session.references)


def _check_given(kind: Kind, method: Method, message: Message, document: dict[str, Any]) -> None:
    """Raises click.UsageError naming the options that are missing, or which options exclude each other."""
    required = [field for field in message.fields.values() if field.required and field.name not in COMMON_FIELDS]
    missing = [f"--{options.option_name(field)}" for field in required if not document.get(field.name)]
    for oneof in message.oneofs.values():
        flags = {name: f"--{options.option_name(message.fields[name])}" for name in oneof.fields}
        given = [flag for name, flag in flags.items() if document.get(name) is not None]
        if len(given) > 1:
            raise click.UsageError(f"{' and '.join(given)} contradict each other; give one of them")
        missing += [" or ".join(flags.values())] if oneof.required and not given else []
    if missing:
        raise click.UsageError(f"missing {', '.join(missing)}; see: kowactl {kind.command} {method.verb} --help")


def _target_argument(kind: Kind) -> click.Argument:
    return click.Argument(["name_or_id"], metavar="NAME|ID" if "name" in kind.message.fields else "ID")


def _create_option(field: Field) -> click.Option:
    return options.option(field, "  [required]" if field.required else "")


def _change_options(method: Method) -> list[click.Parameter]:
    """The options of a change. --validate-only and --wait exist only where the method takes validate_only."""
    dry_run_and_wait: list[click.Parameter] = [
        click.Option(["--validate-only"], is_flag=True, help="Check everything and change nothing."),
        click.Option(["--wait/--no-wait"], default=True, help="Wait until it is done (the default)."),
        _timeout_option(),
    ]
    reason = click.Option(["--reason"], metavar="TEXT", help="The reason for the change; stored with the operation.")
    printed = "its operation; -o table prints nothing" if method.response == EMPTY else "it"
    kinds = {EMPTY, *(kind.message.name for kind in contract.load().kinds.values())}
    extra = dry_run_and_wait if method.mutates else ()
    return [reason, *extra, _output_option(printed, named=method.response in kinds)]


def _output_option(printed: str = "it", *, named: bool = True) -> click.Option:
    formats = click.Choice([form for form in FORMATS if named or form != "name"])
    return click.Option(["-o", "--output"], type=formats, default="table", help=f"How to print {printed}.")


def _timeout_option() -> click.Option:
    kind = options.ParsedParam("time", options.duration)
    return click.Option(["--timeout"], type=kind, default=DEFAULT_TIMEOUT, show_default=True, help="The longest wait.")


def _filter_option(kind: Kind) -> click.Option:
    field = kind.service.methods["list"].request.fields["filter"]
    return click.Option(["--filter"], default="", help=options.field_help(field))


def _file_option(kind: Kind) -> click.Option:
    text = "Values as JSON or YAML, as get prints them; @ has no special meaning in their texts. - is stdin."
    parsed = options.ParsedParam("file", partial(files.resource, kind))
    return click.Option(["--from-file"], type=parsed, metavar="FILE", help=text)
