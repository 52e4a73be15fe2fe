"""Slices that the agent refuses, and slices that it accepts."""

from collections.abc import Callable
from pathlib import Path

import pytest

from agent_kaktus.compute.desired import Instance, devices_of
from agent_kaktus.kinds import KINDS
from agent_kaktus.settings import Settings
from agent_kaktus.storage.volume import Volume
from agent_kaktus.worker import KaktusWorker
from kowa.fleet.v1 import fleet_pb2
from kowa.runtime.desired import MissingReference
from kowa.runtime.feed import Refused
from tests.fleet_resources import edited
from tests.kaktus.settings_of import settings_of

from .slices import Slice, id_of, slice_with_network


def worker(tmp_path: Path) -> KaktusWorker:
    settings = Settings(servers=("kahuna:1",), ca=tmp_path, token=tmp_path, state=tmp_path, pools=tmp_path)
    return KaktusWorker(settings)


def break_kind(slice_: Slice) -> None:
    slice_.objects[id_of("vnet")].resource.Clear()


def break_cidr(slice_: Slice) -> None:
    with edited(slice_.objects[id_of("subnet")]) as resource:
        resource.cidr = "10.9.0.0/33"


def break_mac(slice_: Slice) -> None:
    with edited(slice_.objects[id_of("nic")]) as resource:
        resource.mac = "01:00:00:00:00:01"


def break_address(slice_: Slice) -> None:
    with edited(slice_.objects[id_of("nic")]) as resource:
        resource.address = "10.9.0.2; drop"


def break_interface(slice_: Slice) -> None:
    with edited(slice_.objects[id_of("vnet")]) as resource:
        resource.interface = 'br0"'


def break_power(slice_: Slice) -> None:
    with edited(slice_.objects[id_of("web")]) as resource:
        resource.power = 9


def break_name(slice_: Slice) -> None:
    with edited(slice_.objects[id_of("web")]) as resource:
        resource.name = "web\nroot"


def break_id(slice_: Slice) -> None:
    slice_.objects["../../etc"] = fleet_pb2.Object(id="../../etc", resource=slice_.objects[id_of("pool")].resource)


def one_instance() -> Slice:
    slice_ = slice_with_network()
    slice_.adapter("nic", "10.9.0.2")
    slice_.instance("web", ("root",), ("nic",))
    return slice_


@pytest.mark.parametrize(
    ("break_slice", "reason"),
    [
        (break_kind, f"unknown kind {id_of('vnet')}: this agent knows no such kind"),
        (break_cidr, f"subnet {id_of('subnet')}: cidr '10.9.0.0/33'"),
        (break_mac, f"adapter {id_of('nic')}: mac"),
        (break_address, f"adapter {id_of('nic')}: address"),
        (break_interface, f"vnet {id_of('vnet')}: interface"),
        (break_power, f"instance {id_of('web')}: power 9"),
        (break_name, f"instance {id_of('web')}: name"),
        (break_id, "storage_pool ../../etc: "),
    ],
)
def test_an_invalid_object_is_refused_by_name(
    break_slice: Callable[[Slice], None], reason: str, tmp_path: Path
) -> None:
    slice_ = one_instance()
    break_slice(slice_)
    with pytest.raises(Refused) as refused:
        worker(tmp_path).accept(slice_.objects)
    assert str(refused.value).startswith(reason)


def test_a_second_host_is_refused(tmp_path: Path) -> None:
    slice_ = one_instance()
    slice_.host("other")
    with pytest.raises(Refused, match="an agent belongs to one"):
        worker(tmp_path).accept(slice_.objects)


def test_missing_references_are_accepted(tmp_path: Path) -> None:
    slice_ = one_instance()
    worker(tmp_path).accept(slice_.objects)
    desired = KINDS.parse(slice_.objects)
    with pytest.raises(MissingReference, match=f"volume {id_of('root')}"):
        devices_of(settings_of(tmp_path, tmp_path), desired, desired.of(Instance)[id_of("web")])


def test_unspecified_power_is_running_and_sizes_are_whole_sectors() -> None:
    slice_ = one_instance()
    slice_.volume("root", size=(1 << 20) + 1)
    with edited(slice_.objects[id_of("web")]) as resource:
        resource.ClearField("power")
    desired = KINDS.parse(slice_.objects)
    assert desired.of(Instance)[id_of("web")].power == 1
    assert desired.of(Volume)[id_of("root")].size == (1 << 20) + 512


def test_secrets_are_not_in_reprs() -> None:
    slice_ = one_instance()
    slice_.instance("web", metadata={"password": "hunter2"}, user_data="hunter2")
    instances = KINDS.parse(slice_.objects).of(Instance)
    assert instances
    assert "hunter2" not in repr(instances)
