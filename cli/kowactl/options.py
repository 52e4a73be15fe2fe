"""Fields of the contract as options, and what is typed for them as JSON has it."""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import click

from kowa import contract, sizes
from kowa.formats import snake
from kowactl.files import PublicKey, Text


class Size(click.ParamType[int]):
    """Bytes, with binary units: 512M, 8GiB."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, context: click.Context | None) -> int:
        """The number of bytes."""
        try:
            return sizes.parse(str(value))
        except ValueError as error:
            self.fail(f"{value!r} is {error}", param, context)


class Duration(click.ParamType[float]):
    """A length of time."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, context: click.Context | None) -> float:
        """In seconds."""
        found = re.fullmatch(r"(\d+(?:\.\d+)?)(s|m|h)?", str(value))
        if not found:
            self.fail(f"{value!r} is not a time, such as 90s or 10m", param, context)
        return float(found[1]) * {"s": 1, "m": 60, "h": 3600}[found[2] or "s"]


class EnumName(click.Choice[str]):
    """An enum by its short names."""

    def __init__(self, values: Sequence[contract.Value]) -> None:
        self._full = {value.short: value.name for value in values[1:]}
        super().__init__([v.short for v in values[1:] if not v.not_served], case_sensitive=False)

    def convert(self, value: Any, param: click.Parameter | None, context: click.Context | None) -> str:
        """The full name."""
        if value in self._full.values():
            return str(value)
        return self._full[super().convert(value, param, context)]


class Json(click.ParamType[Any]):
    """A part with fields of its own."""

    name = "json"

    def convert(self, value: Any, param: click.Parameter | None, context: click.Context | None) -> Any:
        """The value."""
        try:
            return json.loads(value, object_pairs_hook=unique)
        except ValueError as error:
            self.fail(f"not JSON: {error}", param, context)


class Entry(click.ParamType[tuple[str, Any]]):
    """An entry of a map."""

    def __init__(self, value: click.ParamType[Any]) -> None:
        self._value = value
        self.name = f"NAME={value.name if isinstance(value, Part) else 'VALUE'}"

    def convert(self, value: Any, param: click.Parameter | None, context: click.Context | None) -> tuple[str, Any]:
        """The name and the value."""
        name, equals, content = str(value).partition("=")
        if not (name and equals):
            self.fail(f"{value!r} is not NAME=VALUE", param, context)
        return name, self._value.convert(content, param, context)


class Part(click.ParamType[Any]):
    """A message within another: `field=value,field=value`, or as JSON."""

    def __init__(self, about: contract.Message) -> None:
        self._fields = {spelled(field): field for field in about.fields.values() if not field.output_only}
        self.name = _form(next(iter(self._fields.values()))) + ("[,NAME=VALUE]" if len(self._fields) > 1 else "")
        names = "|".join(map(re.escape, (*self._fields, *about.fields)))
        # A comma in a value is one, unless a field's name and = follow.
        self._separator = re.compile(rf",(?=(?:{names})=)")

    def convert(self, value: Any, param: click.Parameter | None, context: click.Context | None) -> Any:
        """The fields by name, as JSON has them."""
        if str(value).lstrip().startswith("{"):
            return Json().convert(value, param, context)
        values: dict[str, Any] = {}
        for text in self._separator.split(str(value)):
            name, equals, content = text.partition("=")
            field = self._fields.get(name.replace("_", "-"))
            if field is None or not equals:
                self.fail(f"{text!r} is not NAME=VALUE; a name is one of {', '.join(self._fields)}", param, context)
            if field.name in values and not field.many:
                self.fail(f"{name} is given twice", param, context)
            kind = element_type(field)
            one = (Entry(kind) if field.is_map else kind).convert(content, param, context)
            values[field.name] = [*values.get(field.name, ()), one] if field.many else one
        return given(self._fields.values(), values)


def param_type(field: contract.Field) -> click.ParamType[Any]:
    """What one value of a field is read by; of a map, one entry."""
    part = contract.load().messages.get(field.type_name)
    one = Part(part) if part else element_type(field)
    return Entry(one) if field.is_map else one


