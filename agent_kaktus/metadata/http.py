"""HTTP/1.1 on one connection, as requests and answers, and what it may cost."""

import asyncio
from http import HTTPStatus

import h11

from agent_kaktus.metadata.answer import Answer, Request, refused

MAX_HEAD_BYTES = 8192
MAX_HEADERS = 32
MAX_BODY_BYTES = 1024  # bodies are read to their end and ignored
_CHUNK_BYTES = 4096


class Malformed(Exception):
    """A request that is no HTTP: answered with an error, then the connection is closed."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.answer = refused(status, reason)


class HttpConnection:
    """Reads requests and writes answers."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD_BYTES)
        self._is_head = False

    async def request(self) -> Request | None:
        """The next one, whole; None when there is none to come. Raises Malformed."""
        try:
            return await self._request()
        except h11.RemoteProtocolError as why:
            raise Malformed(why.error_status_hint, str(why)) from why

    async def answer(self, answer: Answer) -> None:
        headers = [
            ("content-type", answer.type),
            ("content-length", str(len(answer.body))),
            ("cache-control", "no-store"),
            *answer.headers,
        ]
        reason = HTTPStatus(answer.status).phrase
        parts = [self._http.send(h11.Response(status_code=answer.status, headers=headers, reason=reason))]
        if not self._is_head:
            parts.append(self._http.send(h11.Data(data=answer.body)))
        parts.append(self._http.send(h11.EndOfMessage()))
        self._writer.write(b"".join(part for part in parts if part))
        await self._writer.drain()

    def goes_on(self) -> bool:
        """Whether another request may follow, as both sides have said."""
        if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
            return False
        self._http.start_next_cycle()
        return True

    async def _request(self) -> Request | None:
        self._is_head, size = False, 0
        asked: Request | None = None
        while True:
            event = self._http.next_event()
            if event is h11.NEED_DATA:
                self._http.receive_data(await self._reader.read(_CHUNK_BYTES))
            elif isinstance(event, h11.Request):
                asked = self._asked(event)
            elif isinstance(event, h11.Data):
                size += len(event.data)
                if size > MAX_BODY_BYTES:
                    raise Malformed(413, f"a body of more than {MAX_BODY_BYTES} bytes")
            else:
                return asked if isinstance(event, h11.EndOfMessage) else None

    def _asked(self, event: h11.Request) -> Request:
        self._is_head = event.method == b"HEAD"
        if len(event.headers) > MAX_HEADERS:
            raise Malformed(431, f"more than {MAX_HEADERS} headers")
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in event.headers}
        return Request(event.method.decode("latin-1"), event.target.decode("latin-1"), headers)
