"""The agent in a process of its own, fed through pipes: `piped_agent.py CONFIG`.

Each line of standard input is a slice, each line of standard output a report; both are messages in base64.
"""

import asyncio
import base64
import contextlib
import sys
from collections.abc import Mapping
from pathlib import Path

import structlog
import uvloop

from agent_kaktus.settings import Settings
from agent_kaktus.worker import KaktusWorker
from kowa.fleet.v1 import fleet_pb2


class PipedFeed:
    """A feed that reads slices from standard input and writes reports to standard output."""

    def __init__(self) -> None:
        self._objects: dict[str, fleet_pb2.Object] = {}
        self._changed = asyncio.Event()
        self._sent: dict[str, bytes] = {}

    async def listen(self, worker: KaktusWorker) -> None:
        """Accepts slices until standard input is closed."""
        while line := await asyncio.to_thread(sys.stdin.readline):
            batch = fleet_pb2.Batch.FromString(base64.b64decode(line))
            objects = {sent.id: sent for sent in batch.objects}
            worker.accept(objects)
            self._objects = objects
            self._changed.set()

    def desired(self) -> Mapping[str, fleet_pb2.Object]:
        return self._objects

    async def wait_for_change(self, timeout_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._changed.wait()
        self._changed.clear()

    def report(self, report: fleet_pb2.Report) -> None:
        data = report.SerializeToString(deterministic=True)
        if self._sent.get(report.id) != data:
            self._sent[report.id] = data
            sys.stdout.write(base64.b64encode(data).decode() + "\n")
            sys.stdout.flush()


async def run(config: Path) -> None:
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    worker = KaktusWorker(Settings.load(config))
    feed = PipedFeed()
    listening = asyncio.create_task(feed.listen(worker))
    running = asyncio.create_task(worker.run(feed))
    await asyncio.wait([listening, running], return_when=asyncio.FIRST_COMPLETED)
    for task in (listening, running):
        task.cancel()
    await asyncio.gather(listening, running, return_exceptions=True)


if __name__ == "__main__":
    uvloop.run(run(Path(sys.argv[1])))
