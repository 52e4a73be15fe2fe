# ruff: noqa: E501 - a table
"""Responses of the metadata service: each line of the table is a request with its status and body."""

import json

import pytest

from agent_kaktus.compute.desired import Instance
from agent_kaktus.metadata import document
from agent_kaktus.metadata.response import Request, Response, respond
from agent_kaktus.metadata.tokens import Tokens

from .slices import id_of
from .test_document import DOCUMENT, desired

NOW = 1_000_000
TOKENS = Tokens(b"k" * 32)
HELP = (
    "send a token as X-metadata-token; get one with PUT /latest/api/token and X-metadata-token-ttl-seconds: 1 to 21600"
)
LIFETIME = "set X-metadata-token-ttl-seconds to the token's lifetime: 1 to 21600"

# A request of instance web: METHOD TARGET HEADER=VALUE... TOKEN is a token of web, OLD an expired one, OTHER one of db.
# WEB and DB are ids.
CASES = f"""
request                                                                        | status and body
GET /latest/meta-data/instance-id                                              | 401 {HELP}
GET /latest/meta-data/instance-id x-metadata-token=                            | 401 {HELP}
GET /latest/meta-data/instance-id x-metadata-token=OLD                         | 401 {HELP}
GET /latest/meta-data/instance-id x-metadata-token=OTHER                       | 401 {HELP}
GET /nothing                                                                   | 401 {HELP}
GET /latest/meta-data/instance-id x-metadata-token=TOKEN                       | 200 WEB
GET /latest/meta-data/instance-id x-aws-ec2-metadata-token=TOKEN               | 200 WEB
GET /latest/meta-data/instance-id?x=y x-metadata-token=TOKEN                   | 200 WEB
HEAD /latest/meta-data/instance-id x-metadata-token=TOKEN                      | 200 WEB
GET /latest/meta-data/instance-id/ x-metadata-token=TOKEN                      | 404 not found
GET /latest/meta-data/instance-id/x x-metadata-token=TOKEN                     | 404 not found
GET /latest/meta-data/nothing x-metadata-token=TOKEN                           | 404 not found
GET / x-metadata-token=TOKEN                                                   | 200 2009-04-04 latest
GET /latest/ x-metadata-token=TOKEN                                            | 200 meta-data/ meta-data.json
GET /1999/ x-metadata-token=TOKEN                                              | 404 not found
GET /latest/meta-data/ x-metadata-token=TOKEN                                  | 200 hostname instance-id local-hostname local-ipv4 mac metadata/ network/ placement/ project public-keys/
GET /2009-04-04/meta-data x-metadata-token=TOKEN                               | 200 hostname instance-id local-hostname local-ipv4 mac metadata/ network/ placement/ project public-keys/
GET /latest/meta-data/public-keys/ x-metadata-token=TOKEN                      | 200 0=key-0
GET /latest/meta-data/public-keys/0/ x-metadata-token=TOKEN                    | 200 openssh-key
GET /latest/meta-data/public-keys/0/openssh-key x-metadata-token=TOKEN         | 200 ssh-ed25519 AAAA me
GET /latest/meta-data/placement x-metadata-token=TOKEN                         | 200 availability-zone region
GET /latest/meta-data/placement/availability-zone x-metadata-token=TOKEN       | 200 zone-a
GET /latest/meta-data/network/interfaces/macs/ x-metadata-token=TOKEN          | 200 02:00:00:00:00:01/
GET /latest/meta-data/network/interfaces/macs/02%3A00:00:00:00:01/local-ipv4s x-metadata-token=TOKEN | 200 10.9.0.2
GET /latest/meta-data/metadata/proof x-metadata-token=TOKEN                    | 200 mine
GET /latest/meta-data/metadata/../mac x-metadata-token=TOKEN                   | 404 not found
GET /latest/user-data x-metadata-token=TOKEN                                   | 404 not found
GET /latest/api/token x-metadata-token=TOKEN                                   | 405 PUT, not GET
PUT /latest/meta-data/ x-metadata-token=TOKEN                                  | 405 GET or HEAD, not PUT
POST /latest/api/token x-metadata-token-ttl-seconds=60                         | 405 PUT, not POST
DELETE /latest/user-data                                                       | 405 GET or HEAD, not DELETE
PUT /latest/api/token                                                          | 400 {LIFETIME}
PUT /latest/api/token x-metadata-token-ttl-seconds=0                           | 400 {LIFETIME}
PUT /latest/api/token x-metadata-token-ttl-seconds=21601                       | 400 {LIFETIME}
PUT /latest/api/token x-metadata-token-ttl-seconds=-1                          | 400 {LIFETIME}
PUT /latest/api/token x-metadata-token-ttl-seconds=٣                           | 400 {LIFETIME}
PUT /latest/api/token x-metadata-token-ttl-seconds=60 x-forwarded-for=1.2.3.4  | 403 requests through a proxy are not answered
GET /latest/meta-data/mac x-metadata-token=TOKEN x-forwarded-for=10.9.0.3      | 403 requests through a proxy are not answered
GET /latest/meta-data/mac x-metadata-token=TOKEN x-forwarded-for=              | 403 requests through a proxy are not answered
GET /latest/meta-data/mac x-metadata-token=TOKEN x-kowabunga-source-ip=10.9.0.3 x-kowabunga-instance-id=DB host=10.9.0.3 x-real-ip=10.9.0.3 forwarded=for=10.9.0.3 | 200 02:00:00:00:00:01
"""


