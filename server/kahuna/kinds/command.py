"""Commands in transactions: recorded, sent once, ended."""

from collections.abc import Collection, Sequence

from google.protobuf.message import Message
from sqlalchemy import BigInteger, LargeBinary
from sqlmodel import Field, SQLModel, col, select

from kahuna.domain import lifecycle
from kahuna.domain.errors import Refusal
from kahuna.kinds import tracking
from kahuna.kinds.reach import reach_of_kinds
from kahuna.kinds.tracking import Cause
from kahuna.store.resource import Lock, meta
from kahuna.store.transaction import Transaction
from kowa.fleet.v1 import fleet_pb2
from kowa.v2 import agent_pb2, operation_pb2

# Microseconds within which an agent must have started a command, and after those the time to answer it.
TIME_TO_LIVE_US = 60 * 1_000_000
ANSWER_TIMEOUT_US = 600 * 1_000_000
_CONNECTED = frozenset({agent_pb2.STREAM_ONLINE, agent_pb2.STREAM_STALE})
_SILENT = "UNKNOWN: its agent is connected and has not answered, and it may be done; look before trying again"
_MESSAGES = {
    fleet_pb2.ENDING_UNKNOWN: "UNKNOWN: it was started and interrupted, and may be done; look before trying again",
    fleet_pb2.ENDING_EXPIRED: "EXPIRED: its host was not reached in time, and nothing was done; try again",
}


_ENDINGS = frozenset(fleet_pb2.Ending.values()) - {fleet_pb2.ENDING_UNSPECIFIED}


class Command(SQLModel, table=True):
    """One command until its end; its id is that of its operation. `deadline` is in microseconds since 1970.

    `sent` is committed before the command is sent, so that it is never sent twice.
    """

    id: str = Field(primary_key=True, max_length=36)
    agent_id: str = Field(index=True, max_length=36)
    target_id: str = Field(index=True, max_length=36)
    deadline: int = Field(sa_type=BigInteger)
    sent: bool = False
    data: bytes = Field(sa_type=LargeBinary)


def begin(
    tx: Transaction, cause: Cause, kind: str, target: Message, command: fleet_pb2.Command
) -> operation_pb2.Operation:
    """Records a command for the agent of a resource; it is sent once the transaction is committed."""
    operation = tracking.record(tx, cause, kind, target, operation_pb2.PHASE_RUNNING, command=True)
    head = meta(target)
    command.id, command.target, command.generation = operation.meta.id, head.id, head.generation
    agent, deadline = reach_of_kinds().holder(tx, kind, head.id), tx.now + TIME_TO_LIVE_US
    data = command.SerializeToString()
    tx.session.add(Command(id=command.id, agent_id=agent, target_id=head.id, deadline=deadline, data=data))
    tx.session.flush()
    return operation


def take(tx: Transaction, agent: str, epoch: int) -> list[fleet_pb2.Command]:
    """Returns the commands to send now in an agent's newest session, and marks them as sent."""
    rows = _rows(tx, agent, sent=False) if _is_newest(tx, agent, epoch) else ()
    taken = []
    for row in rows:
        operation = tx.find("Operation", row.id)
        if not isinstance(operation, operation_pb2.Operation) or operation.phase not in lifecycle.OPEN_PHASES:
            tx.session.delete(row)
            continue
        if row.deadline <= tx.now:
            end(tx, agent, fleet_pb2.CommandResult(id=row.id, ending=fleet_pb2.ENDING_EXPIRED))
            continue
        row.sent = True
        command = fleet_pb2.Command.FromString(row.data)
        command.time_to_live.FromMicroseconds(row.deadline - tx.now)
        taken.append(command)
    tx.session.flush()
    return taken


def withdraw(tx: Transaction, id_: str) -> None:
    """Withdraws a command. Raises Refusal when it has been sent: the agent may carry it out at any time."""
    row = tx.session.get(Command, id_, with_for_update=True)
    if row is not None and row.sent:
        raise Refusal("CONFLICT", "it has been sent to its host and can't be cancelled any more; wait for its end")
    if row is not None:
        tx.session.delete(row)


