"""One session with Kahuna: sign in, list the holdings, take batches, send reports."""

import asyncio
import contextlib
import uuid
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import grpc
import structlog

from kowa.fleet.v1 import fleet_pb2
from kowa.runtime.commands import Commands
from kowa.runtime.console import serve_console
from kowa.runtime.crashpoint import crash_point
from kowa.runtime.feed import Refused, Worker
from kowa.runtime.outbox import Outbox
from kowa.runtime.settings import VERSION
from kowa.runtime.store import Holdings
from kowa.runtime.tasks import Tasks, first_done

log = structlog.get_logger()

PROTOCOL = 1
CONNECT = "/kowa.fleet.v1.FleetService/Connect"
HOLDINGS_PER_MESSAGE = 1000  # fewer than Kahuna takes in one message
WELCOME_TIMEOUT_S = 10
HEARTBEAT_INTERVAL_S = 10.0  # without a report, and less if Kahuna asks for it
PROCESS = str(uuid.uuid4())  # tells this program from another one with the same token
Call: TypeAlias = "grpc.aio.StreamStreamCall[fleet_pb2.ConnectRequest, fleet_pb2.ConnectResponse]"


class Goodbye(Exception):
    """Kahuna's last message of a session."""

    def __init__(self, message: fleet_pb2.Goodbye) -> None:
        super().__init__(message.message)
        self.message = message


