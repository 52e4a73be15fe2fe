"""An agent played by hand: the test writes every message of its stream."""

import asyncio
import contextlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import grpc

from kowa.fleet.v1 import fleet_pb2
from kowa.runtime.session import CONNECT
from tests.control_plane import ControlPlane

# How long to wait for a response that must come, and for one that must not.
ANSWER_TIMEOUT_S, SILENCE_S = 10.0, 0.3


class Call:
    """One call of the fleet's port over TLS, on a connection of its own."""

    def __init__(
        self, cloud: ControlPlane, secret: str, method: str, send: Any, receive: Any, ca: Path | None = None
    ) -> None:
        self._loop = cloud.loop
        credentials = grpc.ssl_channel_credentials((ca or cloud.folder / "ca.pem").read_bytes())
        options = (("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", 8 << 20))

        async def dial() -> tuple[grpc.aio.Channel, Any]:
            channel = grpc.aio.secure_channel(cloud.fleet_endpoint, credentials, options=options)
            begin: Any = channel.stream_stream(method, send, receive)
            return channel, begin(metadata=(("authorization", f"Bearer {secret}"),) if secret else ())

        self._channel, self._call = self._loop.run(dial())

    def status(self) -> tuple[str, str]:
        """The status code and message with which the call ends; messages before it are skipped."""

        async def end() -> tuple[str, str]:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                with contextlib.suppress(grpc.aio.AioRpcError):
                    while await self._call.read() is not grpc.aio.EOF:
                        pass
                return (await self._call.code()).name, await self._call.details()

        return self._loop.run(end())

    def close(self) -> None:
        """Closes the connection."""
        self._loop.run(self._channel.close(None))


class AgentStream(Call):
    """A session whose messages the test writes."""

    def __init__(self, cloud: ControlPlane, secret: str, *, ca: Path | None = None) -> None:
        super().__init__(cloud, secret, CONNECT, None, fleet_pb2.ConnectResponse.FromString, ca)

    def send(self, **message: Any) -> None:
        """Sends one message, e.g. `hello=...`."""
        self.send_bytes(fleet_pb2.ConnectRequest(**message).SerializeToString())

    def send_bytes(self, data: bytes) -> None:
        """Sends bytes, also such as are not a message."""
        self._loop.run(self._call.write(data))

    def receive(self) -> fleet_pb2.ConnectResponse:
        """The next message. Raises AssertionError when the call ends instead."""
        response = self._loop.run(asyncio.wait_for(self._call.read(), ANSWER_TIMEOUT_S))
        assert isinstance(response, fleet_pb2.ConnectResponse), self.status()
        return response

    def goodbye(self) -> fleet_pb2.Goodbye:
        """The goodbye with which Kahuna ends the session; other messages before it are skipped."""
        while (response := self.receive()).WhichOneof("message") != "goodbye":
            pass
        return response.goodbye

    def receives_nothing(self) -> bool:
        """Whether no message comes for a while; the stream can't be read afterwards."""

        async def listen() -> bool:
            reading = asyncio.ensure_future(self._call.read())
            done, _ = await asyncio.wait([reading], timeout=SILENCE_S)
            return not done

        return self._loop.run(listen())

    def sign_in(
        self, *, incarnation: str = "", holdings: Iterable[fleet_pb2.Holding] = (), protocol: int = 1, process: str = ""
    ) -> fleet_pb2.Welcome:
        """Sends the hello and the holdings."""
        self.send(hello=fleet_pb2.Hello(protocol=protocol, version="by hand", incarnation=incarnation, process=process))
        welcome = self.receive().welcome
        self.send(holdings=fleet_pb2.Holdings(holdings=holdings, last=True))
        return welcome

    def batch(self) -> list[fleet_pb2.Batch]:
        """The parts of the next batch, up to the one marked as the last."""
        parts = [self.receive().batch]
        while not parts[-1].last:
            parts.append(self.receive().batch)
        return parts

    def ack(self, parts: list[fleet_pb2.Batch], refusal: str = "") -> None:
        """Acknowledges or refuses a batch."""
        self.send(ack=fleet_pb2.Ack(nonce=parts[-1].nonce, refusal=refusal))


def objects(parts: Iterable[fleet_pb2.Batch]) -> list[fleet_pb2.Object]:
    """The objects of a batch."""
    return [described for part in parts for described in part.objects]


def held(described: Iterable[fleet_pb2.Object]) -> list[fleet_pb2.Holding]:
    """The holdings of an agent that stored these objects."""
    return [fleet_pb2.Holding(id=one.id, generation=one.generation, gone=one.gone) for one in described]
