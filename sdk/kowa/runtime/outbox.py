"""Reports to be sent: the latest of each object, and all of them again after a reconnect."""

import asyncio
from collections.abc import Collection
from itertools import islice

from kowa.fleet.v1 import fleet_pb2

MAX_REPORTS, MAX_BYTES = 500, 512 << 10  # of one message, below what Kahuna takes


class Outbox:
    """Holds one report per object. A report that equals the last one is not sent again."""

    def __init__(self) -> None:
        self._latest: dict[str, fleet_pb2.Report] = {}
        self._unsent: dict[str, None] = {}
        self._woken = asyncio.Event()

    def put(self, report: fleet_pb2.Report) -> None:
        """Adds a report, replacing the last one of the same object. One that fits no message tells only that."""
        if (size := report.ByteSize()) > MAX_BYTES:
            message = f"its state has {size} bytes, and {MAX_BYTES} at most can be reported"
            failed = fleet_pb2.OUTCOME_FAILED
            short = fleet_pb2.Report(id=report.id, observed_generation=report.observed_generation, outcome=failed)
            short.resource.type_url, short.message = report.resource.type_url, message
            report = short
        if self._latest.get(report.id) == report:
            return
        self._latest[report.id] = report
        self._unsent[report.id] = None
        self._woken.set()

    def keep_only(self, ids: Collection[str]) -> None:
        """Drops the reports of all other objects."""
        self._latest = {id_: report for id_, report in self._latest.items() if id_ in ids}
        self._unsent = {id_: None for id_ in self._unsent if id_ in ids}

    def restart(self) -> None:
        """Sends all reports again, in a new session: Kahuna may have lost any of them."""
        self._unsent = dict.fromkeys(self._latest)
        self._woken.set()

    async def take(self) -> list[fleet_pb2.Report]:
        """Waits for reports, and returns them as sent: at least one."""
        while not self._unsent:
            self._woken.clear()
            await self._woken.wait()
        taken: list[fleet_pb2.Report] = []
        budget = MAX_BYTES
        for id_ in list(islice(self._unsent, MAX_REPORTS)):
            budget -= self._latest[id_].ByteSize()
            if budget < 0 and taken:
                break
            del self._unsent[id_]
            taken.append(self._latest[id_])
        return taken
