"""Many hosts at once: their records, created in one transaction, and an agent for each that only acks."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import grpc

from kahuna.security import keys
from kahuna.store.transaction import Transaction
from kowa.fleet.v1 import fleet_pb2
from kowa.runtime.session import CONNECT
from kowa.v2 import agent_pb2, agent_token_pb2, kaktus_pb2
from tests.control_plane import ControlPlane

OPTIONS = (("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", 8 << 20))


def create_hosts(cloud: ControlPlane, zone: str, count: int) -> list[str]:
    """Creates hosts in a zone, each with an agent; returns the agents' secrets."""
    hasher = keys.KeyHasher.from_file(cloud.settings.state / "secret.key")
    secrets = [keys.generate(keys.AGENT) for _ in range(count)]

    def work(tx: Transaction) -> None:
        for number, key in enumerate(secrets):
            agent = tx.add("Agent", agent_pb2.Agent(name=f"crowd-{number}"))
            assert isinstance(agent, agent_pb2.Agent)
            token = agent_token_pb2.AgentToken(agent=agent.meta.id, name="first", prefix=keys.prefix_of(key))
            tx.add("AgentToken", token, secret=hasher.hash(key))
            tx.add("Kaktus", kaktus_pb2.Kaktus(zone=zone, name=f"crowd-{number}", agent=agent.meta.id))

    cloud.loop.run(cloud.kahuna.store.run(work))
    return secrets


class AckingAgent:
    """One of many agents: it keeps the generations it gets in memory, and acks at once."""

    def __init__(self, endpoint: str, ca: Path, secret: str) -> None:
        self._endpoint, self._ca, self._secret = endpoint, ca, secret
        self.held: dict[str, int] = {}
        self.received: dict[str, float] = {}
        self.ready = asyncio.Event()

    async def run(self, received: Callable[[], None] = lambda: None) -> None:
        """Reads and acks batches until cancelled."""
        credentials = grpc.ssl_channel_credentials(self._ca.read_bytes())
        async with grpc.aio.secure_channel(self._endpoint, credentials, options=OPTIONS) as channel:
            connect: Any = channel.stream_stream(
                CONNECT, fleet_pb2.ConnectRequest.SerializeToString, fleet_pb2.ConnectResponse.FromString
            )
            call = connect(metadata=(("authorization", f"Bearer {self._secret}"),))
            await call.write(fleet_pb2.ConnectRequest(hello=fleet_pb2.Hello(protocol=1, version="crowd")))
            await call.write(fleet_pb2.ConnectRequest(holdings=fleet_pb2.Holdings(last=True)))
            while isinstance(response := await call.read(), fleet_pb2.ConnectResponse):
                for described in response.batch.objects:
                    self.held[described.id] = described.generation
                    self.received[described.id] = time.monotonic()
                if response.batch.last:
                    await call.write(fleet_pb2.ConnectRequest(ack=fleet_pb2.Ack(nonce=response.batch.nonce)))
                    self.ready.set()
                    received()


@contextlib.contextmanager
def connected_agents(cloud: ControlPlane, secrets: Iterable[str]) -> Iterator[list[AckingAgent]]:
    """Agents in the control plane's loop; each has its slice when this returns."""
    agents = [AckingAgent(cloud.fleet_endpoint, cloud.folder / "ca.pem", secret) for secret in secrets]
    tasks = [cloud.loop.start(agent.run()) for agent in agents]
    try:
        for agent in agents:
            cloud.loop.run(asyncio.wait_for(agent.ready.wait(), 60))
        yield agents
    finally:
        for task in tasks:
            cloud.loop.stop(task)
