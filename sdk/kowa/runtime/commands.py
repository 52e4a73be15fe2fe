"""Commands: begun at most once, whatever is killed; each gets its word on how it ended."""

import asyncio
import sqlite3
from collections.abc import Mapping
from pathlib import Path

import structlog

from kowa.fleet.v1 import fleet_pb2
from kowa.runtime.crashpoint import reach
from kowa.runtime.feed import Refused, Worker

log = structlog.get_logger()

_SCHEMA = """
CREATE TABLE IF NOT EXISTS command (number INTEGER PRIMARY KEY, id TEXT UNIQUE, ending INTEGER, message TEXT)
"""
# How many ended commands the journal keeps, to answer for them.
KEPT = 1000


class Journal:
    """What was begun, on disk before it is begun. What a dead process left begun is UNKNOWN."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = folder / "commands.db"
        path.touch(mode=0o600)
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._connection.execute("PRAGMA synchronous = FULL")
        self._connection.execute(_SCHEMA)
        self._connection.execute("UPDATE command SET ending = ? WHERE ending IS NULL", (fleet_pb2.ENDING_UNKNOWN,))

    def begin(self, id_: str) -> None:
        """Records that a command is about to be carried out."""
        self._connection.execute("INSERT INTO command (id, message) VALUES (?, '')", (id_,))
        self._connection.execute("DELETE FROM command WHERE number <= (SELECT max(number) FROM command) - ?", (KEPT,))

    def end(self, result: fleet_pb2.CommandResult) -> None:
        """Records how it ended."""
        values = (result.ending, result.message, result.id)
        self._connection.execute("UPDATE command SET ending = ?, message = ? WHERE id = ?", values)

    def find(self, id_: str) -> fleet_pb2.CommandResult | None:
        """How a command ended, if it was ever begun."""
        row = self._connection.execute("SELECT ending, message FROM command WHERE id = ?", (id_,)).fetchone()
        return fleet_pb2.CommandResult(id=id_, ending=row[0], message=row[1]) if row else None

    def close(self) -> None:
        """Lets go of the file."""
        self._connection.close()


class Commands:
    """Carries commands out. What is under way goes on when a session ends, and answers in the next."""

    def __init__(self, worker: Worker, journal: Journal) -> None:
        self._worker, self._journal = worker, journal
        self._running: dict[str, asyncio.Task[fleet_pb2.CommandResult]] = {}

    async def answer(
        self, command: fleet_pb2.Command, epoch: int, held: Mapping[str, fleet_pb2.Object]
    ) -> fleet_pb2.CommandResult:
        """How a command ended; carried out first, unless it was begun before or may not be begun any more."""
        running = self._running.get(command.id)
        if running is not None:
            return await asyncio.shield(running)
        known = self._journal.find(command.id)
        if known is not None:
            return known
        if command.recall or command.time_to_live.ToNanoseconds() <= 0 or command.epoch != epoch:
            return fleet_pb2.CommandResult(id=command.id, ending=fleet_pb2.ENDING_EXPIRED)
        if command.target not in held or held[command.target].generation < command.generation:
            said = "the agent does not hold what the command is about"
            return fleet_pb2.CommandResult(id=command.id, ending=fleet_pb2.ENDING_FAILED, message=said)
        task = asyncio.create_task(self._carry_out(command))
        self._running[command.id] = task
        task.add_done_callback(lambda _: self._running.pop(command.id, None))
        return await asyncio.shield(task)

    async def _carry_out(self, command: fleet_pb2.Command) -> fleet_pb2.CommandResult:
        self._journal.begin(command.id)
        reach("agent.command.begun")
        result = fleet_pb2.CommandResult(id=command.id, ending=fleet_pb2.ENDING_DONE)
        try:
            await self._worker.act(command)
        except Refused as refused:
            result.ending, result.message = fleet_pb2.ENDING_FAILED, str(refused)
        except Exception as error:
            # The edge: whatever it stumbles over, the command has its end.
            log.error("command.failed", id=command.id, exc_info=error)
            result.ending, result.message = fleet_pb2.ENDING_FAILED, f"{type(error).__name__}: {error}"
        reach("agent.command.acted")
        self._journal.end(result)
        log.info("command.ended", id=command.id, ending=fleet_pb2.Ending.Name(result.ending))
        return result
