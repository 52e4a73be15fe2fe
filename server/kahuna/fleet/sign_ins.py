"""Sign-ins and departures of agents: those of many in one transaction, and each agent's at a bounded rate."""

import asyncio
import contextlib
from collections import deque
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

from kahuna.domain.errors import Refusal
from kahuna.fleet.ending import Ending
from kahuna.fleet.pace import Bucket, Pace
from kahuna.kinds import command
from kahuna.store.database import Store
from kahuna.store.resource import meta
from kahuna.store.transaction import Transaction
from kowa.fleet.v1 import fleet_pb2
from kowa.v2 import agent_pb2, agent_token_pb2, meta_pb2

MAX_AT_ONCE, INTERVAL_S = 16, 0.02  # sign-ins and departures in one transaction, and the time between two of them
MAX_WAITING = 1000  # sign-ins that wait for their transaction; more are told to come back
# Sign-ins of one agent at once, and in a second for long.
SIGN_INS, SIGN_INS_PER_SECOND = 20, 0.2
RETURNS_PER_SECOND, LEAST_RETURN_S = 50, 2.0  # of those who were told to come back
RETRY_S = 0.5  # after a departure could not be stored
CONNECTED = frozenset({agent_pb2.STREAM_ONLINE, agent_pb2.STREAM_STALE})
TOKEN_SHARED = "TokenShared"  # noqa: S105 - a condition


class SignIn(NamedTuple):
    """An agent that signs in. `problem` is what is wrong with its token though it is let in; may be empty."""

    agent: str
    token: str
    version: str
    problem: str


class Departure(NamedTuple):
    """The end of a session."""

    agent: str
    epoch: int


class Opened(NamedTuple):
    """A stored sign-in: the new session's epoch, and whether commands may wait for it."""

    epoch: int
    has_commands: bool


class SignIns:
    """Stores sign-ins and departures in the order in which they come."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._waiting: deque[tuple[SignIn | Departure, asyncio.Future[Opened | None]]] = deque()
        self._storing: asyncio.Task[None] | None = None
        self._rates: dict[str, Bucket] = {}  # by agent
        self._prune_above = MAX_WAITING
        self._pace = Pace(RETURNS_PER_SECOND, LEAST_RETURN_S)

    def admit(self, agent: str) -> None:
        """Raises Ending when this agent signs in too often, or too many others do."""
        if len(self._rates) > self._prune_above:
            self._rates = {id_: rate for id_, rate in self._rates.items() if not rate.is_full}
            # Not again at each of the next: after Kahuna's restart all agents sign in, and no rate is full yet.
            self._prune_above = max(MAX_WAITING, 2 * len(self._rates))
        if pause := self._rates.setdefault(agent, Bucket(SIGN_INS, SIGN_INS_PER_SECOND)).take():
            message = "the agent signs in too often; its log may say why its sessions end"
            raise Ending(fleet_pb2.FAREWELL_OVERLOADED, message, retry_after_s=pause)
        if len(self._waiting) >= MAX_WAITING:
            message = "too many agents sign in at once; come back later"
            raise Ending(fleet_pb2.FAREWELL_OVERLOADED, message, retry_after_s=self._pace.next_pause())

    async def open(self, sign_in: SignIn) -> Opened:
        """Stores a sign-in. Raises Refusal when the token was revoked meanwhile, or the database can't be used."""
        opened = await self._store_soon(sign_in)
        assert opened is not None
        return opened

    async def close(self, departure: Departure) -> None:
        """Stores the end of a session, as soon as the database can be used."""
        await self._store_soon(departure)

    async def finish(self) -> None:
        """Returns when nothing waits to be stored."""
        while self._storing is not None and not self._storing.done():
            await asyncio.wait([self._storing])

    def _store_soon(self, change: SignIn | Departure) -> "asyncio.Future[Opened | None]":
        stored: asyncio.Future[Opened | None] = asyncio.get_running_loop().create_future()
        self._waiting.append((change, stored))
        if self._storing is None or self._storing.done():
            self._storing = asyncio.create_task(self._store_all())
        return stored

    async def _store_all(self) -> None:
        while self._waiting:
            await asyncio.sleep(INTERVAL_S)
            taken = [self._waiting.popleft() for _ in range(min(MAX_AT_ONCE, len(self._waiting)))]
            await self._store_some(taken)

    async def _store_some(self, taken: "list[tuple[SignIn | Departure, asyncio.Future[Opened | None]]]") -> None:
        try:
            results = await self._store.run(partial(_apply, changes=[change for change, _ in taken]))
        except Exception as error:  # noqa: BLE001 - error boundary: each caller gets it
            if len(taken) > 1 and not _is_unavailable(error):
                for one in taken:  # so that one that can't be stored fails no other
                    await self._store_some([one])
                return
            results = [error] * len(taken)
        for (change, stored), result in zip(taken, results, strict=True):
            if isinstance(change, Departure) and isinstance(result, Exception) and _is_unavailable(result):
                self._waiting.append((change, stored))
            elif stored.cancelled():
                continue
            elif isinstance(result, Exception):
                stored.set_exception(result)
            else:
                stored.set_result(result)
        if self._waiting and any(isinstance(result, Exception) and _is_unavailable(result) for result in results):
            await asyncio.sleep(RETRY_S)


