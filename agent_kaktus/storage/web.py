"""Templates from web servers."""

import asyncio
import socket
from collections.abc import AsyncGenerator, Callable

import httpx

from agent_kaktus.errors import TransferInterrupted
from agent_kaktus.storage.source import CHUNK_BYTES
from kowa import sources
from kowa.runtime.errors import PermanentFailure

_MAX_REDIRECTS = 5
_MAX_LENGTH_DIGITS = 20
ChooseAddress = Callable[[str, list[str]], str]
_TIMEOUT = httpx.Timeout(30.0, connect=10.0)


async def fetch(source: str, choose_address: ChooseAddress) -> AsyncGenerator[tuple[bytes, int]]:
    """Yields the body of a URL from `sources.parse` in chunks, each with the size of the whole (0: not known)."""
    url = httpx.URL(source)
    async with httpx.AsyncClient(timeout=_TIMEOUT, trust_env=False, follow_redirects=False) as client:
        for _ in range(_MAX_REDIRECTS + 1):
            request = await _request(client, url, choose_address)
            try:
                response = await client.send(request, stream=True)
            except httpx.TransportError as error:
                raise TransferInterrupted(f"{url.host}: {error or type(error).__name__}") from error
            except (httpx.InvalidURL, ValueError) as error:  # httpx parses any location
                raise PermanentFailure(f"{url.host} redirects to what is not a URL: {error}") from error
            try:
                if not response.has_redirect_location:
                    async for chunk in _body(response, url):
                        yield chunk
                    return
                url = _redirected(url, response.headers["location"])
            finally:
                await response.aclose()
    raise PermanentFailure(f"the source redirects more than {_MAX_REDIRECTS} times")


async def _request(client: httpx.AsyncClient, url: httpx.URL, choose_address: ChooseAddress) -> httpx.Request:
    """A request to the address that was checked, so that the name is not resolved again."""
    host, port = url.raw_host.decode(), url.port or (443 if url.scheme == "https" else 80)
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise TransferInterrupted(f"{url.host} can't be resolved: {error.strerror}") from error
    chosen = choose_address(host, [str(entry[4][0]) for entry in found])
    headers = {"host": url.netloc.decode(), "accept-encoding": "identity"}
    extensions = {"sni_hostname": host, "timeout": _TIMEOUT.as_dict()}
    return client.build_request("GET", url.copy_with(host=chosen), headers=headers, extensions=extensions)


def _redirected(base: httpx.URL, location: str) -> httpx.URL:
    """The URL that a redirect leads to. Raises PermanentFailure if that is not a valid source."""
    try:
        return httpx.URL(sources.parse(str(base.join(location))))
    except (httpx.InvalidURL, ValueError) as error:
        reason = f"{base.host} redirects to {location[:64]!r}, which no source may be: it {error}"
        raise PermanentFailure(reason) from error


async def _body(response: httpx.Response, url: httpx.URL) -> AsyncGenerator[tuple[bytes, int]]:
    if response.status_code in (408, 425, 429) or response.status_code >= 500:
        raise TransferInterrupted(f"{url.host} answers {response.status_code}")
    if response.status_code != 200:
        raise PermanentFailure(f"{url.host} answers {response.status_code} {response.reason_phrase}")
    length = response.headers.get("content-length", "")
    size = int(length) if length.isdecimal() and len(length) < _MAX_LENGTH_DIGITS else 0
    try:
        async for chunk in response.aiter_raw(CHUNK_BYTES):
            yield chunk, size
    except httpx.TransportError as error:
        raise TransferInterrupted(f"{url.host} broke off: {error or type(error).__name__}") from error
