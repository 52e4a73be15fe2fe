"""Invalid input is refused with its reason and message, and changes nothing, in every client."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.message import Message

from kahuna.domain.errors import REASONS
from kahuna.store.transaction import Transaction
from kowa import errors
from kowa.v2 import (
    adapter_pb2,
    instance_pb2,
    kaktus_pb2,
    region_pb2,
    storage_pool_pb2,
    subnet_pb2,
    template_pb2,
    vnet_pb2,
    volume_pb2,
    zone_pb2,
)
from kowactl.main import EXIT_CODES
from tests.control_plane import GIB, ControlPlane
from tests.kahuna.transports import TRANSPORTS, calling_through
from tests.site import Site, make_site
from tests.ssh_keys import ED25519, PRIVATE
from tests.waiting import until

PB = 10**15
NOBODY = "00000000-0000-4000-8000-000000000000"


@pytest.fixture
def site(cloud: ControlPlane) -> Site:
    """A site with a connected host and an instance called web."""
    site = make_site(cloud)
    site.connect_host()
    site.client.instances.create(site.wanted("web"))
    return site


def create(message: type[Message], **fields: object) -> Callable[[Site], object]:
    """A call that creates a resource; a callable among the fields is called for the value."""

    def call(site: Site) -> object:
        values = {name: value(site) if callable(value) else value for name, value in fields.items()}
        return site.client.of(message).begin_create(message(**values))

    return call


def new_vm(**changes: object) -> Callable[[Site], object]:
    """A call that creates an instance like web with these fields changed; 0 clears a field."""

    def call(site: Site) -> object:
        web = next(site.client.of(instance_pb2.Instance).list())
        wanted = instance_pb2.Instance(
            project=web.project, name="db", zone=web.zone, vcpus=1, memory=GIB, volumes=[free_volume(site)]
        )
        set_ = {name: value for name, value in changes.items() if value != 0}
        wanted.MergeFrom(instance_pb2.Instance(**set_))  # type: ignore[arg-type]
        for name in (name for name, value in changes.items() if value == 0):
            wanted.ClearField(name)
        return site.client.of(instance_pb2.Instance).begin_create(wanted)

    return call


def free_volume(site: Site) -> str:
    """The id of a volume without an instance."""
    free = list(site.client.of(volume_pb2.Volume).list(filter='name = "free"'))
    return free[0].meta.id if free else site.add_volume("free").resource.meta.id


def region(site: Site) -> str:
    return site.region.meta.id


def zone(site: Site) -> str:
    return site.zone.meta.id


def vnet(site: Site) -> str:
    return site.vnet.meta.id


def subnet(site: Site) -> str:
    return site.subnet.meta.id


def project(site: Site) -> str:
    return site.project.meta.id


def pool(site: Site) -> str:
    return site.pool.meta.id


def web(site: Site) -> instance_pb2.Instance:
    return next(site.client.of(instance_pb2.Instance).list(filter='name = "web"'))


def changed(message: type[Message], **fields: Any) -> Callable[[Site], object]:
    """A call that changes fields of the first resource of a kind."""

    def call(site: Site) -> object:
        wanted: Any = next(site.client.of(message).list())
        for name in fields:
            wanted.ClearField(name)
        wanted.MergeFrom(message(**fields))
        return site.client.of(message).begin_update(wanted, list(fields))

    return call


def shrink(site: Site) -> object:
    disk = site.client.of(volume_pb2.Volume).get(web(site).volumes[0])
    disk.size = GIB // 2
    return site.client.of(volume_pb2.Volume).begin_update(disk, ["size"])


def update_with_stale_etag(site: Site) -> object:
    changed = site.client.of(region_pb2.Region).get(region(site))
    changed.meta.etag, changed.description = "0123456789abcdef", "new"
    return site.client.of(region_pb2.Region).begin_update(changed, ["description"])


def change_region(site: Site) -> object:
    changed_zone = site.client.of(zone_pb2.Zone).get(zone(site))
    changed_zone.region = site.client.of(region_pb2.Region).begin_create(region_pb2.Region(name="us")).resource.meta.id
    return site.client.of(zone_pb2.Zone).begin_update(changed_zone, ["region"])


def agent(site: Site) -> str:
    return site.agent.meta.id


def drop_disk(site: Site) -> object:
    return site.client.volumes.begin_delete(web(site).volumes[0])


def drop_region(site: Site) -> object:
    return site.client.regions.begin_delete(region(site))


def listed(**query: Any) -> Callable[[Site], object]:
    return lambda site: list(site.client.regions.list(**query))


def instances(**query: Any) -> Callable[[Site], object]:
    return lambda site: list(site.client.instances.list(**query))


def masked(path: str) -> Callable[[Site], object]:
    def call(site: Site) -> object:
        changed = web(site)
        changed.metadata["motd"], changed.description = "new", "new"
        return site.client.of(instance_pb2.Instance).begin_update(changed, [path])

    return call


def drop_agent(site: Site) -> object:
    return site.client.agents.begin_delete(agent(site))


def new_subnet(**fields: object) -> Callable[[Site], object]:
    return create(subnet_pb2.Subnet, vnet=vnet, name="b", **fields)


def new_adapter(**fields: object) -> Callable[[Site], object]:
    return create(adapter_pb2.Adapter, project=project, subnet=subnet, name="b", **fields)


def new_image(**fields: object) -> Callable[[Site], object]:
    return create(template_pb2.Template, **{"storage_pool": pool, "name": "b", "sha256": "0" * 64, **fields})


def new_pool(**fields: object) -> Callable[[Site], object]:
    return create(storage_pool_pb2.StoragePool, region=region, name="b", **fields)


INVALID = "INVALID_ARGUMENT"
DIR = storage_pool_pb2.STORAGE_DRIVER_DIR
REFUSALS: list[tuple[str, Callable[[Site], object], str, str]] = [
    # case, call, reason, message
    ("an unknown id", lambda site: site.client.instances.get(NOBODY), "NOT_FOUND", NOBODY),
    ("a malformed id", lambda site: site.client.instances.get("../x"), "NOT_FOUND", "list them"),
    ("an empty id", lambda site: site.client.instances.get(""), INVALID, "id: is required"),
    ("no name", create(region_pb2.Region), INVALID, "name: is required"),
    ("a name with a line end", create(region_pb2.Region, name="a\nb"), INVALID, "control characters"),
    ("a name that is taken", create(region_pb2.Region, name="eu"), "NAME_TAKEN", "another region is called 'eu'"),
    ("a zone's name taken", create(zone_pb2.Zone, region=region, name="eu-a"), "NAME_TAKEN", "of its region"),
    ("a region that is not there", create(zone_pb2.Zone, region=NOBODY, name="x"), INVALID, "region: no"),
    ("an instance's name", new_vm(name="Web_1"), INVALID, "name: 'Web_1' is no DNS label"),
    ("no memory", new_vm(memory=0), INVALID, "memory: is required"),
    ("no CPU", new_vm(vcpus=0), INVALID, "vcpus: is required"),
    ("100 PB of memory", new_vm(memory=100 * PB), "NO_HOST", "has 15 GiB of 16 GiB of memory free, 88.8 PiB asked"),
    ("more CPUs than the host has", new_vm(vcpus=1000), "NO_HOST", "of 24 CPUs free, 1000 asked"),
    ("a power that is none", new_vm(power=77), INVALID, "power: 77 is none of its values"),
    ("a disk twice", lambda site: same_disk_twice(site), INVALID, "names the same thing twice"),
    ("a disk without an id", new_vm(volumes=[""]), INVALID, "volumes[1]: names nothing"),
    ("a disk of another machine", lambda site: disk_of_web(site), "IN_USE", "belongs to another instance"),
    ("a subnet with host bits", new_subnet(cidr="10.1.0.1/24"), INVALID, "cidr"),
    ("a subnet of loopback", new_subnet(cidr="127.1.0.0/24"), INVALID, "127.0.0.0/8, which a host keeps for itself"),
    ("a subnet of link-local", new_subnet(cidr="169.254.0.0/16"), INVALID, "169.254.0.0/16, which is link-local"),
    ("a subnet around link-local", new_subnet(cidr="169.0.0.0/8"), INVALID,
     "cidr: 169.0.0.0/8 overlaps 169.254.0.0/16"),
    ("a subnet of groups", new_subnet(cidr="224.0.0.0/24"), INVALID, "224.0.0.0/4, which is for multicast"),
    ("a reserved subnet", new_subnet(cidr="240.0.0.0/8"), INVALID, "240.0.0.0/4, which is reserved"),
    ("a subnet of nothing", new_subnet(cidr="0.0.0.0/8"), INVALID, "0.0.0.0/8, which is not for hosts"),
    ("a name server nowhere", new_subnet(cidr="10.1.0.0/24", dns=["0.0.0.53"]), INVALID,
     "dns[0]: '0.0.0.53' is no IPv4"),
    ("a group of name servers", new_subnet(cidr="10.1.0.0/24", dns=["224.0.0.251"]), INVALID, "dns[0]"),
    ("all as a name server", new_subnet(cidr="10.1.0.0/24", dns=["1.1.1.1", "255.255.255.255"]), INVALID, "dns[1]"),
    ("an overlap", new_subnet(cidr="10.20.0.128/25"), INVALID, "10.20.0.0/24 of subnet lan"),
    ("a gateway outside", new_subnet(cidr="10.1.0.0/24", gateway="10.2.0.1"), INVALID, "gateway: 10.2.0.1"),
    ("an address outside", new_adapter(address="10.9.0.9"), INVALID, "address: 10.9.0.9"),
    ("an address taken", new_adapter(address="10.20.0.2"), "ADDRESS_TAKEN", "10.20.0.2"),
    ("the gateway's address", new_adapter(address="10.20.0.1"), INVALID, "gateway"),
    ("a group MAC", new_adapter(mac="01:00:5e:00:00:01"), INVALID, "mac"),
    ("no MAC at all", new_adapter(mac="00:00:00:00:00:00"), INVALID, "mac"),
    ("a MAC of VRRP", new_adapter(mac="00:00:5E:00:01:0a"), INVALID,
     "mac: 00:00:5e:00:01:0a is of 00:00:5e, which routers"),
    ("a path as a template", new_image(source="../etc/passwd"), INVALID, "source"),
    ("a file URL", new_image(source="file:///etc/passwd"), INVALID, "source"),
    ("a template without checksum", new_image(source="x.img", sha256=""), INVALID, "sha256: is required"),
    ("a password in a URL", new_image(source="http://u:p@h/x"), INVALID, "password"),
    ("no user in a URL", new_image(source="http://@h/x"), INVALID, "source"),
    ("a URL with a line end", new_image(source="http://h\nx/y"), INVALID, "source: may hold no spaces"),
    ("a URL with a space", new_image(source="http://h/a b"), INVALID, "source: may hold no spaces"),
    ("a URL with a port too high", new_image(source="http://h:99999/x"), INVALID, "source"),
    ("a URL with a port that is none", new_image(source="http://h:abc/x"), INVALID, "source"),
    ("a URL with a host that is none", new_image(source="http://a..b/x"), INVALID, "source: must have a host: 'a..b'"),
    ("a pool without host", new_pool(driver=DIR), INVALID, "kaktus: is required"),
    ("a pool that promises half", new_pool(driver=DIR, overcommit=0.5), INVALID, "overcommit: is 0.5, 1 at least"),
    ("a pool that promises all", new_pool(driver=DIR, overcommit=math.inf), INVALID, "overcommit: is inf, 100 at most"),
    ("a pool that promises no number", new_pool(driver=DIR, overcommit=math.nan), INVALID, "overcommit: is nan, 1 at"),
    ("a Ceph pool", new_pool(driver=2), "NOT_SERVED", "not served yet"),
    ("an agent of another host", create(kaktus_pb2.Kaktus, zone=zone, name="b", agent=agent), "IN_USE", "agent"),
    ("a shrinking disk", shrink, INVALID, "size: a volume never shrinks: it has 1 GiB, 512 MiB asked"),
    ("another zone", changed(instance_pb2.Instance, zone=NOBODY), "NOT_SERVED", "zone: can't be changed yet; leave"),
    ("no zone any more", changed(instance_pb2.Instance, zone=""), "NOT_SERVED", "zone: can't be changed yet"),
    ("another region", changed(instance_pb2.Instance, region=NOBODY), INVALID, "region: can't be changed; create"),
    ("other disks", changed(instance_pb2.Instance, volumes=[NOBODY]), "NOT_SERVED", "volumes: can't be changed yet"),
    ("other adapters", changed(instance_pb2.Instance, adapters=[]), "NOT_SERVED", "adapters: can't be changed yet"),
    ("another router", changed(subnet_pb2.Subnet, gateway="10.20.0.9"), "NOT_SERVED", "gateway: can't be changed yet"),
    ("another bridge", changed(vnet_pb2.Vnet, interface="br9"), "NOT_SERVED", "interface: can't be changed yet"),
    ("another address", changed(adapter_pb2.Adapter, address="10.20.0.9"), "NOT_SERVED", "address: can't be"),
    ("another hardware address", changed(adapter_pb2.Adapter, mac="02:00:00:00:00:09"), "NOT_SERVED", "mac: can't be"),
    ("a part of a map in the mask", masked("metadata.motd"), INVALID, "metadata.motd: name the whole field, metadata"),
    ("a part of a text in the mask", masked("description.x"), INVALID, "name the whole field, description"),
    ("a label's name", new_vm(labels={"a b": ""}), INVALID, "labels['a b']: its name 'a b' is no label's name"),
    ("a label without a name", new_vm(labels={"": "x"}), INVALID, "labels['']: its name '' is no label's name"),
    ("a label's long name", new_vm(labels={"n" * 64: ""}), INVALID, "is no label's name: 1 to 63 of letters"),
    ("a label's value", new_vm(labels={"a": "x\ny"}), INVALID, "labels['a']: 'x\\ny' is no label's value"),
    ("a label's long value", new_vm(labels={"a": "x" * 256}), INVALID, "labels['a']: 'xxx"),
    ("many labels", new_vm(labels={f"n{n}": "" for n in range(65)}), INVALID, "labels: has 65 elements, 64 at most"),
    ("a part of the labels in the mask", masked("labels.a"), INVALID, "labels.a: name the whole field, labels"),
    ("a long value", new_vm(metadata={"motd": "x" * 4097}), INVALID, "metadata['motd']: has 4097 characters, 4096"),
    ("a long name of a value", new_vm(metadata={"k" * 4097: "x"}), INVALID, "kkk...']: its name has 4097 characters"),
    ("a byte order mark", new_vm(user_data="\ufeff#cloud-config"), INVALID, "user_data: begins with a byte order"),
    ("user data in base64", new_vm(user_data="I2Nsb3VkLWNvbmZpZwo="), INVALID, "user_data: is in base64; give it as"),
    ("gzip in base64", new_vm(user_data="H4sIAAAAAAAAA1NOzskvTdFNzs9Ly0znAgA="), INVALID, "give it as it is, unco"),
    ("no SSH key", new_vm(ssh_keys=["hello"]), INVALID, "ssh_keys[0]: is no SSH public key"),
    ("an empty SSH key", new_vm(ssh_keys=[ED25519, ""]), INVALID, "ssh_keys[1]: is empty"),
    ("a private key", new_vm(ssh_keys=[PRIVATE]), INVALID, "ssh_keys[0]: is a private key; give the public"),
    ("two SSH keys in one", new_vm(ssh_keys=[f"{ED25519}\n{ED25519}"]), INVALID, "ssh_keys[0]: has several lines"),
    ("a stale etag", update_with_stale_etag, "ETAG_MISMATCH", "read it and try again"),
    ("a region with zones", drop_region, "HAS_CHILDREN", "1 zone: eu-a; delete them first"),
    ("an agent at work", drop_agent, "HAS_CHILDREN", "1 kaktus: host-1; take it from host-1 or delete them first"),
    ("a disk in use", drop_disk, "IN_USE", "delete the instance first"),
    ("a filter that can't be read", listed(filter="name ~ x"), INVALID, "filter"),
    ("a filter of SQL", listed(filter="name LIKE 'we%'"), INVALID, "filter: there is no LIKE; : asks for a part"),
    ("a filter with a wildcard", listed(filter='name != "we*"'), INVALID, "filter: there are no wildcards"),
    ("a filter on nothing", listed(filter='colour = "red"'), INVALID, "no field 'colour'"),
    ("a message filter", instances(filter="meta = 5"), INVALID, "filter: meta is no value by itself; name one"),
    ("a filter on a status", instances(filter="status=x"), INVALID, "name one of its fields: power, addresses"),
    ("a map filter", instances(filter="labels = x"), INVALID, "is a map; ask with labels.NAME = VALUE, or labels:"),
    ("a filter by a map's order", instances(filter="labels > x"), INVALID, "ask with labels.NAME > VALUE, or labels:N"),
    ("a filter into a map's text", instances(filter='labels."a" . b = x'), INVALID, "filter: can't be read at"),
    ("a filter on messages", instances(filter="meta.conditions:x"), INVALID, "meta.conditions holds no plain values"),
    ("a filter into a list", instances(filter="meta.conditions.type = x"), INVALID, "leads into conditions"),
    ("a filter by a name", instances(filter="project=shop"), INVALID, "project holds an id, not 'shop'; list projects"),
    ("a filter by no name", instances(filter="zone != 'a'"), INVALID, "zone holds an id"),
    ("a filter by a list's name", instances(filter="volumes:os"), INVALID, "volumes holds ids, not 'os'; list volumes"),
    ("a filter by part of an id", instances(filter="project = 00000000-0000"), INVALID, "project holds an id"),
    ("a filter by no power", instances(filter="power = on"), INVALID, "running, stopped, suspended"),
    ("a filter by no size", instances(filter="memory > 1X"), INVALID, "memory: '1X' is no size, such as 512M, 1.5G or"),
    ("a filter by parts of a byte", instances(filter="memory > 0.3K"), INVALID, "'0.3K' is no whole number of bytes"),
    ("an order by nothing", listed(order_by="colour"), INVALID, "order_by"),
    ("an order by a message", listed(order_by="meta"), INVALID, "order_by: meta is no value by itself"),
    ("an order by a list", instances(order_by="volumes"), INVALID, "order_by: volumes is a list"),
    ("an order by a map", instances(order_by="labels"), INVALID, "order_by: labels is a map; sort by a field with one"),
    ("an order into a list", listed(order_by="meta.conditions.type"), INVALID, "'meta.conditions.type' leads"),
    ("a page too large", listed(page_size=5000), INVALID, "page_size"),
]  # fmt: skip


def same_disk_twice(site: Site) -> object:
    disk = free_volume(site)
    return new_vm(volumes=[disk])(site)


def disk_of_web(site: Site) -> object:
    return new_vm(volumes=[web(site).volumes[0]])(site)


# Cases that a client can't express: REST's path without an id is the list's; kowactl limits the page size itself,
# and makes masks from its options.
NOT_EXPRESSIBLE = {
    ("rest", "an empty id"),
    ("kowactl", "an empty id"),
    ("kowactl", "a page too large"),
    ("kowactl", "a part of a map in the mask"),
    ("kowactl", "a part of a text in the mask"),
    ("kowactl", "a part of the labels in the mask"),
}


# Cases that kowactl refuses itself, before it sends the change: its exit code and message.
NOT_FOUND, USAGE = EXIT_CODES[errors.NotFound], 2
REFUSED_BY_KOWACTL = {
    "a malformed id": (NOT_FOUND, "no project is called '..'"),  # read as a path: the instance x of a project
    "no name": (USAGE, "missing --name"),
    "no memory": (USAGE, "missing --memory"),
    "no CPU": (USAGE, "missing --vcpus"),
    "no SSH key": (USAGE, "instance.ssh_keys[0]: is no SSH public key"),
    "an empty SSH key": (USAGE, "instance.ssh_keys[1]: is empty"),
    "a private key": (USAGE, "instance.ssh_keys[0]: is a private key; give the public"),
    "two SSH keys in one": (USAGE, "instance.ssh_keys[0]: has several lines"),
    "a disk without an id": (NOT_FOUND, "no volume is called ''"),
    "a template without checksum": (USAGE, "missing --sha256"),
    "a long name of a value": (USAGE, "'--from-file': it is neither JSON nor YAML"),  # YAML accepts no longer key
}


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_invalid_input_is_refused_with_its_reason_and_changes_nothing(
    site: Site, transport: str, tmp_path: Path
) -> None:
    free_volume(site)
    site.client.of(region_pb2.Region).begin_create(region_pb2.Region(name="us"))
    until(lambda: not list(site.client.operations.list(filter="phase = PHASE_RUNNING")), what="no running operation")
    with calling_through(site, transport, tmp_path):
        problems = [problem for row in REFUSALS if (problem := problem_of_refusal(site, transport, *row))]
    assert not problems, "\n".join(problems)


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_the_refusal_of_two_hundred_hosts_fits_one_response(site: Site, transport: str, tmp_path: Path) -> None:
    names = [f"rack-{number:03}-host.example.net" for number in range(200)]

    def add_hosts(tx: Transaction) -> None:
        for name in names:
            tx.add("Kaktus", kaktus_pb2.Kaktus(zone=zone(site), name=name))

    site.cloud.loop.run(site.cloud.kahuna.store.run(add_hosts))
    free_volume(site)
    with calling_through(site, transport, tmp_path), pytest.raises(errors.KowaError) as refused:
        new_vm(memory=100 * PB)(site)
    assert refused.value.reason == "NO_HOST"
    assert "200 hosts: has no agent; host-1: has " in refused.value.message
    assert "ask for less or add a host" in refused.value.message
    if transport == "grpc":
        assert refused.value.metadata["host-1"].startswith("has ")
        assert len(refused.value.metadata) > 10


def problem_of_refusal(
    site: Site, transport: str, case: str, call: Callable[[Site], object], reason: str, message: str
) -> str:
    """Makes a call that must be refused; returns what is wrong with the refusal, or an empty text."""
    if (transport, case) in NOT_EXPRESSIBLE:
        return ""
    before = site.cloud.kahuna.store.view.revision
    try:
        call(site)
    except errors.KowaError as error:
        exit_code = EXIT_CODES[errors.CLASSES[REASONS[reason]]]
        if transport == "kowactl" and case in REFUSED_BY_KOWACTL:
            reason, (exit_code, message) = "", REFUSED_BY_KOWACTL[case]
        as_expected = (error.reason, message in error.message) == (reason, True)
        if not as_expected or (transport == "kowactl" and error.code != str(exit_code)):
            return f"{case}: {error.code}: {error.reason}: {error.message}"
    else:
        return f"{case}: not refused"
    return f"{case}: changed something" if site.cloud.kahuna.store.view.revision != before else ""


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_an_immutable_reference_cannot_be_changed(site: Site) -> None:
    with pytest.raises(errors.Invalid, match="region: can't be changed"):
        change_region(site)