def element_type(field: contract.Field) -> click.ParamType[Any]:
    """What one value of a field is read by, within a part or a map."""
    if field.type == "enum":
        return EnumName(contract.load().enums[field.type_name])
    if field.type == "message":
        return Json()
    if field.type == "bool":
        return click.BOOL
    if field.in_bytes:
        return Size()
    if "int" in field.type:
        low = field.rule.min if field.rule.HasField("min") else None
        high = field.rule.max if field.rule.HasField("max") else None
        return click.IntRange(low, high)
    if field.rule.ssh_public_key:
        return PublicKey()
    return Text() if field.long_text else click.STRING


def changeable(kind: contract.Kind) -> list[contract.Field]:
    """What may be given later."""
    return [field for field in kind.writable if not (field.immutable or field.not_served)]


def option(field: contract.Field, note: str = "") -> click.Option:
    """A field as an option; left out, its value is None or empty."""
    kind, part = param_type(field), contract.load().messages.get(field.type_name)
    names = [f"{flag(field)}/--no-{flag(field)[2:]}"] if field.type == "bool" and not field.many else flags(field)
    return click.Option(
        [field.name, *names],
        type=kind,
        multiple=field.many,
        default=None,
        hidden=field.not_served,
        metavar=field.ref.upper() or (kind.name if part or field.is_map else None),
        help=explained(field) + _explained_part(part) + (" Can be repeated." if field.many else "") + note,
    )


def explained(field: contract.Field) -> str:
    """The comment, as help."""
    text = re.sub(r"^(Required|Optional|Output only)\. ", "", field.comment).replace("`", "")
    for value in contract.load().enums[field.type_name][1:] if field.type == "enum" else ():
        text = text.replace(value.name, value.short)
    if field.in_bytes:
        text += " Such as 512M or 8G."
    if field.long_text:
        text += " Or @FILE, which holds it, @- for stdin; a text that begins with @ is written @@."
    return text + (" By name or id." if field.ref else "")


def _explained_part(part: contract.Message | None) -> str:
    """What its fields are."""
    fields = part.fields.values() if part else ()
    return "".join(
        f" {_form(field)}{' (required)' if field.required else ''}: {explained(field)}"
        for field in fields
        if not (field.output_only or field.not_served)
    )


def _form(field: contract.Field) -> str:
    """How a field is given within a part: `weight=NUMBER`."""
    kind = element_type(field)
    choices = "|".join(kind.choices) if isinstance(kind, click.Choice) else ""
    number = "NUMBER" if isinstance(kind, click.IntRange) else ""
    return f"{spelled(field)}={field.ref.upper() or choices or number or kind.name.upper()}"


def spelled(field: contract.Field) -> str:
    """A field's name in commands: `host-name`."""
    return field.name.replace("_", "-")


def flag(field: contract.Field) -> str:
    """A field as an option is called."""
    return f"--{spelled(field)}"


def flags(field: contract.Field) -> list[str]:
    """The field's name; before it that of one of several, where it has one: each is given by itself."""
    one = ""
    if field.ref:
        kind = contract.load().kinds[field.ref]
        one = kind.command if field.name == kind.nouns else ""
    elif field.type == "message":
        one = snake(field.type_name.rpartition(".")[2]).replace("_", "-")
    elif field.is_map:
        one = spelled(field).removesuffix("s")
    if field.many and one and spelled(field).startswith(one) and one != spelled(field):
        return [f"--{one}", flag(field)]
    return [flag(field)]


def given(fields: Iterable[contract.Field], values: Mapping[str, Any]) -> dict[str, Any]:
    """What was given for fields, each value of many by itself, as JSON. Raises click.UsageError for a name twice."""
    return {
        field.name: _joined(field, value) for field in fields if (value := values.get(field.name)) not in (None, ())
    }


def _joined(field: contract.Field, value: Any) -> Any:
    try:
        return unique(value) if field.is_map else value
    except ValueError as error:
        raise click.UsageError(f"{flag(field)}: {error}") from None


def unique(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """Names and values. Raises ValueError for a name given twice."""
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"{name} is given twice")
        found[name] = value
    return found


def each(field: contract.Field, value: Any, change: Callable[[contract.Key, Any], Any]) -> Any:
    """A field's value as JSON has it, with each of its elements changed. What does not fit is said later."""
    if field.is_map and isinstance(value, dict):
        return {name: change(name, one) for name, one in value.items()}
    if field.repeated and isinstance(value, list | tuple):
        return [change(index, one) for index, one in enumerate(value)]
    return value if field.many else change(None, value)
