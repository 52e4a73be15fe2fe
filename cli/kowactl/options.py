"""Fields of the contract as options, and typed values converted to JSON form."""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import click

from kowa import contract, sizes
from kowa.contract import ElementKey, Field, Kind, Message, Value
from kowa.formats import snake
from kowactl import files


class ParsedParam(click.ParamType[Any]):
    """A click type whose values a function parses; its ValueError is the error message."""

    def __init__(self, name: str, parse: Callable[[str], Any]) -> None:
        self.name, self._parse = name, parse

    def convert(self, value: Any, param: click.Parameter | None, context: click.Context | None) -> Any:
        try:
            return self._parse(str(value))
        except ValueError as error:
            self.fail(str(error), param, context)


class EnumName(click.Choice[str]):
    """An enum, given by its short names and converted to the full ones."""

    def __init__(self, values: Sequence[Value]) -> None:
        self._full = {value.short: value.name for value in values[1:]}
        super().__init__([v.short for v in values[1:] if not v.not_served], case_sensitive=False)

    def convert(self, value: Any, param: click.Parameter | None, context: click.Context | None) -> str:
        if value in self._full.values():
            return str(value)
        return self._full[super().convert(value, param, context)]


def duration(text: str) -> float:
    """Parses a time to seconds."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(s|m|h)?", text)
    if not found:
        raise ValueError(f"{text!r} is not a time, such as 90s or 10m")
    return float(found[1]) * {"s": 1, "m": 60, "h": 3600}[found[2] or "s"]


def from_json(text: str) -> Any:
    """Parses a nested message from JSON."""
    try:
        return json.loads(text, object_pairs_hook=files.unique_names)
    except ValueError as error:
        raise ValueError(f"not JSON: {error}") from None


def map_entry(value_type: click.ParamType[Any], value_name: str = "VALUE") -> ParsedParam:
    """The click type of a map's entry, NAME=VALUE."""

    def parse(text: str) -> tuple[str, Any]:
        name, equals, content = text.partition("=")
        if not (name and equals):
            raise ValueError(f"{text!r} is not NAME=VALUE")
        return name, value_type.convert(content, None, None)

    return ParsedParam(f"NAME={value_name}", parse)


def part_type(message: Message) -> ParsedParam:
    """The click type of a submessage, `field=value,field=value` or JSON."""
    fields = {option_name(field): field for field in message.fields.values() if not field.output_only}
    names = "|".join(map(re.escape, (*fields, *message.fields)))
    # A comma belongs to the value unless NAME= follows it.
    separator = re.compile(rf",(?=(?:{names})=)")

    def parse(text: str) -> Any:
        if text.lstrip().startswith("{"):
            return from_json(text)
        values: dict[str, Any] = {}
        for assignment in separator.split(text):
            name, equals, content = assignment.partition("=")
            field = fields.get(name.replace("_", "-"))
            if field is None or not equals:
                raise ValueError(f"{assignment!r} is not NAME=VALUE; a name is one of {', '.join(fields)}")
            if field.name in values and not field.repeated:
                raise ValueError(f"{name} is given twice")
            value = element_type(field).convert(content, None, None)
            values[field.name] = [*values.get(field.name, ()), value] if field.repeated else value
        return values

    return ParsedParam(_syntax(next(iter(fields.values()))) + ("[,NAME=VALUE]" if len(fields) > 1 else ""), parse)


def param_type(field: Field) -> click.ParamType[Any]:
    """The click type that parses one value of the field, or one entry of a map."""
    part = contract.load().messages.get(field.type_name)
    value_type = part_type(part) if part else element_type(field)
    return map_entry(value_type, value_type.name if part else "VALUE") if field.is_map else value_type


def element_type(field: Field) -> click.ParamType[Any]:
    """The click type that parses one value of the field within a submessage or a map."""
    if field.type == "enum":
        return EnumName(contract.load().enums[field.type_name])
    if field.type == "message":
        return ParsedParam("json", from_json)
    if field.type == "bool":
        return click.BOOL
    if field.in_bytes:
        return ParsedParam("size", sizes.parse)
    if "int" in field.type:
        low, high = (getattr(field.rule, end) if field.rule.HasField(end) else None for end in ("min", "max"))
        return click.IntRange(low, high)
    if field.rule.ssh_public_key:
        return ParsedParam("text|@file", files.public_key)
    return ParsedParam("text|@file", files.text) if field.long_text else click.STRING


