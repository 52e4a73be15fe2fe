"""Fields of the contract as options, and what is given for them as messages."""

import json
import re
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import click

from kowa import contract, sizes
from kowa.formats import snake
from kowa.ssh_keys import why_no_public_key
from kowactl.files import PublicKey, Text
from kowactl.parts import Entry, Json, Part, each, form, joined, spelled


class Size(click.ParamType[int]):
    """Bytes, with binary units: 512M, 8GiB."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, context: click.Context | None) -> int:
        """The number of bytes."""
        try:
            return sizes.parse(str(value))
        except ValueError as error:
            self.fail(f"{value!r} is {error}", param, context)


class EnumName(click.Choice[str]):
    """An enum by its short names."""

    def __init__(self, enum: contract.Enum) -> None:
        self._full = {value.short: value.name for value in enum.values[1:]}
        super().__init__([v.short for v in enum.values[1:] if not v.not_served], case_sensitive=False)

    def convert(self, value: Any, param: click.Parameter | None, context: click.Context | None) -> str:
        """The full name."""
        if value in self._full.values():
            return str(value)
        return self._full[super().convert(value, param, context)]


def param_type(field: contract.Field) -> click.ParamType[Any]:
    """What one value of a field is read by; of a map, one entry."""
    part = contract.load().messages.get(field.type_name)
    one = Part(part, _single_type) if part else _single_type(field)
    return Entry(one) if field.is_map else one


def _single_type(field: contract.Field) -> click.ParamType[Any]:
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
    if field.long_text:
        return Text()
    return click.STRING


def changeable(kind: contract.Kind) -> list[contract.Field]:
    """What may be given later."""
    return [field for field in kind.writable if not (field.immutable or field.not_served)]


def option(field: contract.Field) -> click.Option:
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
        help=explained(field) + (_explained_part(part) if part else "") + (" Can be repeated." if field.many else ""),
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


def _explained_part(part: contract.Message) -> str:
    """What its fields are."""
    fields = [field for field in part.fields.values() if not (field.output_only or field.not_served)]
    required = {field.name: " (required)" if field.required else "" for field in fields}
    return "".join(f" {form(f, _single_type(f))}{required[f.name]}: {explained(f)}" for f in fields)


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


def given(fields: Iterable[contract.Field], options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that were given, as JSON. Raises click.UsageError for a name of a map that is given twice."""
    return {field.name: joined(field, options[field.name]) for field in fields if options[field.name] not in (None, ())}


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
    return _converted(kind.message, taken), str(meta.get("etag") or "")


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


def _converted(about: contract.Message, document: dict[str, Any], above: str = "") -> dict[str, Any]:
    """What is written as in options, such as sizes, as JSON has it; in parts, too."""
    found = dict(document)
    for field in about.fields.values():
        if field.name in found:
            inner = partial(_converted_one, field, about.parts.get(field.name), above)
            found[field.name] = each(field, found[field.name], inner)
    return found


def _converted_one(
    field: contract.Field, part: contract.Message | None, above: str, key: contract.Key, value: Any
) -> Any:
    here = contract.place(above, field.name, key)
    if part and isinstance(value, dict):
        return _converted(part, value, here)
    if isinstance(value, str) and field.rule.ssh_public_key and (reason := why_no_public_key(value)):
        raise click.UsageError(f"--from-file: {here}: {reason}")  # before it is sent: it may be a private key
    if not isinstance(value, str) or not (field.in_bytes or field.type == "enum"):
        return value
    if value.endswith("_UNSPECIFIED"):
        return None
    try:
        return _single_type(field).convert(value, None, None)
    except click.BadParameter as error:
        raise click.UsageError(f"--from-file: {here}: {error.message}") from None
