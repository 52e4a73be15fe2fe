"""The API denies wrong keys and agent tokens."""

import pytest

from kowa import errors
from kowa.client import Client
from kowa.v2 import agent_pb2, vnet_pb2
from tests.control_plane import ControlPlane

pytestmark = pytest.mark.parametrize("database", ["sqlite"], indirect=True)


@pytest.mark.parametrize(
    "key", ["", "nonsense", "kowa_admin_000000000000_" + "0" * 64], ids=["none", "nonsense", "unknown"]
)
def test_a_wrong_key_is_refused(cloud: ControlPlane, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KOWABUNGA_API_KEY", raising=False)
    with Client(cloud.settings.api, key=key, insecure=True) as client:
        assert ("authorization" in dict(client.metadata)) == bool(key)
        with pytest.raises(errors.Denied) as refused:
            list(client.of(agent_pb2.Agent).list())
        assert refused.value.reason == "UNAUTHENTICATED"


def test_an_agents_token_is_denied_by_the_api(cloud: ControlPlane) -> None:
    _, secret = cloud.add_agent()
    with Client(cloud.settings.api, key=secret, insecure=True) as client:
        with pytest.raises(errors.Denied) as refused:
            list(client.of(vnet_pb2.Vnet).list())
        assert refused.value.reason == "PERMISSION_DENIED"
