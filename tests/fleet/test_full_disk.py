"""An agent whose disk is full or damaged: it serves its stored objects, and reports what it can't do."""

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
from tests.control_plane import FakeWorker
from tests.fleet.manual_kahuna import vnet

VNET = vnet(1)
HELD = {VNET.id: VNET}
DONE, REFUSED, UNKNOWN = fleet_pb2.ENDING_DONE, fleet_pb2.ENDING_REFUSED, fleet_pb2.ENDING_UNKNOWN
EXPIRED = fleet_pb2.ENDING_EXPIRED


@contextmanager
def full_disk() -> Iterator[None]:
    """No file can grow, including pytest's own."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        with capture_logs():
            yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


class CountingWorker(FakeWorker):
    """Counts the commands it carries out."""

    def __init__(self) -> None:
        super().__init__()
        self.acts = 0

    async def act(self, command: fleet_pb2.Command) -> None:
        self.acts += 1


def answer(commands: Commands, id_: str, *, recall: bool = False) -> fleet_pb2.CommandResult:
    command = fleet_pb2.Command(id=id_, target=VNET.id, generation=1, epoch=1, recall=recall)
    command.time_to_live.FromSeconds(60)
    return asyncio.run(commands.answer(command, 1, HELD))


@pytest.mark.parametrize("ended", ["stopped", "killed"])
def test_an_agent_with_a_full_disk_serves_its_stored_objects(tmp_path: Path, ended: str) -> None:
    before = Holdings(tmp_path / "before")
    before.start_incarnation("incarnation")
    before.store([VNET], [])
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
        assert (holdings.objects, holdings.incarnation) == (HELD, "incarnation")
        with pytest.raises(OSError, match="the agent can't store it"):
            holdings.store([vnet(2)], [])
        assert holdings.objects == HELD
    holdings.store([vnet(2)], [])
    holdings.close()
    reopened = Holdings(state)
    assert len(reopened.objects) == 2
    reopened.close()


def test_commands_are_refused_while_they_cannot_be_journaled(tmp_path: Path) -> None:
    host = CountingWorker()
    with full_disk():
        journal = Journal(tmp_path)
        commands = Commands(host, journal)
        result = answer(commands, "1")
        assert (result.id, result.ending) == ("1", REFUSED)
        assert "the agent can't keep its journal of commands" in result.message
    assert answer(commands, "2").ending == DONE
    with full_disk():
        result = answer(commands, "3")
        assert result.ending == REFUSED
        assert "the agent can't keep its journal of commands" in result.message
        assert answer(commands, "2").ending == DONE
    assert host.acts == 1
    assert answer(commands, "3").ending == DONE
    journal.close()


def test_a_result_is_sent_even_if_not_journaled(tmp_path: Path) -> None:
    with ExitStack() as stack:

        class DiskFillingHost(CountingWorker):
            async def act(self, command: fleet_pb2.Command) -> None:
                await super().act(command)
                stack.enter_context(full_disk())

        host, journal = DiskFillingHost(), Journal(tmp_path)
        commands = Commands(host, journal)
        assert answer(commands, "1").ending == DONE
    assert answer(commands, "1").ending == UNKNOWN
    assert host.acts == 1
    journal.close()


def test_a_damaged_journal_is_moved_aside(tmp_path: Path) -> None:
    (tmp_path / "commands.db").write_bytes(b"garbage!" * 512)
    journal = Journal(tmp_path)
    assert answer(Commands(CountingWorker(), journal), "1").ending == DONE
    journal.close()
    assert (tmp_path / "commands.db.damaged").read_bytes().startswith(b"garbage!")


def restarted_commands(folder: Path) -> Commands:
    """Commands as the next process opens them."""
    return Commands(CountingWorker(), Journal(folder))


@pytest.mark.parametrize("damage", ["deleted", "overwritten"])
def test_recall_is_unknown_after_the_journal_is_lost(tmp_path: Path, damage: str) -> None:
    before = Journal(tmp_path)
    before.start("1")
    before.close()
    if damage == "deleted":
        (tmp_path / "commands.db").unlink()
    else:
        (tmp_path / "commands.db").write_bytes(b"garbage!" * 512)
    # Killed before the first recall.
    restarted_commands(tmp_path)._journal.close()
    commands = restarted_commands(tmp_path)
    assert [answer(commands, id_, recall=True).ending for id_ in ("1", "2")] == [UNKNOWN, UNKNOWN]
    assert answer(commands, "3").ending == DONE
    # Its UNKNOWN answers must not change, since Kahuna may have missed them; later commands are known.
    assert [answer(commands, id_, recall=True).ending for id_ in ("1", "2")] == [UNKNOWN, UNKNOWN]
    assert [answer(commands, id_, recall=True).ending for id_ in ("3", "4")] == [DONE, EXPIRED]
    commands._journal.close()
    commands = restarted_commands(tmp_path)
    assert [answer(commands, id_, recall=True).ending for id_ in ("1", "2", "3", "4")] == [
        UNKNOWN, UNKNOWN, DONE, EXPIRED,
    ]  # fmt: skip
    commands._journal.close()


def test_recall_is_unknown_while_the_journal_cannot_be_opened(tmp_path: Path) -> None:
    with full_disk():
        journal = Journal(tmp_path)
        assert answer(Commands(CountingWorker(), journal), "1", recall=True).ending == UNKNOWN
    journal.close()
