"""Names for people, ids for the platform."""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from types import MappingProxyType
from typing import Any

import click

from kowa import contract, errors
from kowa.client import Client
from kowa.formats import ID
from kowa.v2 import meta_pb2
from kowactl import help_texts

MAX_CANDIDATES = 10  # named when a name is ambiguous
MAX_SINGLE_READS = 3  # resources of a kind that are read one by one for their names, before all are read at once
PAGE_SIZE = 1000
NO_IDS: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Named:
    """What is known of a resource."""

    id: str
    name: str  # empty when it has none, or can't be read
    parent_kind: str = ""  # what its name is unique within; empty when that is the whole platform
    parent: str = ""  # its id


class References:
    """Finds what a name means, and the name of what an id means."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._known: dict[str, Named] = {}
        self._asked: Counter[str] = Counter()

    def id_of(self, kind: contract.Kind, text: str, beside: Mapping[str, str] = NO_IDS) -> str:
        """The id of what is called so: an id, a name, or PARENT/NAME where names are unique within a parent.

        Of several that are called so, the one whose parent is among the ids beside it is meant. Raises NotFound, or
        click.UsageError naming the candidates when there are several.
        """
        # Other forms of a UUID, such as 32 hex digits, may be names.
        if ID.fullmatch(text):
            return text.lower()
        if "name" not in kind.message.fields:
            raise click.UsageError(f"{text!r} is not an id, and {help_texts.singular(kind)} has no name")
        found = self._called(kind, text)
        for field in (field for field in kind.parents if field in beside and len(found) > 1):
            found = self._called(kind, text, f" AND {field} = {_quoted(beside[field])}") or found
        if not found and kind.parents and "/" in text:
            found = self._by_path(kind, text)
        if not found:
            raise errors.NotFound(f"no {kind.command} is called {text!r}; see: kowactl {kind.command} list")
        if len(found) > 1:
            choices = ", ".join(f"{self.path_of(kind, item)} ({item.meta.id})" for item in found)
            raise click.UsageError(f"{text!r} is ambiguous; give an id or a path of these: {choices}")
        return str(found[0].meta.id)

    def name_of(self, kind: contract.Kind, id: str) -> str:  # noqa: A002 - what the contract calls it
        """The name of what has the id; the id itself when that can't be told."""
        return self._named(kind, id).name or id

    def path_of(self, kind: contract.Kind, item: Any) -> str:
        """What `id_of` takes for it: its name, PARENT/NAME where names are unique within a parent, or its id."""
        return self._path(kind, _named(kind, item))

    def _path(self, kind: contract.Kind, item: Named) -> str:
        if not item.name or ID.fullmatch(item.name) or (item.parent and "/" in item.name):
            return item.id
        if not item.parent:
            return item.name
        above = contract.load().kinds[item.parent_kind]
        return f"{self._path(above, self._named(above, item.parent))}/{item.name}"

    def _named(self, kind: contract.Kind, id_: str) -> Named:
        """What has the id. The first few of a kind are read one by one; then all that there are, at once."""
        if id_ not in self._known:
            self._asked[kind.name] += 1
            self._known[id_] = Named(id_, "")
            try:
                if self._asked[kind.name] > MAX_SINGLE_READS:
                    everything = self._resources(kind).list(page_size=PAGE_SIZE)
                    self._known |= {named.id: named for named in (_named(kind, item) for item in everything)}
                else:
                    self._known[id_] = _named(kind, self._resources(kind).get(id_))
            except errors.KowaError:
                pass  # its id will do
        return self._known[id_]

    def _by_path(self, kind: contract.Kind, path: str) -> list[Any]:
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

    def _called(self, kind: contract.Kind, name: str, more: str = "") -> list[Any]:
        """What has the name; what is being deleted only if nothing else has it."""
        found = list(islice(self._resources(kind).list(filter=f"name = {_quoted(name)}{more}"), MAX_CANDIDATES))
        return [item for item in found if item.meta.state != meta_pb2.STATE_DELETING] or found

    def _resources(self, kind: contract.Kind) -> Any:
        return getattr(self._client, kind.nouns)


def _named(kind: contract.Kind, item: Any) -> Named:
    name = getattr(item, "name", "")
    for unique in (unique for unique in kind.uniques if "name" in unique.fields):
        if not (unique.unless and getattr(item, unique.unless)):
            parents = [field for field in unique.fields if field in kind.parents]
            return Named(
                item.meta.id, name, *((kind.parents[parents[0]], getattr(item, parents[0])) if parents else ())
            )
    return Named(item.meta.id, name)


def _quoted(text: str) -> str:
    """As a filter has it, where an asterisk by itself would be a wildcard."""
    return json.dumps(text, ensure_ascii=False).replace("*", r"\*")
