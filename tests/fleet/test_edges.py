"""What goes wrong at the edges of an agent ends there."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, cast

import grpc
import pytest

from kowa.fleet.v1 import fleet_pb2
from kowa.runtime import relay
from kowa.runtime.relay import show
from tests.fleet.kahuna_by_hand import KahunaByHand
from tests.waiting import until
from tests.world import PretendHost


def test_a_token_that_is_no_text_ends_a_session_and_not_the_agent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kowa.runtime.agent.FIRST_PAUSE", 0.02)
    failed: list[str] = []
    monkeypatch.setattr("kowa.runtime.agent.log.exception", failed.append)
    kahuna = KahunaByHand(tmp_path)
    try:
        with monkeypatch.context() as spoilt:
            spoilt.setattr(Path, "write_text", lambda path, _: path.write_bytes(b"\xff\xfe"))
            agent = kahuna.agent(PretendHost())
        until(lambda: bool(failed), what="a session that failed")
        (tmp_path / "token").write_text("token")
        kahuna.session()
        assert not agent.done()
    finally:
        kahuna.close()


class Call:
    """A viewer's stream: it pastes more than the machine takes, and leaves."""

    def __init__(self, pasted: int) -> None:
        self.pasted = pasted

    def __call__(self) -> "Call":
        return self

    async def read(self) -> object:
        await asyncio.sleep(0)
        self.pasted -= 1
        return fleet_pb2.RelayResponse(data=b"x") if self.pasted >= 0 else grpc.aio.EOF

    async def write(self, _: object) -> None:
        """Taken."""

    async def done_writing(self) -> None:
        """Taken."""

    def cancel(self) -> None:
        """It is over."""


class Channel:
    def __init__(self, call: Call) -> None:
        self._call = call

    def stream_stream(self, *_: Any) -> Callable[[], Call]:
        return self._call


class Paused(PretendHost):
    """Its machine takes so many keys and no more."""

    def __init__(self, takes: int) -> None:
        super().__init__()
        self.takes, self.took = takes, 0

    async def console(self, instance: str, keys: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        async for _ in keys:
            self.took += 1
            yield b""
            if self.took == self.takes:
                await asyncio.Event().wait()


@pytest.mark.parametrize(("takes", "pasted", "took"), [(1, 100, 1), (1000, 100, 100)])
def test_who_pastes_and_leaves_is_heard_though_the_machine_is_paused(
    monkeypatch: pytest.MonkeyPatch, takes: int, pasted: int, took: int
) -> None:
    monkeypatch.setattr(relay, "PATIENCE", 0.05)

    async def story() -> None:
        host = Paused(takes)
        channel = cast("grpc.aio.Channel", Channel(Call(pasted)))
        async with asyncio.timeout(5):
            await show(channel, host, fleet_pb2.Console(ticket="t", instance="web"))
        assert host.took == took

    asyncio.run(story())
