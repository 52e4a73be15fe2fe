"""What cloud-init's EC2 reader makes of the metadata service, whatever names a user gives to their metadata.

It takes a listing line by line, asks for each name as it stands there, quoted once more, and loses everything it has
found, instance-id and keys included, when one of them is not found.
"""

import posixpath
from dataclasses import replace
from typing import Any
from urllib.parse import quote, unquote

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from agent_kaktus.compute.desired import Instance
from agent_kaktus.metadata import document
from agent_kaktus.metadata.response import Request, respond
from agent_kaktus.metadata.tokens import Tokens

from .slices import id_of
from .test_document import desired

TOKENS = Tokens(b"k" * 32)
BASE = "/2009-04-04/meta-data/"
LONGEST_TARGET = 8000  # bytes: a longer head of a request is refused


class Service:
    """The metadata service as an instance with some metadata hears it."""

    def __init__(self, metadata: dict[str, str]) -> None:
        self.instance = replace(desired().of(Instance)[id_of("web")], metadata=tuple(metadata.items()))
        self.tree = document.tree(desired(), self.instance)

    def ask(self, path: str) -> str | None:
        """As HTTP clients send it: with dots resolved. None for what is not there."""
        assert len(path) < LONGEST_TARGET
        target = posixpath.normpath(path) + ("/" if path.endswith("/") else "")
        request = Request("GET", target, {"x-metadata-token": TOKENS.issue(self.instance.id, 60, 0)})
        found = respond(request, self.instance, self.tree, TOKENS, 0)
        return found.body.decode() if found.status == 200 else None

    def crawl(self, url: str = BASE) -> dict[str, Any]:
        listing = self.ask(url)
        assert listing is not None, f"{url} is not found: cloud-init gives up"
        found: dict[str, Any] = {}
        for line in listing.splitlines():
            field = line.strip()
            name = field.rstrip("/")
            if not name:
                continue
            if field.endswith("/"):
                found[name] = self.crawl(url + quote(name, safe="/:") + "/")
                continue
            resource, (before, is_split, after) = name, field.partition("=")
            if is_split and (number := safe_int(before)) is not None:
                resource, name = f"{number}/openssh-key", after
            value = self.ask(url + quote(resource, safe="/:"))
            assert value is not None, f"{resource} in {url} is not found: cloud-init gives up"
            found.setdefault(name, value)
        return found


def safe_int(text: str) -> int | None:
    try:
        return int(text)
    except ValueError:
        return None


def check(metadata: dict[str, str]) -> dict[str, str]:
    """Returns the metadata as cloud-init has them."""
    service = Service(metadata)
    found = service.crawl()
    assert found["instance-id"] == id_of("web")
    assert found["public-keys"] == {"key-0": "ssh-ed25519 AAAA me"}
    return dict(found.get("metadata", {}))


@pytest.mark.parametrize("name", ["proof", "k8s.io/role", "a b", "x=y", "a/b/c", "\u00fc", "a+b&c;d", "..a", "mac"])
def test_names_are_read_as_they_were_given(name: str) -> None:
    assert check({name: "mine", "z": "last"}) == {name: "mine", "z": "last"}


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("1=y", "1%3Dy"),
        ("100%", "100%25"),
        ("a%2Fb", "a%252Fb"),
        ("a?b#c", "a%3Fb%23c"),
        (" 0 =y", "%200%20%3Dy"),
        (" a", "%20a"),
        ("a\n", "a%0A"),
        ("a\nuser-data", "a%0Auser-data"),
        ("a\u2028b", "a%E2%80%A8b"),
        ("a/", "a%2F"),
        ("/a", "%2Fa"),
        ("a//b", "a%2F%2Fb"),
        (".", "%2E"),
        ("..", "%2E%2E"),
        ("../mac", "%2E%2E%2Fmac"),
        ("a/../../x", "a%2F%2E%2E%2F%2E%2E%2Fx"),
    ],
)
def test_names_that_a_line_can_not_hold_or_a_path_are_read_encoded(name: str, shown: str) -> None:
    assert check({name: "mine", "z": "last"}) == {shown: "mine", "z": "last"}
    assert Service({name: "mine"}).ask(f"{BASE}metadata/{shown}") == "mine"


def test_names_within_names_are_names_of_their_own() -> None:
    assert check({"a": "1", "a/b": "2", "a/b/": "3"}) == {"a": "1", "a/b": "2", "a%2Fb%2F": "3"}


def test_what_can_not_be_asked_for_is_not_listed() -> None:
    service = Service({"": "1", "x" * 4096: "2", "z": "3"})
    assert check({"": "1", "\u00fc" * 4096: "2", "z": "3"}) == {"z": "3"}
    assert '"": "1"' in str(service.ask("/latest/meta-data.json"))


def test_a_value_may_be_empty() -> None:
    assert check({"a": "", "..": ""}) == {"a": "", "%2E%2E": ""}


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.text(max_size=12) | st.text("./=%1a \n", max_size=6), st.just("mine"), max_size=5))
@example({"%2E": "a", ".": "b"})
def test_no_names_break_the_rest(metadata: dict[str, str]) -> None:
    found = check(metadata)
    assert {*found, *map(unquote, found)} >= {name for name in metadata if name}
