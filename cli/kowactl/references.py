"""Translates names, which people use, to ids and back."""

import json
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

import click

from kowa import contract, errors
from kowa.contract import ElementKey, Field, Kind, Message
from kowa.formats import ID
from kowa.ssh_keys import public_key_problem
from kowactl import help_texts
from kowactl.options import element_type, map_elements

if TYPE_CHECKING:
    from kowa.client import Client

MAX_CANDIDATES = 10  # listed for an ambiguous name
MAX_SINGLE_READS = 3  # resources of a kind that are read one by one for their names, before all are read at once
PAGE_SIZE = 1000


class References:
    """Looks up ids by name, and names by id."""

    def __init__(self, client: "Client") -> None:
        self._client = client
        self._known: dict[str, Any] = {}  # resources by id; None when one can't be read
        self._reads: Counter[str] = Counter()

    def message(self, message: Message, document: dict[str, Any], parents: Mapping[str, str] | None = None) -> Any:
        """Builds a message from a document like JSON, with ids for names, and sizes and enums converted to JSON's form.

        Of several resources with the same name, it takes the one whose parent is named earlier in the document, or is
        in `parents`: ids by field name. Raises click.UsageError naming the field that doesn't fit.
        """
        from google.protobuf.json_format import ParseDict, ParseError  # late: --help needs neither

        try:
            return ParseDict(self._fields(message, parents or {}, "", document), contract.load().stub(message.name)())
        except ParseError as error:
            raise click.UsageError(" ".join(str(error).split())) from None

    def _fields(self, message: Message, parents: Mapping[str, str], path: str, document: Any) -> Any:
        if not isinstance(document, Mapping):
            return document  # ParseDict reports the wrong type
        fields, known = dict(document), dict(parents)  # a project precedes the resources in it, and so narrows them
        for field in message.fields.values():
            if value := fields.get(field.name):
                change = partial(self._value, field, message.submessages.get(field.name), known, path)
                fields[field.name] = map_elements(field, value, change)
                if field.ref and not field.is_collection:
                    known[field.name] = fields[field.name]
        return fields

    def _value(
        self, field: Field, part: Message | None, parents: Mapping[str, str], parent: str, key: ElementKey, value: Any
    ) -> Any:
        path = contract.field_path(parent, field.name, key)
        if part:
            return self._fields(part, parents, path, value)
        if field.ref:
            return self.id_of(contract.load().kinds[field.ref], str(value), parents)
        if not isinstance(value, str):
            return value
        if field.rule.ssh_public_key and (problem := public_key_problem(value)):
            raise click.UsageError(f"{path}: {problem}")  # before it is sent: it may be a private key
        if field.in_bytes or (field.type == "enum" and not value.endswith("_UNSPECIFIED")):
            try:
                return element_type(field).convert(value, None, None)
            except click.BadParameter as error:
                raise click.UsageError(f"{path}: {error.message}") from None
        return value

    def id_of(self, kind: Kind, text: str, parents: Mapping[str, str] | None = None) -> str:
        """Looks up an id by a text: an id, a name, or PARENT/NAME where names are unique within a parent.

        Of several resources with the name, it takes the one with one of these parents. Raises NotFound, or
        click.UsageError naming the candidates when there are several.
        """
        # Other forms of a UUID, such as 32 hex digits, may be names.
        if ID.fullmatch(text):
            return text.lower()
        if "name" not in kind.message.fields:
            raise click.UsageError(f"{text!r} is not an id, and {help_texts.noun_with_article(kind)} has no name")
        found = self._find_named(kind, text)
        for field in kind.parents:
            if len(found) > 1 and parents and field in parents:
                found = self._find_named(kind, text, f" AND {field} = {_quoted(parents[field])}") or found
        if not found and kind.parents and "/" in text:
            found = self._by_path(kind, text)
        if not found:
            raise errors.NotFound(f"no {kind.command} is called {text!r}; see: kowactl {kind.command} list")
        if len(found) > 1:
            choices = ", ".join(f"{self.path_of(kind, item)} ({item.meta.id})" for item in found)
            raise click.UsageError(f"{text!r} is ambiguous; give an id or a path of these: {choices}")
        return str(found[0].meta.id)

    def name_of(self, kind: Kind, id: str) -> str:  # noqa: A002 - its name in the contract
        """The name of a resource; its id if it has none or can't be read."""
        return getattr(self._resource(kind, id), "name", "") or id

    def path_of(self, kind: Kind, item: Any) -> str:
        """The text by which `id_of` finds it: its name, PARENT/NAME if names are unique within a parent, or its id."""
        name, field = getattr(item, "name", ""), _parent_field(kind, item)
        parent = getattr(item, field) if field else ""
        if not name or ID.fullmatch(name) or (parent and "/" in name):
            return str(item.meta.id)
        if not parent:
            return str(name)
        parent_kind = contract.load().kinds[kind.parents[field]]
        resource = self._resource(parent_kind, parent)
        return f"{self.path_of(parent_kind, resource) if resource else parent}/{name}"

    def _resource(self, kind: Kind, id_: str) -> Any:
        """The resource with the id, or None. The first few of a kind are read singly; then all of the kind at once."""
        if id_ not in self._known:
            self._reads[kind.name] += 1
            self._known[id_] = None
            with suppress(errors.KowaError):
                if self._reads[kind.name] > MAX_SINGLE_READS:
                    self._known |= {item.meta.id: item for item in self._resources(kind).list(page_size=PAGE_SIZE)}
                else:
                    self._known[id_] = self._resources(kind).get(id_)
        return self._known[id_]

    def _by_path(self, kind: Kind, path: str) -> list[Any]:
        """The resources with the path PARENT/NAME. Raises NotFound when there is no such parent."""
        parent_path, _, name = path.rpartition("/")
        found, missing = [], list[errors.NotFound]()
        for field, parent in kind.parents.items():
            try:
                parent_id = self.id_of(contract.load().kinds[parent], parent_path)
                found += self._find_named(kind, name, f" AND {field} = {_quoted(parent_id)}")
            except errors.NotFound as error:
                missing.append(error)
        if len(missing) == len(kind.parents):
            raise missing[0]
        return found

    def _find_named(self, kind: Kind, name: str, conditions: str = "") -> list[Any]:
        """The resources with a name; those being deleted only if no other has it."""
        found = list(islice(self._resources(kind).list(filter=f"name = {_quoted(name)}{conditions}"), MAX_CANDIDATES))
        return [item for item in found if not item.meta.HasField("delete_time")] or found

    def _resources(self, kind: Kind) -> Any:
        return getattr(self._client, kind.nouns)


def _parent_field(kind: Kind, item: Any) -> str:
    """The field with the parent within which the resource's name is unique; empty if it is unique everywhere."""
    for unique in kind.uniques:
        if "name" in unique.fields and not (unique.unless and getattr(item, unique.unless)):
            return next((field for field in unique.fields if field in kind.parents), "")
    return ""


def _quoted(text: str) -> str:
    """Quotes a text for a filter, where an unescaped asterisk would be a wildcard."""
    return json.dumps(text, ensure_ascii=False).replace("*", r"\*")
