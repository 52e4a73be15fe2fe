"""Templates from web servers."""

import asyncio
import socket
from collections.abc import AsyncGenerator, Callable

import httpx

from agent_kaktus.errors import PermanentFailure, TransferInterrupted
from agent_kaktus.storage.source import CHUNK_BYTES
from kowa import sources

_MAX_REDIRECTS = 5
_MAX_LENGTH_DIGITS = 20
ChooseAddress = Callable[[str, list[str]], str]
_TIMEOUT = httpx.Timeout(30.0, connect=10.0)


async def fetch(source: str, choose_address: ChooseAddress) -> AsyncGenerator[tuple[bytes, int]]:
    """The body of a URL as `sources.parse` gives it, in chunks, each with the size of the whole (0: not known)."""
    url = httpx.URL(source)
    async with httpx.AsyncClient(timeout=_TIMEOUT, trust_env=False, follow_redirects=False) as client:
        for _ in range(_MAX_REDIRECTS + 1):
            request = await _request(client, url, choose_address)
            try:
                answer = await client.send(request, stream=True)
            except httpx.TransportError as why:
                raise TransferInterrupted(f"{url.host}: {why or type(why).__name__}") from why
            except (httpx.InvalidURL, ValueError) as why:  # httpx parses any location
                raise PermanentFailure(f"{url.host} redirects to what is no URL: {why}") from why
            try:
                if not answer.has_redirect_location:
                    async for chunk in _body(answer, url):
                        yield chunk
                    return
                url = _redirected(url, answer.headers["location"])
            finally:
                await answer.aclose()
    raise PermanentFailure(f"the source redirects more than {_MAX_REDIRECTS} times")


async def _request(client: httpx.AsyncClient, url: httpx.URL, choose_address: ChooseAddress) -> httpx.Request:
    """A request to the very address that was checked, whatever the name resolves to later."""
    host, port = url.raw_host.decode(), url.port or (443 if url.scheme == "https" else 80)
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as why:
        raise TransferInterrupted(f"{url.host} can't be resolved: {why.strerror}") from why
    chosen = choose_address(host, [str(entry[4][0]) for entry in found])
    headers = {"host": url.netloc.decode(), "accept-encoding": "identity"}
    extensions = {"sni_hostname": host, "timeout": _TIMEOUT.as_dict()}
    return client.build_request("GET", url.copy_with(host=chosen), headers=headers, extensions=extensions)


def _redirected(base: httpx.URL, location: str) -> httpx.URL:
    """Where a redirect leads to. It must be what a source may be."""
    try:
        return httpx.URL(sources.parse(str(base.join(location))))
    except (httpx.InvalidURL, ValueError) as why:
        raise PermanentFailure(f"{base.host} redirects to {location[:64]!r}, which no source may be: it {why}") from why


async def _body(answer: httpx.Response, url: httpx.URL) -> AsyncGenerator[tuple[bytes, int]]:
    if answer.status_code in (408, 425, 429) or answer.status_code >= 500:
        raise TransferInterrupted(f"{url.host} answers {answer.status_code}")
    if answer.status_code != 200:
        raise PermanentFailure(f"{url.host} answers {answer.status_code} {answer.reason_phrase}")
    length = answer.headers.get("content-length", "")
    size = int(length) if length.isdecimal() and len(length) < _MAX_LENGTH_DIGITS else 0
    try:
        async for chunk in answer.aiter_raw(CHUNK_BYTES):
            yield chunk, size
    except httpx.TransportError as why:
        raise TransferInterrupted(f"{url.host} broke off: {why or type(why).__name__}") from why
