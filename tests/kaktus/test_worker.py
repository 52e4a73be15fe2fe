"""The worker, with a stored slice that it refuses."""

import asyncio
from pathlib import Path

from agent_kaktus.settings import Settings
from agent_kaktus.worker import KaktusWorker

from .loop_harness import Feed
from .slices import id_of, slice_with_network


def test_a_refused_slice_does_not_stop_the_worker(tmp_path: Path) -> None:
    async def scenario() -> None:
        slice_ = slice_with_network()
        slice_.vnet(interface="x" * 99)
        feed = Feed(slice_)
        running = asyncio.create_task(KaktusWorker(settings(tmp_path)).run(feed))
        await asyncio.sleep(0.2)
        assert not running.done()
        slice_.vnet()
        feed.notify_change()
        await feed.until(lambda: id_of("pool") in feed.reports)
        assert "can't be reached" in feed.reports[id_of("pool")].message
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        assert running.cancelled()

    asyncio.run(scenario())


def settings(base: Path) -> Settings:
    state = base / "state"
    state.mkdir()
    uri = f"qemu+unix:///system?socket={base}/none"
    return Settings(servers=(), ca=base, token=base, state=state, pools=base / "pools", libvirt_uri=uri)
