"""cloud-init's EC2 crawler can read the metadata service, whatever names a user gives to their metadata.

It reads a listing line by line and requests each name as listed, quoted once more. When one of them is not found, it
drops everything it has found, instance-id and keys included.
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
MAX_TARGET_BYTES = 8000  # a longer head of a request is refused


class Service:
    """The metadata service of an instance with this metadata."""

    def __init__(self, metadata: dict[str, str]) -> None:
        self.instance = replace(desired().of(Instance)[id_of("web")], metadata=tuple(metadata.items()))
        self.tree = document.tree(desired(), self.instance)

    def get(self, path: str) -> str | None:
        """Requests a path with dots resolved, as HTTP clients do. None if it is not found."""
        assert len(path) < MAX_TARGET_BYTES
        target = posixpath.normpath(path) + ("/" if path.endswith("/") else "")
        request = Request("GET", target, {"x-metadata-token": TOKENS.issue(self.instance.id, 60, 0)})
        response = respond(request, self.instance, self.tree, TOKENS, 0)
        return response.body.decode() if response.status == 200 else None

    def crawl(self, url: str = BASE) -> dict[str, Any]:
        """Returns the tree that cloud-init reads below a URL."""
        listing = self.get(url)
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
            value = self.get(url + quote(resource, safe="/:"))
            assert value is not None, f"{resource} in {url} is not found: cloud-init gives up"
            found.setdefault(name, value)
        return found


def safe_int(text: str) -> int | None:
    try:
        return int(text)
    except ValueError:
        return None


def crawled(metadata: dict[str, str]) -> dict[str, str]:
    """Returns the metadata as cloud-init reads them, after checking that it read the rest."""
    service = Service(metadata)
    found = service.crawl()
    assert found["instance-id"] == id_of("web")
    assert found["public-keys"] == {"key-0": "ssh-ed25519 AAAA me"}
    return dict(found.get("metadata", {}))


@pytest.mark.parametrize("name", ["proof", "k8s.io/role", "a b", "x=y", "a/b/c", "\u00fc", "a+b&c;d", "..a", "mac"])
def test_names_are_read_as_they_were_given(name: str) -> None:
    assert crawled({name: "mine", "z": "last"}) == {name: "mine", "z": "last"}


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
def test_names_unfit_for_a_line_or_a_path_are_read_encoded(name: str, shown: str) -> None:
    assert crawled({name: "mine", "z": "last"}) == {shown: "mine", "z": "last"}
    assert Service({name: "mine"}).get(f"{BASE}metadata/{shown}") == "mine"


def test_a_name_that_contains_another_is_a_separate_name() -> None:
    assert crawled({"a": "1", "a/b": "2", "a/b/": "3"}) == {"a": "1", "a/b": "2", "a%2Fb%2F": "3"}


def test_names_that_can_not_be_requested_are_not_listed() -> None:
    service = Service({"": "1", "x" * 4096: "2", "z": "3"})
    assert crawled({"": "1", "\u00fc" * 4096: "2", "z": "3"}) == {"z": "3"}
    assert '"": "1"' in str(service.get("/latest/meta-data.json"))


def test_a_value_may_be_empty() -> None:
    assert crawled({"a": "", "..": ""}) == {"a": "", "%2E%2E": ""}


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.text(max_size=12) | st.text("./=%1a \n", max_size=6), st.just("mine"), max_size=5))
@example({"%2E": "a", ".": "b"})
def test_no_name_breaks_the_crawl(metadata: dict[str, str]) -> None:
    found = crawled(metadata)
    assert {*found, *map(unquote, found)} >= {name for name in metadata if name}