def changeable(kind: Kind) -> list[Field]:
    """The fields that update can change."""
    return [field for field in kind.writable if not (field.immutable or field.not_served)]


def option(field: Field, note: str = "") -> click.Option:
    """The option of a field; its value is None or empty if it is not given."""
    kind, part = param_type(field), contract.load().messages.get(field.type_name)
    names = flags(field)
    if field.type == "bool" and not field.is_collection:
        names = [f"--{option_name(field)}/--no-{option_name(field)}"]
    return click.Option(
        [field.name, *names],
        type=kind,
        multiple=field.is_collection,
        callback=_to_map if field.is_map else None,
        default=None,
        hidden=field.not_served,
        metavar=field.ref.upper() or (kind.name if part or field.is_map else None),
        help=field_help(field) + _part_help(part) + (" Can be repeated." if field.is_collection else "") + note,
    )


def _to_map(_: click.Context, __: click.Parameter, pairs: Iterable[tuple[str, Any]]) -> dict[str, Any] | None:
    """Collects the entries of a map, each from an option of its own; None if there are none."""
    try:
        return files.unique_names(pairs) or None
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def field_help(field: Field) -> str:
    """The help text of a field, from its comment."""
    text = re.sub(r"^(Required|Optional|Output only)\. ", "", field.comment).replace("`", "")
    for value in contract.load().enums[field.type_name][1:] if field.type == "enum" else ():
        text = text.replace(value.name, value.short)
    if field.in_bytes:
        text += " Such as 512M or 8G."
    if field.long_text:
        text += " Or @FILE to read it from a file, @- for stdin; write @@ for a text that begins with @."
    return text + (" By name or id." if field.ref else "")


def _part_help(part: Message | None) -> str:
    """The help text of a submessage's fields."""
    return "".join(
        f" {_syntax(field)}{' (required)' if field.required else ''}: {field_help(field)}"
        for field in (part.fields.values() if part else ())
        if not (field.output_only or field.not_served)
    )


def _syntax(field: Field) -> str:
    """The syntax of a field within a submessage: `weight=NUMBER`."""
    kind = element_type(field)
    choices = "|".join(kind.choices) if isinstance(kind, click.Choice) else ""
    number = "NUMBER" if isinstance(kind, click.IntRange) else ""
    return f"{option_name(field)}={field.ref.upper() or choices or number or kind.name.upper()}"


def option_name(field: Field) -> str:
    """A field's name in commands: `host-name`."""
    return field.name.replace("_", "-")


def flags(field: Field) -> list[str]:
    """The option's names; for a repeated field also the singular, first (--volume, --volumes)."""
    singular, name = "", option_name(field)
    if field.ref:
        kind = contract.load().kinds[field.ref]
        singular = kind.command if field.name == kind.nouns else ""
    elif field.type == "message":
        singular = snake(field.type_name.rpartition(".")[2]).replace("_", "-")
    elif field.is_map:
        singular = name.removesuffix("s")
    has_singular = field.is_collection and singular and name.startswith(singular) and name != singular
    return [f"--{singular}", f"--{name}"] if has_singular else [f"--{name}"]


def given_values(fields: Iterable[Field], values: Mapping[str, Any]) -> dict[str, Any]:
    """The given options' values, by field name."""
    return {field.name: values[field.name] for field in fields if values[field.name] not in (None, ())}


def map_elements(field: Field, value: Any, change: Callable[[ElementKey, Any], Any]) -> Any:
    """Changes each element of a JSON value. A value of the wrong type is returned as it is: ParseDict reports it."""
    if field.is_map and isinstance(value, dict):
        return {name: change(name, one) for name, one in value.items()}
    if field.repeated and isinstance(value, list | tuple):
        return [change(index, one) for index, one in enumerate(value)]
    return value if field.is_collection else change(None, value)