class Session:
    """One call of Connect. Writes are serialized, as gRPC requires."""

    def __init__(
        self,
        channel: grpc.aio.Channel,
        worker: Worker,
        holdings: Holdings,
        outbox: Outbox,
        commands: Commands,
        changed: Callable[[], None],
        welcomed: Callable[[], None] = lambda: None,
    ) -> None:
        """`changed` is called after the holdings have changed, `welcomed` when Kahuna has taken this agent in."""
        self._channel, self._worker, self._holdings = channel, worker, holdings
        self._outbox, self._commands, self._changed, self._welcomed = outbox, commands, changed, welcomed
        self._background = Tasks()
        self._goodbye: Goodbye | None = None
        self._write_lock = asyncio.Lock()
        connect: Any = channel.stream_stream(
            CONNECT, fleet_pb2.ConnectRequest.SerializeToString, fleet_pb2.ConnectResponse.FromString
        )
        self._call: Call = connect()

    async def run(self) -> None:
        """Runs the session until it ends. Raises Goodbye, or grpc.aio.AioRpcError with the reason."""
        try:
            welcome = await self._sign_in()
            self._welcomed()
            if welcome.incarnation != self._holdings.incarnation:
                self._holdings.start_incarnation(welcome.incarnation)
                self._changed()
            await self._list_holdings()
            log.info("session.opened", epoch=welcome.epoch, kind=welcome.kind or "unbound")
            self._outbox.restart()
            heartbeat_s = welcome.heartbeat.ToMilliseconds() / 1000 or HEARTBEAT_INTERVAL_S
            await first_done(self._receive(welcome.epoch), self._send_reports(min(heartbeat_s, HEARTBEAT_INTERVAL_S)))
        except grpc.aio.AioRpcError as error:
            # A write may have failed just after the goodbye was read.
            raise self._goodbye or error from None
        finally:
            await self._background.close()
            self._call.cancel()

    async def _sign_in(self) -> fleet_pb2.Welcome:
        hello = fleet_pb2.Hello(
            protocol=PROTOCOL, version=VERSION, incarnation=self._holdings.incarnation, process=PROCESS
        )
        await self._write(fleet_pb2.ConnectRequest(hello=hello))
        async with asyncio.timeout(WELCOME_TIMEOUT_S):
            first = await self._call.read()
        if isinstance(first, fleet_pb2.ConnectResponse) and first.HasField("goodbye"):
            raise Goodbye(first.goodbye)
        if not isinstance(first, fleet_pb2.ConnectResponse) or first.WhichOneof("message") != "welcome":
            # No message in the response: the call has ended, and its status has the reason.
            raise await self._ended()
        return first.welcome

    async def _list_holdings(self) -> None:
        """Lists the holdings; with generation 0 if the worker refuses them, so that Kahuna sends all of them again."""
        objects = self._holdings.objects
        holdings = [fleet_pb2.Holding(id=one.id, generation=one.generation, gone=one.gone) for one in objects.values()]
        if refusal := self._refusal_of(objects):
            # Stored by another version. The batch that answers this replaces the whole slice, or is refused.
            log.warning("slice.refused", reason=refusal)
            for holding in holdings:
                holding.generation = 0
        for start in range(0, max(len(holdings), 1), HOLDINGS_PER_MESSAGE):
            end = start + HOLDINGS_PER_MESSAGE
            part = fleet_pb2.Holdings(holdings=holdings[start:end], last=end >= len(holdings))
            await self._write(fleet_pb2.ConnectRequest(holdings=part))

    async def _receive(self, epoch: int) -> None:
        parts: list[fleet_pb2.Batch] = []
        while isinstance(response := await self._call.read(), fleet_pb2.ConnectResponse):
            match response.WhichOneof("message"):
                case "command":
                    self._background.spawn(self._answer(response.command, epoch), "command")
                case "goodbye":
                    self._goodbye = Goodbye(response.goodbye)
                    raise self._goodbye
                case "console":
                    self._background.spawn(serve_console(self._channel, self._worker, response.console), "console")
                case "batch":
                    if parts and parts[0].nonce != response.batch.nonce:
                        parts.clear()
                    parts.append(response.batch)
                    if response.batch.last:
                        await self._take(parts)
                        parts.clear()
        raise await self._ended()

    async def _take(self, parts: list[fleet_pb2.Batch]) -> None:
        """Stores a whole batch and acknowledges it, or refuses it with the reason."""
        put = [object_ for part in parts for object_ in part.objects]
        removed = [id_ for part in parts for id_ in part.removed]
        refusal = self._refusal_of(self._holdings.merged(put, removed))
        if not refusal:
            try:
                self._holdings.store(put, removed)
            except OSError as error:
                refusal = str(error)
        if refusal:
            log.warning("batch.refused", reason=refusal)
        else:
            log.info("batch.stored", objects=len(put), removed=len(removed), revision=parts[-1].revision)
            # Before the ack: if that fails and ends the session, the batch is stored nevertheless.
            self._changed()
        crash_point("agent.batch.stored")
        await self._write(fleet_pb2.ConnectRequest(ack=fleet_pb2.Ack(nonce=parts[-1].nonce, refusal=refusal)))
        crash_point("agent.batch.acked")

    def _refusal_of(self, objects: Mapping[str, fleet_pb2.Object]) -> str:
        """The worker's reason to refuse a slice; empty if it accepts it."""
        try:
            self._worker.accept(objects)
        except Refused as refused:
            return str(refused) or "refused"
        except Exception as error:
            # Error boundary: an error in the worker's check must not stop the worker's loop.
            log.error("worker.failed", exc_info=error)
            return f"the agent failed on it, its log says where: {type(error).__name__}: {error}"
        return ""

    async def _send_reports(self, heartbeat_s: float) -> None:
        while True:
            reports: list[fleet_pb2.Report] = []
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(heartbeat_s):
                    reports = await self._outbox.take()
            await self._write(fleet_pb2.ConnectRequest(reports=fleet_pb2.Reports(reports=reports)))

    async def _answer(self, command: fleet_pb2.Command, epoch: int) -> None:
        result = await self._commands.answer(command, epoch, self._holdings.objects)
        await self._write(fleet_pb2.ConnectRequest(result=result))

    async def _write(self, request: fleet_pb2.ConnectRequest) -> None:
        async with self._write_lock:
            try:
                await self._call.write(request)
            except asyncio.InvalidStateError:
                # The call has ended, and its status has the reason.
                raise await self._ended() from None

    async def _ended(self) -> grpc.aio.AioRpcError:
        call = self._call
        code, details = await call.code(), await call.details()
        return grpc.aio.AioRpcError(
            code, await call.initial_metadata(), await call.trailing_metadata(), details=details
        )