def is_revoked(token: object) -> bool:
    """Whether a token may not be used any more: it is marked for deletion, or has been removed."""
    return not isinstance(token, agent_token_pb2.AgentToken) or token.meta.HasField("delete_time")


def set_stream(tx: Transaction, agent: str, stream: "agent_pb2.Stream", epoch: int | None = None) -> None:
    """Sets the stream state of a connected agent; with an epoch, only while that is its newest session."""
    with contextlib.suppress(Refusal):  # the agent's row may have been removed
        record = tx.lock(agent_pb2.Agent, agent)
        _set_stream(tx, record, stream, epoch)


def set_problem(tx: Transaction, record: agent_pb2.Agent, problem: str) -> None:
    """Sets the condition of an agent whose token others hold too, or clears it."""
    conditions = [one for one in record.meta.conditions if one.type != TOKEN_SHARED]
    since = [one.transition_time for one in record.meta.conditions if one.type == TOKEN_SHARED]
    if problem:
        condition = meta_pb2.Condition(type=TOKEN_SHARED, reason="TOKEN_SHARED", message=problem)
        if since:
            condition.transition_time.CopyFrom(since[0])
        else:
            condition.transition_time.FromMicroseconds(tx.now)
        conditions.append(condition)
    kept = meta_pb2.Meta(conditions=conditions)
    del record.meta.conditions[:]
    record.meta.conditions.extend(kept.conditions)


def _is_unavailable(error: Exception) -> bool:
    return isinstance(error, Refusal) and error.status == "UNAVAILABLE"


def _apply(tx: Transaction, changes: Sequence[SignIn | Departure]) -> list[Opened | Exception | None]:
    """Returns what each change comes to; a refusal is a value, since the others are stored."""
    tokens = {change.token for change in changes if isinstance(change, SignIn)}
    valid = {token.meta.id for token in tx.find_all(agent_token_pb2.AgentToken, tokens) if not is_revoked(token)}
    with_commands = command.agents_with_commands(tx, {change.agent for change in changes})
    records = {meta(one).id: one for one in tx.lock_all(agent_pb2.Agent, {change.agent for change in changes})}
    results: list[Opened | Exception | None] = []
    for change in changes:
        record = records.get(change.agent)
        if isinstance(change, Departure):
            results.append(None)
            if record is not None:
                _set_stream(tx, record, agent_pb2.STREAM_OFFLINE, change.epoch)
        elif record is None or change.token not in valid:
            # It may have been revoked since the call was accepted.
            results.append(Refusal("UNAUTHENTICATED", "the key has been revoked; use one that is valid"))
        else:
            status = record.status
            status.epoch += 1
            status.stream, status.version = agent_pb2.STREAM_ONLINE, change.version
            status.seen_time.FromMicroseconds(tx.now)
            del status.dropped_reports[:]
            set_problem(tx, record, change.problem)
            tx.report("Agent", record)
            results.append(Opened(status.epoch, change.agent in with_commands))
    return results


def _set_stream(tx: Transaction, record: agent_pb2.Agent, stream: "agent_pb2.Stream", epoch: int | None) -> None:
    if record.status.stream in CONNECTED and epoch in (None, record.status.epoch):
        record.status.stream = stream
        record.status.seen_time.FromMicroseconds(tx.now)
        tx.report("Agent", record)
