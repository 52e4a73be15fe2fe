"""Valid sources of templates: one rule for Kahuna, which accepts them, and for the agent, which fetches them."""

import re
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address
from urllib.parse import SplitResult, urlsplit

from kowa.formats import quoted

_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,254}")
_BLANK = re.compile(r"[\s\x00-\x1f\x7f-\x9f]")
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_MAX_NAME_CHARS = 253


def parse(source: str) -> str:
    """Returns the URL to fetch, or the name of a file in the import folder, which has no `://` in it.

    URLs are normalized, so that all clients read them the same way: scheme and host in lower case and ASCII, without
    the fragment, which is never sent. Raises ValueError with the problem, as a text that continues "the source".
    """
    if "://" not in source:
        if not _FILE_NAME.fullmatch(source):
            raise ValueError("is neither an http or https URL nor the name of a file: letters, digits, . _ + -")
        return source
    if _BLANK.search(source):
        raise ValueError("may hold no spaces or control characters; write them as %20 and so on")
    try:
        url = urlsplit(source)
    except ValueError as error:
        raise ValueError("is no URL: its host can't be a name or an address") from error
    if url.scheme not in ("http", "https"):
        raise ValueError("must be an http or https URL with a host, or the name of a file")
    if "@" in url.netloc:
        raise ValueError("may hold no user or password: it is shown to whoever may read the template")
    return url._replace(netloc=_host(url) + _port(url), fragment="").geturl()


def parse_host(text: str) -> str:
    """Returns a host's name or address in lower case and ASCII, an IPv6 address in brackets.

    Raises ValueError with a text that continues "the source".
    """
    import idna  # late: its tables are large

    host = text.removesuffix(".")  # the dot of the DNS root, which certificates omit
    with suppress(ValueError):  # idna's errors are ValueErrors
        if host.startswith("[") and "%" not in host:
            return f"[{IPv6Address(host[1:-1])}]"
        is_plain = host.isascii() and "xn--" not in host.lower()
        name = (host if is_plain else idna.encode(host, uts46=True).decode()).lower()
        labels = name.split(".")
        if _NUMBER.fullmatch(labels[-1]):  # clients disagree on addresses like 127.1 and 0x7f000001
            return str(IPv4Address(name))
        if len(name) <= _MAX_NAME_CHARS and all(_LABEL.fullmatch(label) for label in labels):
            return name
    raise ValueError(f"must have a host: {quoted(text)} can't be a name or an address")


def _host(url: SplitResult) -> str:
    host = url.hostname or ""
    return parse_host(f"[{host}]" if "[" in url.netloc else host)


def _port(url: SplitResult) -> str:
    try:
        port = url.port
    except ValueError:
        port = 0
    if port == 0:
        raise ValueError("must have, if any, a port from 1 to 65535")
    return f":{port}" if port else ""
