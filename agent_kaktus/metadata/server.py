"""The HTTP server for instances. A connection's addresses identify its instance; others are closed at once."""

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
from agent_kaktus.metadata.response import Request, Response, error_response, respond
from agent_kaktus.metadata.tokens import Tokens
from kowa.runtime.desired import Desired
from kowa.runtime.tasks import Tasks

REQUEST_TIMEOUT_S = 5.0  # from the end of one response to the end of the next
MAX_CONNECTIONS = 512
MAX_CONNECTIONS_PER_INSTANCE = 8
MAX_HEAD_BYTES = 8192
MAX_HEADERS = 32
MAX_BODY_BYTES = 1024  # bodies are read to their end and ignored
_CHUNK_BYTES = 4096

log = structlog.get_logger()

HardwareAddressLookup = Callable[[str], str]
"""Returns the hardware address of a network address on one vnet, as the kernel has it; empty if it has none."""


class HttpConnection:
    """Reads requests from, and writes responses to, one HTTP/1.1 connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD_BYTES)
        self._is_head = False

    async def read(self) -> Request | None:
        """The next complete request; None at the end of the connection. Raises h11.RemoteProtocolError."""
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

    async def write(self, response: Response) -> None:
        headers = [
            ("content-type", response.type),
            ("content-length", str(len(response.body))),
            ("cache-control", "no-store"),
            *response.headers,
        ]
        status = response.status
        head = h11.Response(status_code=status, headers=headers, reason=HTTPStatus(status).phrase)
        body = () if self._is_head else (h11.Data(data=response.body),)
        self._writer.write(b"".join(self._http.send(part) or b"" for part in (head, *body, h11.EndOfMessage())))
        await self._writer.drain()

    def start_next(self) -> bool:
        """Prepares for another request. Returns False if the connection is to be closed."""
        if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
            return False
        self._http.start_next_cycle()
        return True


class Server:
    """Serves the instances of this host on any number of vnets."""

    def __init__(self, desired: Callable[[], Desired], tokens: Tokens, clock: Callable[[], float] = time.time) -> None:
        """`clock` is the wall clock in seconds."""
        self._desired, self._tokens = desired, tokens
        self._connections: Counter[str] = Counter()
        self._clock = clock
        self._tasks = Tasks()

    async def listen(self, listener: socket.socket, vnet: str, look_up: HardwareAddressLookup) -> asyncio.Server:
        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            address = str(writer.get_extra_info("peername")[0])

            def find_instance() -> Instance | None:
                return document.instance_at(self._desired(), vnet, address, look_up(address))

            self._tasks.spawn(self._serve(find_instance, reader, writer), "metadata connection")

        return await asyncio.start_server(accept, sock=listener)

    async def close(self) -> None:
        """Closes connections without waiting for open requests."""
        await self._tasks.close()

    async def _serve(
        self, find_instance: Callable[[], Instance | None], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Error boundary: any error on a connection ends that connection only."""
        instance, count = find_instance(), self._connections
        if instance is None or count.total() >= MAX_CONNECTIONS or count[instance.id] >= MAX_CONNECTIONS_PER_INSTANCE:
            writer.transport.abort()
            return
        count[instance.id] += 1
        try:
            await self._serve_requests(instance.id, find_instance, HttpConnection(reader, writer))
            async with asyncio.timeout(REQUEST_TIMEOUT_S):
                writer.close()
                await writer.wait_closed()
        except (TimeoutError, OSError) as error:
            log.debug("metadata.cut_off", instance=instance.id, reason=str(error) or type(error).__name__)
        except Exception:
            log.exception("metadata.failed", instance=instance.id)
        finally:
            writer.transport.abort()
            self._connections -= Counter([instance.id])

    async def _serve_requests(
        self, id_: str, find_instance: Callable[[], Instance | None], connection: HttpConnection
    ) -> None:
        is_open = True
        while is_open:
            async with asyncio.timeout(REQUEST_TIMEOUT_S):
                try:
                    request = await connection.read()
                except h11.RemoteProtocolError as error:
                    await connection.write(error_response(error.error_status_hint, str(error)))
                    return
                instance = find_instance()
                if request is None or instance is None or instance.id != id_:
                    return
                tree = document.tree(self._desired(), instance)
                await connection.write(respond(request, instance, tree, self._tokens, int(self._clock())))
                is_open = connection.start_next()
