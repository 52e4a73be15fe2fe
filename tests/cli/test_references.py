"""Resolving names of a kind whose owner is one of two kinds."""

import re
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import click
import pytest

from kowa import contract, errors
from kowa.client import Client
from kowa.v2 import options_pb2
from kowa.v2.adapter_pb2 import Adapter
from kowa.v2.meta_pb2 import Meta
from kowa.v2.project_pb2 import Project
from kowa.v2.subnet_pb2 import Subnet
from kowa.v2.vnet_pb2 import Vnet
from kowactl.references import References

# The adapter, changed: its owner is its project or, without one, its subnet.
OWNED = replace(
    contract.load().kinds["Adapter"],
    uniques=(
        options_pb2.Unique(fields=("subnet", "name"), unless="project"),
        options_pb2.Unique(fields=("project", "name")),
    ),
)


class FakeResources:
    """Resources of a kind, with a list that filters by equality."""

    def __init__(self, *items: Any) -> None:
        self._items = {f"{number}-{type(item).__name__}": item for number, item in enumerate(items)}
        for id_, item in self._items.items():
            item.meta.CopyFrom(Meta(id=id_))

    def get(self, id_: str) -> Any:
        return self._items[id_]

    def list(self, filter: str = "", **_: object) -> list[Any]:  # noqa: A002
        conditions = re.findall(r'(\w+) = "(.*?)"', filter)
        return [
            item for item in self._items.values() if all(getattr(item, field) == value for field, value in conditions)
        ]


@pytest.fixture
def references() -> References:
    """The project shop and the subnet net/lan, each with an adapter eth0; all adapters are on the subnet."""
    resources = {
        "projects": FakeResources(Project(name="shop")),
        "vnets": FakeResources(Vnet(name="net")),
        "subnets": FakeResources(Subnet(name="lan", vnet="0-Vnet")),
        "adapters": FakeResources(
            Adapter(name="eth0", project="0-Project", subnet="0-Subnet"),
            Adapter(name="eth0", subnet="0-Subnet"),
            Adapter(name="eth1", subnet="0-Subnet"),
        ),
    }
    return References(cast(Client, SimpleNamespace(**resources)))


@pytest.mark.parametrize(
    ("text", "id_"),
    [("shop/eth0", "0-Adapter"), ("eth1", "2-Adapter"), ("net/lan/eth1", "2-Adapter"), ("lan/eth1", "2-Adapter")],
)
def test_a_path_may_begin_with_either_owner(references: References, text: str, id_: str) -> None:
    assert references.id_of(OWNED, text) == id_


def test_the_owner_in_other_options_resolves_a_name(references: References) -> None:
    assert references.id_of(OWNED, "eth0", {"project": "0-Project"}) == "0-Adapter"


def test_the_shown_path_has_the_actual_owner(references: References) -> None:
    paths = [references.path_of(OWNED, item) for item in cast(Any, references)._client.adapters.list()]
    assert paths == ["shop/eth0", "net/lan/eth0", "net/lan/eth1"]


def test_ambiguous_and_unknown_names_are_refused(references: References) -> None:
    with pytest.raises(click.UsageError, match=r"shop/eth0 .*net/lan/eth0"):
        references.id_of(OWNED, "eth0")
    with pytest.raises(errors.NotFound, match="no subnet is called 'nowhere'"):
        references.id_of(OWNED, "nowhere/eth0")
    with pytest.raises(errors.NotFound, match="no adapter is called 'shop/eth9'"):
        references.id_of(OWNED, "shop/eth9")