def recall(tx: Transaction, agent: str, epoch: int) -> list[fleet_pb2.Command]:
    """Returns the open commands of an agent's earlier sessions, marked so that it only returns their results."""
    rows = _rows(tx, agent, sent=True) if _is_newest(tx, agent, epoch) else ()
    commands = [fleet_pb2.Command.FromString(row.data) for row in rows]
    for command in commands:
        command.recall = True
    return commands


def expire(tx: Transaction) -> None:
    """Ends the commands that were not sent in time, and those that a connected agent has not answered for long."""
    late = select(Command).where(col(Command.sent).is_(False), Command.deadline <= tx.now)
    # Locking reads the rows again: one that has been sent meanwhile is not late.
    for row in tx.session.exec(late.with_for_update()).all():
        end(tx, row.agent_id, fleet_pb2.CommandResult(id=row.id, ending=fleet_pb2.ENDING_EXPIRED))
    patience = tx.now - ANSWER_TIMEOUT_US
    sent = select(Command).where(col(Command.sent).is_(True), Command.deadline <= patience)
    for row in tx.session.exec(sent.with_for_update()).all():
        record = tx.find("Agent", row.agent_id)
        # An agent that was away, or is away, is asked for the result when it is back.
        status = record.status if isinstance(record, agent_pb2.Agent) else agent_pb2.AgentStatus()
        if status.stream in _CONNECTED and status.seen_time.ToMicroseconds() <= patience:
            end(tx, row.agent_id, fleet_pb2.CommandResult(id=row.id, ending=fleet_pb2.ENDING_UNKNOWN), _SILENT)


def agents_with_commands(tx: Transaction, agents: Collection[str]) -> set[str]:
    """Returns those of these agents that have open commands, sent or not."""
    return set(tx.session.exec(select(Command.agent_id).where(col(Command.agent_id).in_(agents))))


def end_all(tx: Transaction, agent: str) -> None:
    """Ends all commands of an agent that is forgotten."""
    for sent, ending in ((True, fleet_pb2.ENDING_UNKNOWN), (False, fleet_pb2.ENDING_EXPIRED)):
        for row in _rows(tx, agent, sent=sent):
            end(tx, agent, fleet_pb2.CommandResult(id=row.id, ending=ending))


def end(tx: Transaction, agent: str, result: fleet_pb2.CommandResult, message: str = "") -> None:
    """Ends a command of the agent with its result. A repeated result changes nothing. Default message: the result's."""
    row = tx.session.get(Command, result.id, with_for_update=True)
    if row is None or row.agent_id != agent:
        return
    tx.session.delete(row)
    tx.session.flush()
    operation = tx.find("Operation", result.id)
    if isinstance(operation, operation_pb2.Operation) and operation.phase in lifecycle.OPEN_PHASES:
        is_done = result.ending == fleet_pb2.ENDING_DONE
        phase = operation_pb2.PHASE_DONE if is_done else operation_pb2.PHASE_FAILED
        tracking.end(tx, operation, phase, message or _message(result))


def _message(result: fleet_pb2.CommandResult) -> str:
    """What people read of a command's end."""
    if result.ending not in _ENDINGS:
        problem = f"its agent ended it as {result.ending}, which this Kahuna does not know"
        return f"UNKNOWN: {problem}; look before trying again"
    return _MESSAGES.get(result.ending, result.message[:1024])


def _is_newest(tx: Transaction, agent: str, epoch: int) -> bool:
    """Whether a session is its agent's newest. It stays so until the end of the transaction."""
    record = tx.find("Agent", agent, Lock.EXCLUSIVE)
    return isinstance(record, agent_pb2.Agent) and record.status.epoch == epoch


def _rows(tx: Transaction, agent: str, *, sent: bool) -> Sequence[Command]:
    query = select(Command).where(Command.agent_id == agent, col(Command.sent).is_(sent)).with_for_update()
    return tx.session.exec(query).all()
