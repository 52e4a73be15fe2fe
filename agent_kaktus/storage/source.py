"""Where a template's bytes come from: a web server, or a file in the import folder."""

import asyncio
import os
import re
import socket
import stat
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from agent_kaktus.failures import GivenUp
from agent_kaktus.storage import address

CHUNK = 1 << 20  # bytes
_MOST_REDIRECTS = 5
_TIMEOUT = httpx.Timeout(30.0, connect=10.0)
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,254}")


class BrokenOff(Exception):
    """The server went quiet or away, or asks for patience: worth another try."""


@dataclass(frozen=True, slots=True)
class Sources:
    """What the operator lets templates come from."""

    folder: Path | None = None
    allowed: address.Allowed = field(default_factory=address.Allowed)

    async def read(self, source: str) -> AsyncGenerator[tuple[bytes, int]]:
        """Its bytes in order, each part with how many there are in all (0: not known)."""
        parts = self._fetch(source) if source.startswith(("http://", "https://")) else self._open(source)
        async for part in parts:
            yield part

    async def _open(self, name: str) -> AsyncGenerator[tuple[bytes, int]]:
        descriptor = self._descriptor(name)
        with os.fdopen(descriptor, "rb") as file:
            size = os.fstat(descriptor).st_size
            while part := await asyncio.to_thread(file.read, CHUNK):
                yield part, size

    def _descriptor(self, name: str) -> int:
        """Opened with all links followed first, and only if that stays inside the folder."""
        if not _FILE_NAME.fullmatch(name):
            raise GivenUp(f"the source {name!r} is neither an http or https URL nor the name of a file")
        if self.folder is None:
            raise GivenUp("this host has no import folder; an operator sets import_dir")
        try:
            folder = self.folder.resolve(strict=True)
            path = (folder / name).resolve(strict=True)
            if path.parent != folder:
                raise GivenUp(f"{name} leads out of the import folder")
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as why:
            raise GivenUp(f"the import folder {self.folder} has no readable file {name}: {why.strerror}") from why
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise GivenUp(f"{name} in the import folder is no file")
        return descriptor

    async def _fetch(self, source: str) -> AsyncGenerator[tuple[bytes, int]]:
        url = _parsed(source)
        async with httpx.AsyncClient(timeout=_TIMEOUT, trust_env=False, follow_redirects=False) as client:
            for _ in range(_MOST_REDIRECTS + 1):
                request = await self._request(client, url)
                try:
                    answer = await client.send(request, stream=True)
                except httpx.TransportError as why:
                    raise BrokenOff(f"{url.host}: {why or type(why).__name__}") from why
                try:
                    if not answer.has_redirect_location:
                        async for part in _body(answer, url):
                            yield part
                        return
                    url = _parsed(str(url.join(answer.headers["location"])))
                finally:
                    await answer.aclose()
        raise GivenUp(f"the source redirects more than {_MOST_REDIRECTS} times")

    async def _request(self, client: httpx.AsyncClient, url: httpx.URL) -> httpx.Request:
        """To the address that was checked and to no other, whatever the name leads to by then."""
        port = url.port or (443 if url.scheme == "https" else 80)
        try:
            found = await asyncio.get_running_loop().getaddrinfo(url.host, port, type=socket.SOCK_STREAM)
        except OSError as why:
            raise BrokenOff(f"{url.host} can't be resolved: {why.strerror}") from why
        try:
            chosen = address.choose(url.host, [str(entry[4][0]) for entry in found], self.allowed)
        except ValueError as why:
            raise GivenUp(str(why)) from why
        headers = {"host": url.netloc.decode(), "accept-encoding": "identity"}
        extensions = {"sni_hostname": url.host, "timeout": _TIMEOUT.as_dict()}
        return client.build_request("GET", url.copy_with(host=chosen), headers=headers, extensions=extensions)


def _parsed(text: str) -> httpx.URL:
    try:
        url = httpx.URL(text)
    except httpx.InvalidURL as why:
        raise GivenUp(f"the source is no URL: {why}") from why
    if url.scheme not in ("http", "https") or not url.host:
        raise GivenUp(f"the source leads to {url.scheme or 'nothing'}: only http and https are fetched")
    if url.userinfo:
        raise GivenUp("the source has a user or password in it; images that need one are not fetched")
    return url


async def _body(answer: httpx.Response, url: httpx.URL) -> AsyncGenerator[tuple[bytes, int]]:
    if answer.status_code in (408, 425, 429) or answer.status_code >= 500:
        raise BrokenOff(f"{url.host} answers {answer.status_code}")
    if answer.status_code != 200:
        raise GivenUp(f"{url.host} answers {answer.status_code} {answer.reason_phrase}")
    length = answer.headers.get("content-length", "")
    size = int(length) if length.isdecimal() else 0
    try:
        async for part in answer.aiter_raw(CHUNK):
            yield part, size
    except httpx.TransportError as why:
        raise BrokenOff(f"{url.host} broke off: {why or type(why).__name__}") from why
