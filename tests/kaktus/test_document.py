"""An instance's metadata document, and the instance that sent a request."""

import json
from dataclasses import replace

from agent_kaktus.compute.desired import Instance
from agent_kaktus.kinds import KINDS
from agent_kaktus.metadata import document
from kowa.runtime.desired import Desired

from .slices import Slice, id_of, slice_with_network

MAC, OTHER_MAC = "02:00:00:00:00:01", "02:00:00:00:00:02"
DOCUMENT = {
    "hostname": "web",
    "instance-id": id_of("web"),
    "local-hostname": "web",
    "local-ipv4": "10.9.0.2",
    "mac": MAC,
    "metadata": {"colour": "no", "proof": "mine"},
    "network": {
        "interfaces": {
            "macs": {
                MAC: {
                    "device-number": "0",
                    "interface-id": id_of("nic"),
                    "local-hostname": "web",
                    "local-ipv4s": "10.9.0.2",
                    "mac": MAC,
                    "subnet-id": id_of("subnet"),
                    "subnet-ipv4-cidr-block": "10.9.0.0/24",
                }
            }
        }
    },
    "placement": {"availability-zone": "zone-a", "region": "region"},
    "project": "shop",
    "public-keys": {"0": {"openssh-key": "ssh-ed25519 AAAA me"}},
}


def two_vnets() -> Slice:
    """Instances web and far-web with the same address on different vnets, and db on the vnet of web."""
    slice_ = slice_with_network()
    slice_.vnet("elsewhere")
    slice_.subnet("far", vnet="elsewhere", gateway="")
    slice_.adapter("nic", "10.9.0.2")
    slice_.adapter("db-nic", "10.9.0.3", OTHER_MAC)
    slice_.adapter("twin", "10.9.0.2", OTHER_MAC, subnet="far")
    metadata = {"proof": "mine", "colour": "no"}
    slice_.instance("web", ("root",), ("nic",), metadata=metadata, ssh_keys=("ssh-ed25519 AAAA me",))
    slice_.instance("db", ("root",), ("db-nic",), metadata={"password": "hunter2"}, user_data="hunter3")
    slice_.instance("far-web", ("root",), ("twin",))
    return slice_


def desired() -> Desired:
    return KINDS.parse(two_vnets().objects)


def web() -> Instance:
    return desired().of(Instance)[id_of("web")]


def instance_at(vnet: str, address: str, mac: str, wanted: Desired | None = None) -> str:
    found = document.instance_at(wanted or desired(), id_of(vnet), address, mac)
    return found.name if found else ""


def test_the_whole_document() -> None:
    assert document.tree(desired(), web()) == DOCUMENT


def test_the_document_has_nothing_of_other_instances() -> None:
    text = json.dumps(document.tree(desired(), web()))
    assert "hunter" not in text
    assert OTHER_MAC not in text


def test_an_instance_without_adapters_or_metadata_has_a_document() -> None:
    slice_ = Slice()
    slice_.host()
    slice_.instance("bare")
    bare = replace(KINDS.parse(slice_.objects).of(Instance)[id_of("bare")], project="")
    assert document.tree(Desired(), bare) == {
        "hostname": "bare",
        "instance-id": id_of("bare"),
        "local-hostname": "bare",
    }


def test_the_sender_is_found_by_vnet_address_and_mac() -> None:
    assert instance_at("vnet", "10.9.0.2", MAC) == "web"
    assert instance_at("vnet", "10.9.0.3", OTHER_MAC) == "db"
    assert instance_at("elsewhere", "10.9.0.2", OTHER_MAC) == "far-web"


def test_a_sender_must_match_all_three() -> None:
    assert instance_at("vnet", "10.9.0.2", OTHER_MAC) == ""
    assert instance_at("vnet", "10.9.0.3", MAC) == ""
    assert instance_at("vnet", "10.9.0.9", MAC) == ""
    assert instance_at("vnet", "10.9.0.2", "") == ""
    assert instance_at("elsewhere", "10.9.0.2", MAC) == ""
    assert instance_at("nowhere", "10.9.0.2", MAC) == ""


def test_a_gone_instance_or_adapter_matches_no_sender() -> None:
    for gone in ("web", "nic"):
        slice_ = two_vnets()
        slice_.gone(gone)
        assert instance_at("vnet", "10.9.0.2", MAC, KINDS.parse(slice_.objects)) == ""


def test_an_adapter_of_two_instances_matches_no_sender() -> None:
    slice_ = two_vnets()
    slice_.instance("copy", ("root",), ("nic",))
    assert instance_at("vnet", "10.9.0.2", MAC, KINDS.parse(slice_.objects)) == ""


def test_names_can_not_forge_lines_of_a_listing() -> None:
    tree: document.Tree = {"a b\nuser-data": "1", "c/d": "2"}
    assert document.listing(tree, ["metadata"]) == "a%20b%0Auser-data\nc/d"
