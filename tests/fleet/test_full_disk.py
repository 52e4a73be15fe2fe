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
from tests.fleet.kahuna_by_hand import vnet
from tests.world import PretendHost

ONE = vnet(1)
HELD = {ONE.id: ONE}
DONE, FAILED, UNKNOWN = fleet_pb2.ENDING_DONE, fleet_pb2.ENDING_FAILED, fleet_pb2.ENDING_UNKNOWN


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


class Actor(PretendHost):
    """Counts."""

    def __init__(self) -> None:
        super().__init__()
        self.acts = 0

    async def act(self, command: fleet_pb2.Command) -> None:
        self.acts += 1


def answer(commands: Commands, id_: str) -> fleet_pb2.CommandResult:
    command = fleet_pb2.Command(id=id_, target=ONE.id, generation=1, epoch=1)
    command.time_to_live.FromSeconds(60)
    return asyncio.run(commands.answer(command, 1, HELD))


@pytest.mark.parametrize("ended", ["well", "killed"])
def test_an_agent_serves_from_what_is_stored(tmp_path: Path, ended: str) -> None:
    before = Holdings(tmp_path / "before")
    before.begin("life")
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
