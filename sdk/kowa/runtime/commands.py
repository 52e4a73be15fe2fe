"""Commands: each is started at most once, whatever is killed, and each gets a result."""

import asyncio
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import structlog

from kowa.fleet.v1 import fleet_pb2
from kowa.runtime.crashpoint import crash_point
from kowa.runtime.feed import Refused, Worker
from kowa.runtime.state import connect

log = structlog.get_logger()

_SCHEMA = """
CREATE TABLE IF NOT EXISTS command (number INTEGER PRIMARY KEY, id TEXT UNIQUE, ending INTEGER, message TEXT)
"""
MAX_JOURNALED = 1000  # ended commands whose results are kept


class Journal:
    """A write-ahead record of commands. One without a recorded end is UNKNOWN: the process died during it.

    Every method raises OSError with the reason while the file can't be used.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / "commands.db"
        self._connection: sqlite3.Connection | None = None
        try:
            self._execute("SELECT 1")
        except OSError as error:
            # Commands are refused until it can be opened; everything else works.
            log.error("journal.unavailable", reason=str(error))

    def start(self, id_: str) -> None:
        """Records a command before it is carried out."""
        self._execute("INSERT INTO command (id, message) VALUES (?, '')", id_)

    def end(self, result: fleet_pb2.CommandResult) -> None:
        """Records a command's result."""
        self._execute(
            "UPDATE command SET ending = ?, message = ? WHERE id = ?", result.ending, result.message, result.id
        )
        self._execute("DELETE FROM command WHERE number <= (SELECT max(number) FROM command) - ?", MAX_JOURNALED)

    def find(self, id_: str) -> fleet_pb2.CommandResult | None:
        """The result of a command, None if it was never started. Not for a running one, which looks UNKNOWN."""
        for ending, message in self._execute("SELECT ending, message FROM command WHERE id = ?", id_):
            return fleet_pb2.CommandResult(id=id_, ending=ending or fleet_pb2.ENDING_UNKNOWN, message=message)
        return None

    def recall(self, id_: str) -> fleet_pb2.CommandResult:
        """The result of a command that was sent in an earlier session: EXPIRED if it was not started.

        A file without a command that was carried out may replace a lost one: then the result is UNKNOWN, and is stored,
        so that repeated recalls get the same. Otherwise a missing id is EXPIRED: recalls precede a session's commands.
        """
        carried_out = "SELECT 1 FROM command WHERE ending IS NOT ? LIMIT 1"
        if self.find(id_) is None and not self._execute(carried_out, fleet_pb2.ENDING_UNKNOWN):
            self._execute("INSERT INTO command (id, ending, message) VALUES (?, ?, '')", id_, fleet_pb2.ENDING_UNKNOWN)
        return self.find(id_) or fleet_pb2.CommandResult(id=id_, ending=fleet_pb2.ENDING_EXPIRED)

    def _execute(self, statement: str, *values: object) -> list[Any]:
        try:
            if self._connection is None:
                self._connection = connect(self._path, lambda connection: connection.execute(_SCHEMA))
            return self._connection.execute(statement, values).fetchall()
        except (sqlite3.Error, OSError) as error:
            raise OSError(f"the agent can't keep its journal of commands: {error}") from error

    def close(self) -> None:
        """Closes the database."""
        if self._connection is not None:
            self._connection.close()


class Commands:
    """Carries commands out. A running command survives its session; the next one gets its result."""

    def __init__(self, worker: Worker, journal: Journal) -> None:
        self._worker, self._journal = worker, journal
        self._running: dict[str, asyncio.Task[fleet_pb2.CommandResult]] = {}

    async def answer(
        self, command: fleet_pb2.Command, epoch: int, objects: Mapping[str, fleet_pb2.Object]
    ) -> fleet_pb2.CommandResult:
        """Returns a command's result; first carries it out, unless it was started before or has expired."""
        running = self._running.get(command.id)
        if running is not None:
            return await asyncio.shield(running)
        try:
            result = self._journal.recall(command.id) if command.recall else self._journal.find(command.id)
        except OSError as error:
            ending = fleet_pb2.ENDING_UNKNOWN if command.recall else fleet_pb2.ENDING_REFUSED
            return _result(command, ending, str(error))
        if result is not None:
            return result
        if command.time_to_live.ToNanoseconds() <= 0 or command.epoch != epoch:
            return _result(command, fleet_pb2.ENDING_EXPIRED)
        if command.target not in objects or objects[command.target].generation < command.generation:
            return _result(command, fleet_pb2.ENDING_REFUSED, "the agent does not hold what the command is about")
        task = asyncio.create_task(self._carry_out(command))
        self._running[command.id] = task
        task.add_done_callback(lambda _: self._running.pop(command.id, None))
        return await asyncio.shield(task)

    async def _carry_out(self, command: fleet_pb2.Command) -> fleet_pb2.CommandResult:
        try:
            self._journal.start(command.id)
        except OSError as error:
            log.warning("command.refused", id=command.id, reason=str(error))
            return _result(command, fleet_pb2.ENDING_REFUSED, str(error))
        crash_point("agent.command.started")
        try:
            await self._worker.act(command)
            result = _result(command, fleet_pb2.ENDING_DONE)
        except Refused as refused:
            result = _result(command, fleet_pb2.ENDING_REFUSED, str(refused))
        except Exception as error:
            # Error boundary: whatever goes wrong, the command gets a result.
            log.error("command.failed", id=command.id, exc_info=error)
            result = _result(command, fleet_pb2.ENDING_FAILED, f"{type(error).__name__}: {error}")
        crash_point("agent.command.acted")
        try:
            self._journal.end(result)
        except OSError as error:
            # It was carried out and is answered so; after a restart it will be UNKNOWN.
            log.error("command.not_journaled", id=command.id, reason=str(error))
        log.info("command.ended", id=command.id, ending=fleet_pb2.Ending.Name(result.ending))
        return result


def _result(command: fleet_pb2.Command, ending: fleet_pb2.Ending, message: str = "") -> fleet_pb2.CommandResult:
    return fleet_pb2.CommandResult(id=command.id, ending=ending, message=message)
