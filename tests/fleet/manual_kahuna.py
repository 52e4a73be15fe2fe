"""A Kahuna played by hand, over TLS: the test writes every message that an agent gets."""

import asyncio
import queue
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc

from kahuna.security import certificates
from kowa.fleet.v1 import fleet_pb2
from kowa.runtime.agent import Agent
from kowa.runtime.feed import Worker
from kowa.runtime.settings import AgentSettings
from kowa.v2 import vnet_pb2
from tests.control_plane import Loop

ANSWER_TIMEOUT_S = 10.0


class Session:
    """One call of Connect, from Kahuna's side."""

    def __init__(self, loop: Loop, requests: AsyncIterator[fleet_pb2.ConnectRequest], context: Any) -> None:
        self._loop, self._requests, self._context = loop, requests, context
        self.over = asyncio.Event()

    def receive(self) -> fleet_pb2.ConnectRequest:
        """The agent's next message."""
        return self._loop.run(asyncio.wait_for(anext(aiter(self._requests)), ANSWER_TIMEOUT_S))

    def send(self, **message: Any) -> None:
        """Sends one message, e.g. `batch=...`."""
        self._loop.run(self._context.write(fleet_pb2.ConnectResponse(**message)))

    def welcome(self, incarnation: str, epoch: int = 1) -> list[fleet_pb2.Holding]:
        """Accepts the agent and returns its holdings."""
        assert self.receive().hello.protocol == 1
        self.send(welcome=fleet_pb2.Welcome(epoch=epoch, incarnation=incarnation, max_message=4 << 20))
        held = self.receive().holdings
        assert held.last
        return list(held.holdings)

    def ack(self) -> fleet_pb2.Ack:
        """The agent's next answer to a batch; other messages before it are skipped."""
        while (request := self.receive()).WhichOneof("message") != "ack":
            pass
        return request.ack

    def cut(self) -> None:
        """Ends the call without a message."""

        async def end() -> None:
            self.over.set()

        self._loop.run(end())


class ManualKahuna:
    """A fleet port that agents dial."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.more_servers: tuple[str, ...] = ()  # that agents dial before this one
        self.loop = Loop()
        self._sessions: queue.Queue[Session] = queue.Queue()
        self._agents: list[asyncio.Task[None]] = []
        files = certificates.ensure(folder, ["localhost"])
        credentials = grpc.ssl_server_credentials([(files.key.read_bytes(), files.certificate.read_bytes())])

        async def start() -> tuple[grpc.aio.Server, int]:
            server = grpc.aio.server()
            method = grpc.stream_stream_rpc_method_handler(
                self._connect, fleet_pb2.ConnectRequest.FromString, fleet_pb2.ConnectResponse.SerializeToString
            )
            handler = grpc.method_handlers_generic_handler("kowa.fleet.v1.FleetService", {"Connect": method})
            server.add_generic_rpc_handlers((handler,))
            port = server.add_secure_port("127.0.0.1:0", credentials)
            await server.start()
            return server, port

        self._server, self.port = self.loop.run(start())

    async def _connect(self, requests: AsyncIterator[fleet_pb2.ConnectRequest], context: Any) -> None:
        session = Session(self.loop, requests, context)
        self._sessions.put(session)
        await session.over.wait()

    @property
    def address(self) -> str:
        """The address that agents dial."""
        return f"localhost:{self.port}"

    def session(self) -> Session:
        """The session of an agent's next call."""
        return self._sessions.get(timeout=ANSWER_TIMEOUT_S)

    def start_agent(self, worker: Worker) -> "asyncio.Task[None]":
        """Starts an agent, always on the same state."""
        token = self.folder / "token"
        token.write_text("token")

        async def run() -> None:
            servers, ca = (*self.more_servers, self.address), self.folder / "ca.pem"
            settings = AgentSettings(servers=servers, ca=ca, token=token, state=self.folder / "agent")
            await Agent(worker, settings).run()

        self._agents.append(self.loop.start(run()))
        return self._agents[-1]

    def stop(self, agent: "asyncio.Task[None]") -> None:
        """Stops an agent."""
        self._agents.remove(agent)
        self.loop.stop(agent)

    def close(self) -> None:
        """Stops everything."""
        for agent in list(self._agents):
            self.stop(agent)
        self.loop.run(self._server.stop(0))
        self.loop.close()


def vnet(number: int, generation: int = 1, *, gone: bool = False) -> fleet_pb2.Object:
    """A vnet as Kahuna sends it."""
    described = fleet_pb2.Object(id=f"00000000-0000-4000-8000-{number:012}", generation=generation, gone=gone)
    described.resource.Pack(vnet_pb2.Vnet(name=f"vnet-{number}"))
    return described
