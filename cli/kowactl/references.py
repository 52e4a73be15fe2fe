"""Names for people, ids for the platform."""

import json
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

import click
from google.protobuf.json_format import ParseDict, ParseError

from kowa import contract, errors
from kowa.contract import ElementKey, Field, Kind, Message
from kowa.formats import ID
from kowa.ssh_keys import public_key_problem
from kowa.v2 import meta_pb2
from kowactl import help_texts
from kowactl.options import element_type, map_elements

if TYPE_CHECKING:
    from kowa.client import Client

MAX_CANDIDATES = 10  # named when a name is ambiguous
MAX_SINGLE_READS = 3  # resources of a kind that are read one by one for their names, before all are read at once
PAGE_SIZE = 1000


class References:
    """Finds what a name means, and the name of what an id means."""

    def __init__(self, client: "Client") -> None:
        self._client = client
        self._known: dict[str, Any] = {}  # resources by id; None when one can't be read
        self._reads: Counter[str] = Counter()

    def message(self, about: Message, document: dict[str, Any], parents: Mapping[str, str] | None = None) -> Any:
        """A message from a document like JSON, with ids for names, and sizes and enums as JSON has them.

        A name that several bear means the one whose parent is named earlier in the document, or is among the parents:
        ids by the fields that hold them. Raises click.UsageError naming the field that doesn't fit.
        """
        try:
            return ParseDict(self._fields(about, parents or {}, "", document), contract.load().stub(about.name)())
        except ParseError as error:
            raise click.UsageError(" ".join(str(error).split())) from None

    def _fields(self, about: Message, parents: Mapping[str, str], above: str, document: Any) -> Any:
        if not isinstance(document, Mapping):
            return document  # what does not fit is said later
        found, known = dict(document), dict(parents)  # a project stands before what is in it: it tells that apart
        for field in about.fields.values():
            if value := found.get(field.name):
                change = partial(self._value, field, about.submessages.get(field.name), known, above)
                found[field.name] = map_elements(field, value, change)
                if field.ref and not field.is_collection:
                    known[field.name] = found[field.name]
        return found

    def _value(
        self, field: Field, part: Message | None, parents: Mapping[str, str], above: str, key: ElementKey, value: Any
    ) -> Any:
        place = contract.field_path(above, field.name, key)
        if part:
            return self._fields(part, parents, place, value)
        if field.ref:
            return self.id_of(contract.load().kinds[field.ref], str(value), parents)
        if not isinstance(value, str):
            return value
        if field.rule.ssh_public_key and (reason := public_key_problem(value)):
            raise click.UsageError(f"{place}: {reason}")  # before it is sent: it may be a private key
        if field.in_bytes or (field.type == "enum" and not value.endswith("_UNSPECIFIED")):
            try:
                return element_type(field).convert(value, None, None)
            except click.BadParameter as error:
                raise click.UsageError(f"{place}: {error.message}") from None
        return value

    def id_of(self, kind: Kind, text: str, parents: Mapping[str, str] | None = None) -> str:
        """The id of what is called so: an id, a name, or PARENT/NAME where names are unique within a parent.

        Of several that are called so, the one with one of these parents is meant. Raises NotFound, or click.UsageError
        naming the candidates when there are several.
        """
        # Other forms of a UUID, such as 32 hex digits, may be names.
        if ID.fullmatch(text):
            return text.lower()
        if "name" not in kind.message.fields:
            raise click.UsageError(f"{text!r} is not an id, and {help_texts.singular(kind)} has no name")
        found = self._called(kind, text)
        for field in kind.parents:
            if len(found) > 1 and parents and field in parents:
                found = self._called(kind, text, f" AND {field} = {_quoted(parents[field])}") or found
        if not found and kind.parents and "/" in text:
            found = self._by_path(kind, text)
        if not found:
            raise errors.NotFound(f"no {kind.command} is called {text!r}; see: kowactl {kind.command} list")
        if len(found) > 1:
            choices = ", ".join(f"{self.path_of(kind, item)} ({item.meta.id})" for item in found)
            raise click.UsageError(f"{text!r} is ambiguous; give an id or a path of these: {choices}")
        return str(found[0].meta.id)

    def name_of(self, kind: Kind, id: str) -> str:  # noqa: A002 - what the contract calls it
        """The name of what has the id; the id itself when that can't be told."""
        return getattr(self._resource(kind, id), "name", "") or id

    def path_of(self, kind: Kind, item: Any) -> str:
        """What `id_of` takes for it: its name, PARENT/NAME where names are unique within a parent, or its id."""
        name, field = getattr(item, "name", ""), _parent_field(kind, item)
        parent = getattr(item, field) if field else ""
        if not name or ID.fullmatch(name) or (parent and "/" in name):
            return str(item.meta.id)
        if not parent:
            return str(name)
        above = contract.load().kinds[kind.parents[field]]
        resource = self._resource(above, parent)
        return f"{self.path_of(above, resource) if resource else parent}/{name}"

    def _resource(self, kind: Kind, id_: str) -> Any:
        """What has the id. The first few of a kind are read one by one; then all that there are, at once."""
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
        """What has the path PARENT/NAME. Raises NotFound when nothing is called as the parent is."""
        above, _, name = path.rpartition("/")
        found, missing = [], list[errors.NotFound]()
        for field, parent in kind.parents.items():
            try:
                within = self.id_of(contract.load().kinds[parent], above)
                found += self._called(kind, name, f" AND {field} = {_quoted(within)}")
            except errors.NotFound as error:
                missing.append(error)
        if len(missing) == len(kind.parents):
            raise missing[0]
        return found

    def _called(self, kind: Kind, name: str, more: str = "") -> list[Any]:
        """What has the name; what is being deleted only if nothing else has it."""
        found = list(islice(self._resources(kind).list(filter=f"name = {_quoted(name)}{more}"), MAX_CANDIDATES))
        return [item for item in found if item.meta.state != meta_pb2.STATE_DELETING] or found

    def _resources(self, kind: Kind) -> Any:
        return getattr(self._client, kind.nouns)


def _parent_field(kind: Kind, item: Any) -> str:
    """The field that names what the resource's name is unique within; empty when that is the whole platform."""
    for unique in kind.uniques:
        if "name" in unique.fields and not (unique.unless and getattr(item, unique.unless)):
            return next((field for field in unique.fields if field in kind.parents), "")
    return ""


def _quoted(text: str) -> str:
    """As a filter has it, where an asterisk by itself would be a wildcard."""
    return json.dumps(text, ensure_ascii=False).replace("*", r"\*")
