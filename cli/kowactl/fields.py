"""Fields of the contract as options, and what is given for them as messages."""

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

import click

from kowa import contract, sizes
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
    if field.rule.ssh_public_key:
        return PublicKey()
    if field.long_text:
        return Text()
    return click.STRING


def changeable(kind: contract.Kind) -> list[contract.Field]:
    """What may be given later."""
    return [field for field in kind.writable if not field.immutable]


def option(field: contract.Field) -> click.Option:
    """A field as an option; left out, its value is None or empty."""
    many = field.repeated or field.is_map
    metavar = f"{field.ref.upper()}" if field.ref else None
    return click.Option(
        [f"{flag(field)}/--no-{flag(field)[2:]}" if field.type == "bool" else flag(field)],
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
    if field.long_text:
        text += " Or @FILE, which holds it, @- for stdin; a text that begins with @ is written @@."
    return text + (" By name or id." if field.ref else "")


def flag(field: contract.Field) -> str:
    """A field as an option is called."""
    return f"--{field.name.replace('_', '-')}"


def given(fields: Iterable[contract.Field], options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that were given, as JSON."""
    values = {field.name: options[field.name] for field in fields if options[field.name] not in (None, ())}
    maps = {field.name for field in fields if field.is_map}
    return {name: dict(value) if name in maps else value for name, value in values.items()}


def contradictions(options: Mapping[str, Any], clear: Iterable[str]) -> list[str]:
    """What is said twice and otherwise."""
    return [
        f"--{name} and --clear {name} contradict each other"
        for name in dict.fromkeys(clear)
        if options[name.replace("-", "_")] not in (None, ())
    ]


def from_file(kind: contract.Kind, content: bytes) -> tuple[dict[str, Any], str]:
    """A resource as JSON or YAML, such as `get` prints, and its etag. Its values may be written as in options; what is
    the server's to fill is left out.

    Raises click.UsageError naming what is wrong.
    """
    document = _parsed(content)
    if unknown := document.keys() - kind.message.fields.keys():
        raise click.UsageError(f"--from-file: no {kind.command} has the field {', '.join(sorted(map(str, unknown)))}")
    meta = document.get("meta") or {}
    if not isinstance(meta, dict):
        raise click.UsageError("--from-file: meta must hold names and values, such as an etag")
    fields = kind.writable
    taken = {field.name: document[field.name] for field in fields if field.name in document}
    for field in fields:
        if isinstance(taken.get(field.name), str) and (field.in_bytes or field.type == "enum"):
            taken[field.name] = _converted(field, taken[field.name])
    return taken, str(meta.get("etag") or "")


def _parsed(content: bytes) -> dict[Any, Any]:
    """Names and values, as plain as JSON has them. A byte order mark says nothing there."""
    import yaml

    from kowactl.documents import Loader

    try:
        document = yaml.load(content.decode("utf-8-sig"), Loader)  # noqa: S506 - a SafeLoader
        if not isinstance(document, dict):
            raise click.UsageError("--from-file must hold one resource: names and values")
        return {name: json.loads(json.dumps(value, default=str, allow_nan=False)) for name, value in document.items()}
    except UnicodeDecodeError:
        raise click.UsageError("--from-file is not UTF-8; save it as UTF-8") from None
    except yaml.YAMLError as error:
        raise click.UsageError(f"--from-file is neither JSON nor YAML: {' '.join(str(error).split())}") from None
    except (RecursionError, TypeError, ValueError) as error:  # YAML can say what JSON can't
        raise click.UsageError(f"--from-file holds what no resource can: {error}") from None


def _converted(field: contract.Field, text: str) -> Any:
    try:
        return None if text.endswith("_UNSPECIFIED") else kind_of_value(field).convert(text, None, None)
    except click.BadParameter as error:
        raise click.UsageError(f"--from-file: {field.name}: {error.message}") from None