def response_to(text: str, sender: str = "web") -> Response:
    """The response to `METHOD TARGET HEADER=VALUE...` from an instance."""
    method, target, *headers = text.split()
    instance = desired().of(Instance)[id_of(sender)]
    placeholders = {
        "TOKEN": TOKENS.issue(id_of("web"), 60, NOW),
        "OLD": TOKENS.issue(id_of("web"), 60, NOW - 60),
        "OTHER": TOKENS.issue(id_of("db"), 60, NOW),
        "DB": id_of("db"),
    }
    pairs = (header.split("=", 1) for header in headers)
    request = Request(method, target, {name: placeholders.get(value, value) for name, value in pairs})
    return respond(request, instance, document.tree(desired(), instance), TOKENS, NOW)


def _cases() -> list[tuple[str, str]]:
    rows = [line.split(" | ") for line in CASES.strip().splitlines()[1:]]
    return [(cells[0].strip(), cells[1].strip()) for cells in rows]


@pytest.mark.parametrize(("request_", "expected"), _cases())
def test_the_response_to_a_request_of_web(request_: str, expected: str) -> None:
    response = response_to(request_)
    text = response.body.decode().replace(id_of("web"), "WEB").strip().replace("\n", " ")
    assert f"{response.status} {text}" == expected


@pytest.mark.parametrize("header", ["x-metadata-token-ttl-seconds", "x-aws-ec2-metadata-token-ttl-seconds"])
def test_an_issued_token_is_valid_for_its_lifetime(header: str) -> None:
    response = response_to(f"PUT /latest/api/token {header}=60")
    assert dict(response.headers)[header] == "60"
    assert TOKENS.is_valid(response.body.decode(), id_of("web"), NOW + 59)
    assert not TOKENS.is_valid(response.body.decode(), id_of("web"), NOW + 60)


@pytest.mark.parametrize(
    "request_",
    [
        "GET /latest/meta-data x-metadata-token=TOKEN",
        "GET /latest/meta-data.json x-metadata-token=TOKEN",
        "GET /2009-04-04/meta-data/ x-metadata-token=TOKEN accept=text/html,application/json",
    ],
)
def test_the_whole_document_as_json(request_: str) -> None:
    response = response_to(request_)
    assert response.type == "application/json"
    assert json.loads(response.body) == DOCUMENT


def test_a_part_as_json() -> None:
    response = response_to("GET /latest/meta-data/placement/ x-metadata-token=TOKEN accept=application/json")
    assert json.loads(response.body) == DOCUMENT["placement"]


def test_user_data_is_unchanged() -> None:
    response = response_to("GET /latest/user-data x-metadata-token=OTHER", sender="db")
    assert (response.status, response.body, response.type) == (200, b"hunter3", "application/octet-stream")
    assert "user-data" in response_to("GET /latest/ x-metadata-token=OTHER", sender="db").body.decode()
