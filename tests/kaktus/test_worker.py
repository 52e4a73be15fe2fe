"""The worker: what it does with a stored slice that it does not understand."""

import asyncio
from pathlib import Path

from agent_kaktus.site import Site
from agent_kaktus.storage.source import Sources
from agent_kaktus.told import Told
from agent_kaktus.worker import Kaktus

from .bench import Feed
from .slices import id_of, small_house


def test_a_stored_slice_it_refuses_does_not_end_it(tmp_path: Path) -> None:
    async def story() -> None:
        slice_ = small_house()
        slice_.vnet(interface="x" * 99)
        feed = Feed(slice_)
        running = asyncio.create_task(Kaktus(_told(tmp_path)).run(feed))
        await asyncio.sleep(0.2)
        assert not running.done()
        slice_.vnet()
        feed.move()
        await feed.until(lambda: id_of("pool") in feed.reports)
        assert "can't be reached" in feed.reports[id_of("pool")].message
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        assert running.cancelled()

    asyncio.run(story())


def _told(base: Path) -> Told:
    state = base / "state"
    state.mkdir()
    return Told(
        version="1.0",
        server="",
        ca=base / "ca",
        token=base / "token",
        state=state,
        site=Site(base / "pools", base / "machines"),
        sources=Sources(),
        libvirt_uri=f"qemu+unix:///system?socket={base}/none",
    )
