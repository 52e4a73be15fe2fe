"""The HTTP server for instances. A connection's addresses tell which instance it is; nobody else is answered."""

import asyncio
import socket
import time
from collections import Counter
from collections.abc import Callable
from http import HTTPStatus

import h11
import structlog

from agent_kaktus.compute.desired import Instance
from agent_kaktus.metadata import document
from agent_kaktus.metadata.answer import Answer, Request, answer, refused
from agent_kaktus.metadata.tokens import Tokens
from kowa.runtime.desired import Desired
from kowa.runtime.tasks import Tasks

REQUEST_TIMEOUT_S = 5.0  # from the end of one answer to the end of the next
MAX_CONNECTIONS = 512
MAX_CONNECTIONS_PER_INSTANCE = 8
MAX_HEAD_BYTES = 8192
MAX_HEADERS = 32
MAX_BODY_BYTES = 1024  # bodies are read to their end and ignored
_CHUNK_BYTES = 4096

log = structlog.get_logger()

HardwareAddress = Callable[[str], str]
"""The hardware address behind a network address on one vnet, as the kernel sees it; empty if it sees none."""


class HttpConnection:
    """HTTP/1.1 on one connection, as requests and answers."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD_BYTES)
        self._is_head = False

    async def read(self) -> Request | None:
        """The next request, whole; None when there is none to come. Raises h11.RemoteProtocolError."""
        request: Request | None = None
        self._is_head, size = False, 0
        while True:
            event = self._http.next_event()
            if event is h11.NEED_DATA:
                self._http.receive_data(await self._reader.read(_CHUNK_BYTES))
            elif isinstance(event, h11.Request):
                self._is_head = event.method == b"HEAD"
                if len(event.headers) > MAX_HEADERS:
                    raise h11.RemoteProtocolError(f"more than {MAX_HEADERS} headers", 431)
                headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in event.headers}
                request = Request(event.method.decode("latin-1"), event.target.decode("latin-1"), headers)
            elif isinstance(event, h11.Data):
                size += len(event.data)
                if size > MAX_BODY_BYTES:
                    raise h11.RemoteProtocolError(f"a body of more than {MAX_BODY_BYTES} bytes", 413)
            else:
                return request if isinstance(event, h11.EndOfMessage) else None

    async def write(self, answer: Answer) -> None:
        headers = [
            ("content-type", answer.type),
            ("content-length", str(len(answer.body))),
            ("cache-control", "no-store"),
            *answer.headers,
        ]
        response = h11.Response(status_code=answer.status, headers=headers, reason=HTTPStatus(answer.status).phrase)
        body = () if self._is_head else (h11.Data(data=answer.body),)
        self._writer.write(b"".join(self._http.send(each) or b"" for each in (response, *body, h11.EndOfMessage())))
        await self._writer.drain()

    def begin_next(self) -> bool:
        """Whether the connection stays open for another request."""
        if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
            return False
        self._http.start_next_cycle()
        return True


class Server:
    """Answers instances of this host on any number of vnets."""

    def __init__(self, desired: Callable[[], Desired], tokens: Tokens, clock: Callable[[], float] = time.time) -> None:
        """`clock` is the wall clock in seconds."""
        self._desired, self._tokens = desired, tokens
        self._connections: Counter[str] = Counter()
        self._clock = clock
        self._tasks = Tasks()

    async def listen(self, listener: socket.socket, vnet: str, hardware_address: HardwareAddress) -> asyncio.Server:
        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            address = str(writer.get_extra_info("peername")[0])

            def find_instance() -> Instance | None:
                return document.instance_at(self._desired(), vnet, address, hardware_address(address))

            self._tasks.spawn(self._serve(find_instance, reader, writer), "metadata connection")

        return await asyncio.start_server(accept, sock=listener)

    async def close(self) -> None:
        """Closes connections without waiting for open requests."""
        await self._tasks.close()

    async def _serve(
        self, find_instance: Callable[[], Instance | None], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """The edge: whatever goes wrong on a connection ends it, and nothing else."""
        instance, count = find_instance(), self._connections
        if instance is None or count.total() >= MAX_CONNECTIONS or count[instance.id] >= MAX_CONNECTIONS_PER_INSTANCE:
            writer.transport.abort()
            return
        count[instance.id] += 1
        try:
            await self._answer_all(instance.id, find_instance, HttpConnection(reader, writer))
            async with asyncio.timeout(REQUEST_TIMEOUT_S):
                writer.close()
                await writer.wait_closed()
        except (TimeoutError, OSError) as why:
            log.debug("metadata.cut_off", instance=instance.id, reason=str(why) or type(why).__name__)
        except Exception:
            log.exception("metadata.failed", instance=instance.id)
        finally:
            writer.transport.abort()
            self._connections -= Counter([instance.id])

    async def _answer_all(
        self, id_: str, find_instance: Callable[[], Instance | None], connection: HttpConnection
    ) -> None:
        is_open = True
        while is_open:
            async with asyncio.timeout(REQUEST_TIMEOUT_S):
                try:
                    request = await connection.read()
                except h11.RemoteProtocolError as why:
                    await connection.write(refused(why.error_status_hint, str(why)))
                    return
                instance = find_instance()
                if request is None or instance is None or instance.id != id_:
                    return
                tree = document.tree(self._desired(), instance)
                await connection.write(answer(request, instance, tree, self._tokens, int(self._clock())))
                is_open = connection.begin_next()
