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


class Pipes:
    """A feed between two pipes."""

    def __init__(self) -> None:
        self._objects: dict[str, fleet_pb2.Object] = {}
        self._moved = asyncio.Event()
        self._sent: dict[str, bytes] = {}

    async def listen(self, worker: KaktusWorker) -> None:
        """Until the other side closes."""
        while line := await asyncio.to_thread(sys.stdin.readline):
            batch = fleet_pb2.Batch.FromString(base64.b64decode(line))
            objects = {sent.id: sent for sent in batch.objects}
            worker.accept(objects)
            self._objects = objects
            self._moved.set()

    def desired(self) -> Mapping[str, fleet_pb2.Object]:
        return self._objects

    async def wait_for_change(self, limit: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit):
                await self._moved.wait()
        self._moved.clear()

    def report(self, report: fleet_pb2.Report) -> None:
        data = report.SerializeToString(deterministic=True)
        if self._sent.get(report.id) != data:
            self._sent[report.id] = data
            sys.stdout.write(base64.b64encode(data).decode() + "\n")
            sys.stdout.flush()


async def run(config: Path) -> None:
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    worker = KaktusWorker(Settings.load(config))
    feed = Pipes()
    listening = asyncio.create_task(feed.listen(worker))
    running = asyncio.create_task(worker.run(feed))
    await asyncio.wait([listening, running], return_when=asyncio.FIRST_COMPLETED)
    for task in (listening, running):
        task.cancel()
    await asyncio.gather(listening, running, return_exceptions=True)


if __name__ == "__main__":
    uvloop.run(run(Path(sys.argv[1])))
