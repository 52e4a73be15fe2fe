"""Output formats: table, JSON, YAML, names."""

import json
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import click

from kowa import contract, sizes
from kowa.contract import ElementKey, Field, Kind, Message
from kowactl.options import map_elements
from kowactl.references import References
from kowactl.terminal import escaped

NO_VALUE = "-"
NAME_WIDTH = 24
PIPE_WIDTH = 10_000  # no wrapping when stdout is not a terminal


def show_all(kind: Kind, items: Sequence[Any], form: str, references: References, columns: Sequence[str]) -> None:
    """Prints a list; `columns` are the field paths of a table."""
    if form in ("json", "yaml"):
        click.echo(_dumped([_as_dict(item) for item in items], form))
    elif form == "name":
        for item in items:
            click.echo(escaped(references.path_of(kind, item)))
    else:
        _print_table(columns, [[_cell(kind, item, path, references) for path in columns] for item in items])


def show(kind: Kind, item: Any, form: str, references: References) -> None:
    """Prints one resource or another response; a table shows all set fields."""
    if form in ("json", "yaml"):
        click.echo(_dumped(_as_dict(item), form))
    elif form == "name":
        click.echo(escaped(references.path_of(kind, item)))
    else:
        for path, value in _set_fields(contract.load().messages[item.DESCRIPTOR.full_name], item, references):
            lines = map(escaped, value.rstrip().split("\n"))
            click.echo(f"{path:<{NAME_WIDTH}} " + ("\n" + " " * (NAME_WIDTH + 1)).join(lines))


def show_event(kind: Kind, event: Any, form: str, references: References, path: str) -> None:
    """Prints one event of a watch: a line, or a YAML document. A removed resource is printed as its path."""
    if form in ("json", "yaml"):
        values: dict[str, Any] = {"change": event.change, "revision": event.revision, "id": event.id}
        if event.resource:
            values[kind.noun] = _as_dict(event.resource)
        line = _dumped(values, form, indent=None) if form == "json" else f"---\n{_dumped(values, form)}"
    elif form == "name":
        line = escaped(path)  # nothing for `synced`
    else:
        resource = event.resource
        cells = [_cell(kind, resource, column, references) for column in kind.columns] if resource else [path]
        line = escaped("  ".join([f"{event.change:<8}", *cells]).rstrip())
    if line:
        click.echo(line)


def _as_dict(item: Any) -> Any:
    """Converts a message to canonical proto JSON, with all fields in the order of the contract."""
    values = _proto_json(item, complete=True)
    return _ordered(contract.load().messages[item.DESCRIPTOR.full_name], None, values)


def _proto_json(message: Any, *, complete: bool = False) -> Any:
    from google.protobuf.json_format import MessageToDict  # late: --help needs none

    return MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=complete)


def _ordered(message: Message | None, _: ElementKey, values: Any) -> Any:
    if message is None:
        return values
    return {
        name: map_elements(field, values[name], partial(_ordered, message.submessages.get(name)))
        for name, field in message.fields.items()
        if name in values
    }


def _cell(kind: Kind, item: Any, path: str, references: References) -> str:
    """A field's value, by its path. Never empty, so that awk can split columns."""
    message, (*parts, name) = kind.message, path.split(".")
    for part in parts:
        message, item = message.submessages[part], getattr(item, part)
    return _value(message.fields[name], item, references) or NO_VALUE


def _value(field: Field, item: Any, references: References) -> str:
    if field.presence and not item.HasField(field.name):
        return ""
    texts = [(key, _text_of(field, value, references)) for key, value in contract.values(item, field)]
    separator = "; " if field.type == "message" else ", "
    return separator.join(f"{key}={text}" if field.is_map else text for key, text in texts)


def _text_of(field: Field, value: Any, references: References) -> str:
    if field.ref and value:
        kind = contract.load().kinds.get(field.ref)
        return references.name_of(kind, value) if kind else str(value)
    if field.type == "enum":
        return next((v.short for v in contract.load().enums[field.type_name] if v.number == value and value), "")
    if field.type_name == "google.protobuf.Timestamp":
        return str(value.ToJsonString())
    if part := contract.load().messages.get(field.type_name):  # as in options, but with spaces
        return ", ".join(f"{path}={text}" for path, text in _set_fields(part, value, references))
    if field.type == "message":
        return json.dumps(_proto_json(value), ensure_ascii=False)
    if field.type == "bool":
        return "yes" if value else "no"
    return sizes.short(value) if field.in_bytes else str(value)


def _set_fields(message: Message, item: Any, references: References, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yields all fields that are set, by path."""
    for descriptor, value in item.ListFields():
        field = message.fields[descriptor.name]
        part = message.submessages.get(field.name)
        if part and not field.is_collection:
            yield from _set_fields(part, value, references, f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}", _value(field, item, references)


def _print_table(columns: Sequence[str], rows: list[list[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for path in columns:
        table.add_column(path.rpartition(".")[2].replace("_", " ").upper(), overflow="fold")
    for cells in rows:
        table.add_row(*(Text(escaped(cell)) for cell in cells))
    console = Console(highlight=False, width=None if sys.stdout.isatty() else PIPE_WIDTH)
    with console.capture() as printed:
        console.print(table)
    click.echo("\n".join(line.rstrip() for line in printed.get().removesuffix("\n").split("\n")))


def _dumped(values: Any, form: str, indent: int | None = 2) -> str:
    """Dumps JSON or YAML; escapes non-ASCII characters unless stdout can encode and a terminal show all of them."""

    def dump(as_is: bool) -> str:
        if form == "json":
            return json.dumps(values, indent=indent, ensure_ascii=not as_is)
        import yaml

        return yaml.safe_dump(values, sort_keys=False, allow_unicode=as_is).rstrip()

    text, encoding = dump(True), sys.stdout.encoding
    is_encodable = text.encode(encoding, "ignore").decode(encoding) == text
    return text if is_encodable and all(line == escaped(line) for line in text.split("\n")) else dump(False)
