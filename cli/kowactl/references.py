"""Names for people, ids for the platform."""

import json
import re
from itertools import islice
from typing import Any

import click

from kowa import contract, errors
from kowa.client import Client
from kowa.v2 import meta_pb2

CANDIDATES = 10  # named when a name is ambiguous
ID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
LOOKUPS = 64  # names read for one table; what is beyond shows as ids


class References:
    """Finds what a name means, and the name of what an id means."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._names: dict[str, str] = {}

    def id_of(self, kind: contract.Kind, text: str) -> str:
        """The id of what is called so: an id, a name, or PARENT/NAME where names are unique within a parent.

        Raises NotFound, or click.UsageError naming the candidates when there are several.
        """
        # Other forms of a UUID, such as 32 hex digits, may be names.
        if ID.fullmatch(text):
            return text.lower()
        if "name" not in kind.message.fields:
            raise click.UsageError(f"{text!r} is not an id, and a {kind.command} has no name")
        found = self._called(kind, text)
        if not found and "/" in text and (parent := _parent(kind)):
            field, parent_kind = parent
            above, _, name = text.rpartition("/")
            found = self._called(kind, name, f" AND {field} = {_quoted(self.id_of(parent_kind, above))}")
        if not found:
            raise errors.NotFound(f"no {kind.command} is called {text!r}; see: kowactl {kind.command} list")
        if len(found) > 1:
            choices = ", ".join(f"{self.path_of(kind, item)} ({item.meta.id})" for item in found)
            raise click.UsageError(f"{text!r} is ambiguous; give an id or a path of these: {choices}")
        return str(found[0].meta.id)

    def name_of(self, kind: contract.Kind, id: str) -> str:  # noqa: A002 - what the contract calls it
        """The name of what has the id; the id itself when that can't be told."""
        if id not in self._names and len(self._names) >= LOOKUPS:
            return id
        if id not in self._names:
            try:
                item = self._resources(kind).get(id)
            except errors.KowaError:
                self._names[id] = id
            else:
                self._names[id] = getattr(item, "name", "") or id
        return self._names[id]

    def path_of(self, kind: contract.Kind, item: Any) -> str:
        """What tells it from others with its name: PARENT/NAME."""
        if parent := _parent(kind):
            field, parent_kind = parent
            return f"{self.name_of(parent_kind, getattr(item, field))}/{item.name}"
        return str(item.name)

    def _called(self, kind: contract.Kind, name: str, more: str = "") -> list[Any]:
        """What has the name; what is being deleted only if nothing else has it."""
        found = list(islice(self._resources(kind).list(filter=f"name = {_quoted(name)}{more}"), CANDIDATES))
        return [item for item in found if item.meta.state != meta_pb2.STATE_DELETING] or found

    def _resources(self, kind: contract.Kind) -> Any:
        return getattr(self._client, kind.nouns)


def _parent(kind: contract.Kind) -> tuple[str, contract.Kind] | None:
    """The field and kind that names are unique within."""
    for name in kind.unique:
        if ref := kind.message.fields[name].ref:
            return name, contract.load().kinds[ref]
    return None


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
