"""What is made of several values, as a person types it: entries of maps, and messages within messages."""

import json
import re
from collections.abc import Callable, Iterable
from typing import Any

import click

from kowa import contract

ReaderOf = Callable[[contract.Field], click.ParamType[Any]]


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

    def __init__(self, about: contract.Message, reader: ReaderOf) -> None:
        self._fields = {spelled(field): field for field in about.fields.values() if not field.output_only}
        self._reader = reader
        first = next(iter(self._fields.values()))
        self.name = form(first, reader(first)) + ("[,NAME=VALUE]" if len(self._fields) > 1 else "")
        names = "|".join(map(re.escape, (*self._fields, *about.fields)))
        # A comma in a value is one, unless a field's name and = follow.
        self._next = re.compile(rf",(?=(?:{names})=)")

    def convert(self, value: Any, param: click.Parameter | None, context: click.Context | None) -> Any:
        """The fields by name, as JSON has them."""
        if str(value).lstrip().startswith("{"):
            return Json().convert(value, param, context)
        found: dict[str, Any] = {}
        for text in self._next.split(str(value)):
            name, equals, content = text.partition("=")
            field = self._fields.get(name.replace("_", "-"))
            if field is None or not equals:
                self.fail(f"{text!r} is not NAME=VALUE; a name is one of {', '.join(self._fields)}", param, context)
            if field.name in found and not field.many:
                self.fail(f"{name} is given twice", param, context)
            one = self._reader(field).convert(content, param, context)
            found[field.name] = [*found.get(field.name, ()), one] if field.many else one
        return {name: joined(self._fields[name.replace("_", "-")], value) for name, value in found.items()}


class Json(click.ParamType[Any]):
    """A part with fields of its own."""

    name = "json"

    def convert(self, value: Any, param: click.Parameter | None, context: click.Context | None) -> Any:
        """The value."""
        try:
            return json.loads(value, object_pairs_hook=once)
        except ValueError as error:
            self.fail(f"not JSON: {error}", param, context)


def spelled(field: contract.Field) -> str:
    """A field's name in commands: `host-name`."""
    return field.name.replace("_", "-")


def joined(field: contract.Field, values: Any) -> Any:
    """What was given for a field, each by itself, as JSON has it. Raises click.UsageError for a name given twice."""
    if not field.is_map:
        return values
    try:
        return once(values)
    except ValueError as error:
        raise click.UsageError(f"--{spelled(field)}: {error}") from None


def once(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
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


def form(field: contract.Field, kind: click.ParamType[Any]) -> str:
    """How a field is given within a part: `weight=NUMBER`."""
    choices = "|".join(kind.choices) if isinstance(kind, click.Choice) else ""
    number = "NUMBER" if isinstance(kind, click.IntRange) else ""
    return f"{spelled(field)}={field.ref.upper() or choices or number or kind.name.upper()}"
