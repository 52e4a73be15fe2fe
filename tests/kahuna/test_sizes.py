"""No resource becomes larger than a message, however many calls fill it."""

import pytest

from kahuna.store.resource import MAX_SPEC_BYTES
from kowa import errors
from kowa.v2 import instance_pb2
from tests.control_plane import ControlPlane
from tests.site import Site, make_site
from tests.ssh_keys import long_key

LARGE = {f"{number}{'😀' * 4000}": "😀" * 4000 for number in range(64)}  # 2 MiB


@pytest.fixture
def site(cloud: ControlPlane) -> Site:
    """A site with a connected host."""
    site = make_site(cloud)
    site.connect_host()
    return site


def test_several_updates_do_not_make_a_resource_larger_than_a_message(site: Site) -> None:
    web = site.client.instances.begin_create(site.wanted("web")).resource
    web.metadata.update(LARGE)
    web = site.client.instances.begin_update(web, ["metadata"]).resource
    web.ssh_keys.extend([long_key(8192)] * 64)
    with pytest.raises(errors.Invalid) as refused:
        site.client.instances.begin_update(web, ["ssh_keys"])
    assert [violation.field for violation in refused.value.violations] == ["metadata", "ssh_keys"]
    problem = "has 2 MiB of the 3.9 MiB that the instance would have, 3.5 MiB at most in all"
    assert f"metadata: {problem}" in str(refused.value)
    assert f"ssh_keys: {problem}" in str(refused.value)
    assert "shorten it or another large field" in str(refused.value)
    kept = site.client.instances.get(web.meta.id)
    assert not kept.ssh_keys
    assert kept.ByteSize() < MAX_SPEC_BYTES
    # What fits is taken, and so is what makes it smaller.
    del web.ssh_keys[20:]
    web = site.client.instances.begin_update(web, ["ssh_keys"]).resource
    web.metadata.clear()
    assert not site.client.instances.begin_update(web, ["metadata"]).resource.metadata


def test_a_create_of_a_resource_that_fits_no_message_is_refused(site: Site) -> None:
    wanted = site.wanted("web")
    wanted.metadata.update(LARGE)
    wanted.ssh_keys.extend([long_key(8192)] * 64)
    with pytest.raises(errors.Invalid, match=r"3\.5 MiB at most in all"):
        site.client.instances.begin_create(wanted)
    assert list(site.client.of(instance_pb2.Instance).list()) == []
