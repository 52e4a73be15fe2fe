"""What the agent refuses to take, and what it takes and waits for."""

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
    settings = Settings(server="kahuna:1", ca=tmp_path, token=tmp_path, state=tmp_path, pools=tmp_path)
    return KaktusWorker(settings)


def spoil_kind(slice_: Slice) -> None:
    slice_.objects[id_of("vnet")].resource.Clear()


def spoil_cidr(slice_: Slice) -> None:
    with edited(slice_.objects[id_of("subnet")]) as resource:
        resource.cidr = "10.9.0.0/33"


def spoil_mac(slice_: Slice) -> None:
    with edited(slice_.objects[id_of("nic")]) as resource:
        resource.mac = "01:00:00:00:00:01"


def spoil_address(slice_: Slice) -> None:
    with edited(slice_.objects[id_of("nic")]) as resource:
        resource.address = "10.9.0.2; drop"


def spoil_interface(slice_: Slice) -> None:
    with edited(slice_.objects[id_of("vnet")]) as resource:
        resource.interface = 'br0"'


def spoil_power(slice_: Slice) -> None:
    with edited(slice_.objects[id_of("web")]) as resource:
        resource.power = 9


def spoil_name(slice_: Slice) -> None:
    with edited(slice_.objects[id_of("web")]) as resource:
        resource.name = "web\nroot"


def spoil_id(slice_: Slice) -> None:
    slice_.objects["../../etc"] = fleet_pb2.Object(id="../../etc", resource=slice_.objects[id_of("pool")].resource)


def one_instance() -> Slice:
    slice_ = slice_with_network()
    slice_.adapter("nic", "10.9.0.2")
    slice_.instance("web", ("root",), ("nic",))
    return slice_


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (spoil_kind, f"unknown kind {id_of('vnet')}: this agent knows no such kind"),
        (spoil_cidr, f"subnet {id_of('subnet')}: cidr '10.9.0.0/33'"),
        (spoil_mac, f"adapter {id_of('nic')}: mac"),
        (spoil_address, f"adapter {id_of('nic')}: address"),
        (spoil_interface, f"vnet {id_of('vnet')}: interface"),
        (spoil_power, f"instance {id_of('web')}: power 9"),
        (spoil_name, f"instance {id_of('web')}: name"),
        (spoil_id, "storage_pool ../../etc: "),
    ],
)
def test_what_can_not_be_understood_is_refused_by_name(
    spoil: Callable[[Slice], None], reason: str, tmp_path: Path
) -> None:
    slice_ = one_instance()
    spoil(slice_)
    with pytest.raises(Refused) as refused:
        worker(tmp_path).accept(slice_.objects)
    assert str(refused.value).startswith(reason)


def test_a_second_host_is_refused(tmp_path: Path) -> None:
    slice_ = one_instance()
    slice_.host("other")
    with pytest.raises(Refused, match="an agent belongs to one"):
        worker(tmp_path).accept(slice_.objects)


def test_what_refers_to_nothing_is_taken(tmp_path: Path) -> None:
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


def test_secrets_do_not_show() -> None:
    slice_ = one_instance()
    slice_.instance("web", metadata={"password": "hunter2"}, user_data="hunter2")
    instances = KINDS.parse(slice_.objects).of(Instance)
    assert instances
    assert "hunter2" not in repr(instances)
