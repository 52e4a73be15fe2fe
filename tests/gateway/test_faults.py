"""An unavailable Kahuna, and headers that Envoy does not pass on."""

from http import HTTPStatus

import httpx
import pytest

from tests.fake_kahuna import KEY, FakeKahuna
from tests.sdk.fixtures import Kahuna

pytestmark = pytest.mark.gateway


@pytest.fixture
def kahuna(fake_kahuna: FakeKahuna) -> Kahuna:
    """A fake Kahuna that can fail, and records its calls."""
    return Kahuna(fake_kahuna.endpoint, KEY)


def test_an_unavailable_kahuna_is_503(rest: httpx.Client, fake_kahuna: FakeKahuna) -> None:
    assert rest.get("/api/v2/regions").status_code == HTTPStatus.OK
    fake_kahuna.stop()
    response = rest.get("/api/v2/regions")
    assert (response.status_code, response.json()["code"]) == (HTTPStatus.SERVICE_UNAVAILABLE, 14)


def test_forged_headers_of_clients_are_removed(rest: httpx.Client, fake_kahuna: FakeKahuna) -> None:
    forged = {
        "kowabunga-operation": "forged",
        "kowabunga-secret": "forged",
        "x-envoy-external-address": "192.0.2.66",
        "x-envoy-upstream-rq-timeout-ms": "1",
        "x-forwarded-client-cert": "forged",
        "kowabunga-reason": "because",
    }
    rest.get("/api/v2/regions", headers=forged)
    _, _, metadata = fake_kahuna.calls[-1]
    assert metadata["x-envoy-external-address"] == "127.0.0.1"
    assert metadata["kowabunga-reason"] == "because"
    forgeries = {"kowabunga-operation", "kowabunga-secret", "x-forwarded-client-cert", "x-envoy-expected-rq-timeout-ms"}
    assert not metadata.keys() & forgeries
