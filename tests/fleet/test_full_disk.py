"""An agent whose disk is full, or spoilt: it serves from what it has, and says what it can't do."""

import asyncio
import resource
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from kowa.fleet.v1 import fleet_pb2
from kowa.runtime.commands import Commands, Journal
from kowa.runtime.store import Holdings
from tests.control_plane import FakeHost
from tests.fleet.manual_kahuna import vnet

ONE = vnet(1)
HELD = {ONE.id: ONE}
DONE, FAILED, UNKNOWN = fleet_pb2.ENDING_DONE, fleet_pb2.ENDING_FAILED, fleet_pb2.ENDING_UNKNOWN
EXPIRED = fleet_pb2.ENDING_EXPIRED


@contextmanager
def full_disk() -> Iterator[None]:
    """No file grows, pytest's own included."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        with capture_logs():
            yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


class Actor(FakeHost):
    """Counts."""

    def __init__(self) -> None:
        super().__init__()
        self.acts = 0

    async def act(self, command: fleet_pb2.Command) -> None:
        self.acts += 1


def answer(commands: Commands, id_: str, *, recall: bool = False) -> fleet_pb2.CommandResult:
    command = fleet_pb2.Command(id=id_, target=ONE.id, generation=1, epoch=1, recall=recall)
    command.time_to_live.FromSeconds(60)
    return asyncio.run(commands.answer(command, 1, HELD))


@pytest.mark.parametrize("ended", ["well", "killed"])
def test_an_agent_serves_from_what_is_stored(tmp_path: Path, ended: str) -> None:
    before = Holdings(tmp_path / "before")
    before.start_incarnation("life")
    before.store([ONE], [])
    state = tmp_path / "before"
    if ended == "killed":
        state = tmp_path / "state"
        state.mkdir()
        for path in (tmp_path / "before").iterdir():
            (state / path.name).write_bytes(path.read_bytes())
        assert (state / "holdings.db-wal").stat().st_size
    before.close()
    with full_disk():
        holdings = Holdings(state)
        assert (holdings.objects, holdings.incarnation) == (HELD, "life")
        with pytest.raises(OSError, match="the agent can't store it"):
            holdings.store([vnet(2)], [])
        assert holdings.objects == HELD
    holdings.store([vnet(2)], [])
    holdings.close()
    again = Holdings(state)
    assert len(again.objects) == 2
    again.close()


def test_commands_are_refused_while_they_can_not_be_journaled(tmp_path: Path) -> None:
    host = Actor()
    with full_disk():
        journal = Journal(tmp_path)
        commands = Commands(host, journal)
        result = answer(commands, "1")
        assert (result.id, result.ending) == ("1", FAILED)
        assert "the agent can't keep its journal of commands" in result.message
    assert answer(commands, "2").ending == DONE
    with full_disk():
        result = answer(commands, "3")
        assert result.ending == FAILED
        assert "the agent can't keep its journal of commands" in result.message
        assert answer(commands, "2").ending == DONE
    assert host.acts == 1
    assert answer(commands, "3").ending == DONE
    journal.close()


def test_what_was_done_is_told_though_it_can_not_be_written_down(tmp_path: Path) -> None:
    with ExitStack() as stack:

        class Filler(Actor):
            async def act(self, command: fleet_pb2.Command) -> None:
                await super().act(command)
                stack.enter_context(full_disk())

        host, journal = Filler(), Journal(tmp_path)
        commands = Commands(host, journal)
        assert answer(commands, "1").ending == DONE
    assert answer(commands, "1").ending == UNKNOWN
    assert host.acts == 1
    journal.close()


def test_a_damaged_journal_is_put_aside(tmp_path: Path) -> None:
    (tmp_path / "commands.db").write_bytes(b"garbage!" * 512)
    journal = Journal(tmp_path)
    assert answer(Commands(Actor(), journal), "1").ending == DONE
    journal.close()
    assert (tmp_path / "commands.db.damaged").read_bytes().startswith(b"garbage!")


def open_journal(folder: Path) -> Commands:
    """As the next process does."""
    return Commands(Actor(), Journal(folder))


@pytest.mark.parametrize("fate", ["lost", "damaged"])
def test_nobody_is_told_that_nothing_was_done_where_the_journal_of_it_is_lost(tmp_path: Path, fate: str) -> None:
    before = Journal(tmp_path)
    before.begin("1")
    before.close()
    if fate == "lost":
        (tmp_path / "commands.db").unlink()
    else:
        (tmp_path / "commands.db").write_bytes(b"garbage!" * 512)
    # Killed before anybody has asked.
    open_journal(tmp_path)._journal.close()
    commands = open_journal(tmp_path)
    assert [answer(commands, id_, recall=True).ending for id_ in ("1", "2")] == [UNKNOWN, UNKNOWN]
    assert answer(commands, "3").ending == DONE
    # What it has said it stands by: its word may have been lost. What came later it knows of.
    assert [answer(commands, id_, recall=True).ending for id_ in ("1", "2")] == [UNKNOWN, UNKNOWN]
    assert [answer(commands, id_, recall=True).ending for id_ in ("3", "4")] == [DONE, EXPIRED]
    commands._journal.close()
    commands = open_journal(tmp_path)
    assert [answer(commands, id_, recall=True).ending for id_ in ("1", "2", "3", "4")] == [
        UNKNOWN, UNKNOWN, DONE, EXPIRED,
    ]  # fmt: skip
    commands._journal.close()


def test_nobody_is_told_how_a_command_ended_while_the_journal_can_not_be_read(tmp_path: Path) -> None:
    with full_disk():
        journal = Journal(tmp_path)
        assert answer(Commands(Actor(), journal), "1", recall=True).ending == UNKNOWN
    journal.close()
