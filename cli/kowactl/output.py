"""What is read, as people and programs like it: tables, JSON, YAML, names."""

import json
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from kowa import contract, sizes
from kowactl.terminal import escaped

if TYPE_CHECKING:
    from kowa.calls import Event
    from kowactl.references import References

NO_VALUE = "-"
NAME_WIDTH = 24
PIPE_WIDTH = 10_000  # where nobody looks, nothing is folded


def show_all(
    kind: contract.Kind, items: Sequence[Any], form: str, references: "References", columns: Sequence[str]
) -> None:
    """Prints a list; a table of it has these columns, fields by their paths."""
    match form:
        case "json" | "yaml":
            click.echo(_text([as_dict(item) for item in items], form))
        case "name":
            for item in items:
                click.echo(escaped(references.path_of(kind, item)))
        case _:
            _table(list(map(_title, columns)), [row(kind, item, references, columns) for item in items])


def show(kind: contract.Kind, item: Any, form: str, references: "References") -> None:
    """Prints one resource, or what else a verb of its kind answers; in a table all of it."""
    match form:
        case "json" | "yaml":
            click.echo(_text(as_dict(item), form))
        case "name":
            click.echo(escaped(references.path_of(kind, item)))
        case _:
            for path, value in _facts(contract.load().messages[item.DESCRIPTOR.full_name], item, references):
                lines = map(escaped, value.rstrip().split("\n"))
                click.echo(f"{path:<{NAME_WIDTH}} " + ("\n" + " " * (NAME_WIDTH + 1)).join(lines))


def show_event(kind: contract.Kind, event: "Event[Any]", form: str, references: "References", called: str) -> None:
    """Prints one event of a watch: a line, or a document for YAML. Of what is gone only what it was called is left."""
    match form:
        case "json" | "yaml":
            seen: dict[str, Any] = {"change": event.change, "revision": event.revision, "id": event.id}
            if event.resource:
                seen[kind.noun] = as_dict(event.resource)
            line = _json(seen) if form == "json" else f"---\n{_text(seen, form)}"
        case "name":
            line = escaped(called)  # nothing for `synced`
        case _:
            cells = row(kind, event.resource, references) if event.resource else [called]
            line = escaped("  ".join([f"{event.change:<8}", *cells]).rstrip())
    if line:
        click.echo(line)


def as_dict(item: Message) -> dict[str, Any]:
    """Canonical proto JSON, whole, in the order of the contract."""
    values = MessageToDict(item, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
    return _ordered(contract.load().messages[item.DESCRIPTOR.full_name], values)


def _ordered(message: contract.Message, values: dict[str, Any]) -> dict[str, Any]:
    return {
        name: _ordered_part(field, message.parts[name], values[name]) if name in message.parts else values[name]
        for name, field in message.fields.items()
        if name in values
    }


def _ordered_part(field: contract.Field, message: contract.Message, value: Any) -> Any:
    if field.is_map:
        return {key: _ordered(message, each) for key, each in value.items()}
    return [_ordered(message, each) for each in value] if field.repeated else _ordered(message, value)


def row(kind: contract.Kind, item: Any, references: "References", columns: Sequence[str] = ()) -> list[str]:
    """The columns of a resource, its kind's by default. None is empty: whoever counts words counts columns."""
    return [_cell(kind.message, item, path, references) or NO_VALUE for path in columns or kind.columns]


def _cell(message: contract.Message, item: Any, path: str, references: "References") -> str:
    first, _, rest = path.partition(".")
    field = message.fields[first]
    if rest:
        return _cell(contract.load().messages[field.type_name], getattr(item, first), rest, references)
    return _value(field, item, references)


def _value(field: contract.Field, item: Any, references: "References") -> str:
    value = getattr(item, field.name)
    if field.is_map:
        joint = "; " if field.type == "message" else ", "
        return joint.join(f"{key}={_one(field, value[key], references)}" for key in sorted(value))
    if field.repeated:
        return ("; " if field.type == "message" else ", ").join(_one(field, each, references) for each in value)
    if field.presence and not item.HasField(field.name):
        return ""
    return _one(field, value, references)


def _one(field: contract.Field, value: Any, references: "References") -> str:
    if field.ref and value:
        kind = contract.load().kinds.get(field.ref)
        return references.name_of(kind, value) if kind else str(value)
    if field.type == "enum":
        return next((v.short for v in contract.load().enums[field.type_name].values if v.number == value and value), "")
    if field.type_name == "google.protobuf.Timestamp":
        return str(value.ToJsonString())
    if part := contract.load().messages.get(field.type_name):  # as it is typed, but with spaces
        return ", ".join(f"{path}={said}" for path, said in _facts(part, value, references))
    if field.type == "message":
        return json.dumps(MessageToDict(value, preserving_proto_field_name=True), ensure_ascii=False)
    if field.type == "bool":
        return "yes" if value else "no"
    return sizes.short(value) if field.in_bytes else str(value)


def _facts(
    message: contract.Message, item: Any, references: "References", above: str = ""
) -> Iterator[tuple[str, str]]:
    """All that is set, by path."""
    for field, value in item.ListFields():
        described = message.fields[field.name]
        inner = message.parts.get(field.name)
        if inner and not described.many:
            yield from _facts(inner, value, references, f"{above}{field.name}.")
        else:
            yield f"{above}{field.name}", _value(described, item, references)


def _table(titles: list[str], rows: list[list[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for title in titles:
        table.add_column(title, overflow="fold")
    for cells in rows:
        table.add_row(*(Text(escaped(cell)) for cell in cells))
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = PIPE_WIDTH
    with console.capture() as printed:
        console.print(table)
    click.echo("\n".join(line.rstrip() for line in printed.get().removesuffix("\n").split("\n")))


def _title(path: str) -> str:
    return path.rpartition(".")[2].replace("_", " ").upper()


def _text(value: Any, form: str) -> str:
    if form == "json":
        return _json(value, indent=2)
    import yaml

    text = yaml.safe_dump(value, sort_keys=False, allow_unicode=True).rstrip()
    return text if _can_be_shown(text) else yaml.safe_dump(value, sort_keys=False).rstrip()


def _json(value: Any, indent: int | None = None) -> str:
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    return text if _can_be_shown(text) else json.dumps(value, indent=indent)


def _can_be_shown(text: str) -> bool:
    """Whether a terminal takes it as text, and the output has a sign for each of its own."""
    try:
        text.encode(sys.stdout.encoding)
    except UnicodeEncodeError:
        return False
    return all(line == escaped(line) for line in text.split("\n"))
