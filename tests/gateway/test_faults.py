"""What Envoy does when Kahuna is away, and what it lets through to it."""

from http import HTTPStatus

import httpx
import pytest

from tests.fake_kahuna import KEY, Fake
from tests.sdk.fixtures import Kahuna

pytestmark = pytest.mark.gateway


@pytest.fixture
def kahuna(fake: Fake) -> Kahuna:
    """One that fails on purpose and remembers what it was sent."""
    return Kahuna(fake.endpoint, KEY)


def test_kahuna_away_is_503(rest: httpx.Client, fake: Fake) -> None:
    assert rest.get("/api/v2/regions").status_code == HTTPStatus.OK
    fake.stop()
    answer = rest.get("/api/v2/regions")
    assert (answer.status_code, answer.json()["code"]) == (HTTPStatus.SERVICE_UNAVAILABLE, 14)


def test_what_only_kahuna_may_say_is_not_taken_from_clients(rest: httpx.Client, fake: Fake) -> None:
    forged = {
        "kowabunga-operation": "forged",
        "kowabunga-secret": "forged",
        "x-envoy-external-address": "192.0.2.66",
        "x-envoy-upstream-rq-timeout-ms": "1",
        "x-forwarded-client-cert": "forged",
        "kowabunga-reason": "because",
    }
    rest.get("/api/v2/regions", headers=forged)
    _, _, metadata = fake.calls[-1]
    assert metadata["x-envoy-external-address"] == "127.0.0.1"
    assert metadata["kowabunga-reason"] == "because"
    forgeries = {"kowabunga-operation", "kowabunga-secret", "x-forwarded-client-cert", "x-envoy-expected-rq-timeout-ms"}
    assert not metadata.keys() & forgeries
