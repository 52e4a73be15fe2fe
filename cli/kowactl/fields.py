"""Fields of the contract as options, and what is given for them as messages."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from kowa import contract

UNITS = "KMGTPE"


class Size(click.ParamType[int]):
    """Bytes, with binary units: 512M, 8GiB."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, context: click.Context | None) -> int:
        """The number of bytes."""
        found = re.fullmatch(rf"(\d+)(?:([{UNITS}])(?:iB)?)?", str(value))
        if not found:
            self.fail(f"{value!r} is not a size, such as 512M or 8G", param, context)
        number, unit = found.groups()
        return int(number) << 10 * (UNITS.index(unit) + 1 if unit else 0)


class Named(click.Choice[str]):
    """An enum by its short names."""

    def __init__(self, enum: contract.Enum) -> None:
        self._full = {value.short: value.name for value in enum.values[1:]}
        super().__init__(list(self._full), case_sensitive=False)

    def convert(self, value: Any, param: click.Parameter | None, context: click.Context | None) -> str:
        """The full name."""
        if value in self._full.values():
            return str(value)
        return self._full[super().convert(value, param, context)]


class Text(click.ParamType[str]):
    """A text, or the file that holds it: @FILE."""

    name = "text|@file"

    def convert(self, value: Any, param: click.Parameter | None, context: click.Context | None) -> str:
        """The text."""
        if not str(value).startswith("@"):
            return str(value)
        try:
            return Path(str(value)[1:]).read_text()
        except OSError as error:
            self.fail(f"can't read {error.filename}: {error.strerror}", param, context)


class Pair(click.ParamType[tuple[str, str]]):
    """An entry of a map."""

    name = "name=value"

    def convert(self, value: Any, param: click.Parameter | None, context: click.Context | None) -> tuple[str, str]:
        """The name and the value."""
        name, equals, content = str(value).partition("=")
        if not (name and equals):
            self.fail(f"{value!r} is not NAME=VALUE", param, context)
        return name, content


class Json(click.ParamType[Any]):
    """A part with fields of its own."""

    name = "json"

    def convert(self, value: Any, param: click.Parameter | None, context: click.Context | None) -> Any:
        """The value."""
        try:
            return json.loads(value)
        except ValueError as error:
            self.fail(f"not JSON: {error}", param, context)


def kind_of_value(field: contract.Field) -> click.ParamType[Any]:
    """What one value of a field is read by."""
    if field.is_map:
        return Pair()
    if field.type == "enum":
        return Named(contract.load().enums[field.type_name])
    if field.type == "message":
        return Json()
    if field.in_bytes:
        return Size()
    if "int" in field.type:
        low = field.rule.min if field.rule.HasField("min") else None
        high = field.rule.max if field.rule.HasField("max") else None
        return click.IntRange(low, high)
    if field.long_text:
        return Text()
    return click.STRING


def writable(kind: contract.Kind) -> list[contract.Field]:
    """What may be given at creation."""
    return [field for field in kind.message.fields.values() if not field.output_only and field.name != "meta"]


def changeable(kind: contract.Kind) -> list[contract.Field]:
    """What may be given later."""
    return [field for field in writable(kind) if not field.immutable]


def option(field: contract.Field) -> click.Option:
    """A field as an option; left out, its value is None or empty."""
    flag = f"--{field.name.replace('_', '-')}"
    many = field.repeated or field.is_map
    metavar = f"{field.ref.upper()}" if field.ref else None
    return click.Option(
        [f"{flag}/--no-{flag[2:]}" if field.type == "bool" else flag],
        type=click.BOOL if field.type == "bool" else kind_of_value(field),
        multiple=many,
        default=None,
        metavar=metavar,
        help=explained(field) + (" Can be repeated." if many else ""),
    )


def explained(field: contract.Field) -> str:
    """The comment, as help."""
    text = re.sub(r"^(Required|Optional|Output only)\. ", "", field.comment).replace("`", "")
    for value in contract.load().enums[field.type_name].values[1:] if field.type == "enum" else ():
        text = text.replace(value.name, value.short)
    if field.in_bytes:
        text += " Such as 512M or 8G."
    return text + (" By name or id." if field.ref else "")


def given(fields: list[contract.Field], options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that were given, as JSON."""
    values = {field.name: options[field.name] for field in fields if options[field.name] not in (None, ())}
    maps = {field.name for field in fields if field.is_map}
    return {name: dict(value) if name in maps else value for name, value in values.items()}


def from_file(kind: contract.Kind, fields: list[contract.Field], text: str) -> tuple[dict[str, Any], str]:
    """A resource as JSON or YAML, such as `get` prints, and its etag. Its values may be written as in options; of the
    fields of the kind only those wanted are taken.

    Raises click.UsageError naming what is wrong.
    """
    import yaml

    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise click.UsageError(f"--from-file is neither JSON nor YAML: {' '.join(str(error).split())}") from None
    if not isinstance(document, dict):
        raise click.UsageError("--from-file must hold one resource: names and values")
    if unknown := document.keys() - kind.message.fields.keys():
        raise click.UsageError(f"--from-file: no {kind.command} has the field {', '.join(sorted(map(str, unknown)))}")
    taken = {field.name: document[field.name] for field in fields if field.name in document}
    for field in fields:
        if isinstance(taken.get(field.name), str) and (field.in_bytes or field.type == "enum"):
            taken[field.name] = _converted(field, taken[field.name])
    return taken, str((document.get("meta") or {}).get("etag", ""))


def _converted(field: contract.Field, text: str) -> Any:
    try:
        return None if text.endswith("_UNSPECIFIED") else kind_of_value(field).convert(text, None, None)
    except click.BadParameter as error:
        raise click.UsageError(f"--from-file: {field.name}: {error.message}") from None
