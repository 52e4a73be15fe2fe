"""The source of a template, as Kahuna and the agents parse it."""

import httpx
import pytest

from kowa import sources

NAME, HOST, PORT = "nor the name of a file", "can't be a name or an address", "port from 1 to 65535"
ACCEPTED = [
    ("debian-12.qcow2", "debian-12.qcow2"),
    ("a" * 255, "a" * 255),
    ("http://example.org/x", "http://example.org/x"),
    ("HTTP://example.org/x", "http://example.org/x"),
    ("HttpS://EXAMPLE.org/X?Y=Z", "https://example.org/X?Y=Z"),
    ("http://example.org./x", "http://example.org/x"),
    ("http://example.org", "http://example.org"),
    ("http://example.org:8080/x", "http://example.org:8080/x"),
    ("http://example.org:/x", "http://example.org/x"),
    ("http://example.org/x#sha256", "http://example.org/x"),
    ("http://my_mirror/x", "http://my_mirror/x"),
    ("http://192.0.2.7/x", "http://192.0.2.7/x"),
    ("http://[2001:DB8::0:1]:8080/x", "http://[2001:db8::1]:8080/x"),
    ("http://b\u00fccher.example/x", "http://xn--bcher-kva.example/x"),
    ("http://fa\u00df.example/x", "http://xn--fa-hia.example/x"),
    ("http://XN--BCHER-KVA.example/x", "http://xn--bcher-kva.example/x"),
    ("http://example.org/a%20b", "http://example.org/a%20b"),
    ("http://example.org/\u00fc", "http://example.org/\u00fc"),
    ("http://example.org/a@b:c", "http://example.org/a@b:c"),
]
REFUSED = [
    ("", NAME),
    ("../secret", NAME),
    (".hidden", NAME),
    ("a" * 256, NAME),
    ("b\u00fccher.qcow2", NAME),
    ("http:/example.org/x", NAME),
    ("//example.org/x", NAME),
    ("ftp://example.org/x", "must be an http or https URL"),
    ("FILE:///etc/passwd", "must be an http or https URL"),
    ("://example.org/x", "must be an http or https URL"),
    (" http://example.org/x", "no spaces"),
    ("http://example.org/a b", "no spaces"),
    ("http://example.org/\nx", "no spaces"),
    ("http://example.org/a\u00a0b", "no spaces"),
    ("http://me:secret@example.org/x", "no user or password"),
    ("http://@example.org/x", "no user or password"),
    ("http://example.org\\@evil.example/x", "no user or password"),
    ("http:///x", HOST),
    ("http://./x", HOST),
    ("http://:80/x", HOST),
    ("http://a..b/x", HOST),
    ("http://example.org../x", HOST),
    ("http://-a.example/x", HOST),
    (f"http://{'a' * 64}.example/x", HOST),
    (f"http://{'a.' * 127}b/x", HOST),
    ("http://ex%61mple.org/x", HOST),
    ("http://example.org\\x", HOST),
    ("http://xn--/x", HOST),
    ("http://xn--a.example/x", HOST),
    ("http://\u2603\u200d.example/x", HOST),
    ("http://127.1/x", HOST),
    ("http://0x7f000001/x", HOST),
    ("http://2130706433/x", HOST),
    ("http://192.0.2.256/x", HOST),
    ("http://192.0.2.07/x", HOST),
    ("http://[::1/x", HOST),
    ("http://[::g]/x", HOST),
    ("http://[v1.a]/x", HOST),
    ("http://[fe80::1%25eth0]/x", HOST),
    ("http://example.org:0/x", PORT),
    ("http://example.org:65536/x", PORT),
    ("http://example.org:http/x", PORT),
    ("http://example.org:-1/x", PORT),
]


@pytest.mark.parametrize(("source", "parsed"), ACCEPTED)
def test_an_accepted_url_has_the_same_host_for_the_http_library(source: str, parsed: str) -> None:
    assert sources.parse(source) == parsed
    assert sources.parse(parsed) == parsed
    if "://" in parsed:
        authority = parsed.split("/")[2]
        url = httpx.URL(parsed)
        assert url.netloc.decode() == authority
        assert url.host


@pytest.mark.parametrize(("source", "reason"), REFUSED)
def test_invalid_sources_are_refused_with_the_reason(source: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        sources.parse(source)


def test_a_host_name_is_normalized_as_in_sources() -> None:
    assert sources.parse_host("Mirror.") == "mirror"
    assert sources.parse_host("B\u00fccher.example") == "xn--bcher-kva.example"
