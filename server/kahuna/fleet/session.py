"""One agent's session: its holdings, the changes in its slice, and the batch under way."""

import asyncio
import contextlib
import time
import uuid
from collections import deque
from collections.abc import AsyncIterator, Collection, Iterator
from functools import lru_cache
from itertools import islice
from typing import NamedTuple, TypeVar

import structlog
from google.protobuf.message import Message
from prometheus_client import Counter

from kahuna.fleet.checks import Drop, listed
from kahuna.fleet.ending import Ending, protocol_error
from kahuna.fleet.pace import Bucket
from kahuna.kinds.reach import reach_of_kinds
from kahuna.store.resource import CONTRACT, clear, message_class, meta
from kahuna.store.view import View
from kowa import resources
from kowa.fleet.v1 import fleet_pb2
from kowa.v2 import agent_pb2

log = structlog.get_logger()

DROPPED = Counter("kahuna_fleet_dropped", "What agents sent and Kahuna dropped.", ["reason"])

MAX_BATCH_BYTES, MAX_BATCH_ITEMS = 1 << 20, 4000  # of a part of a batch; others get their turn between two parts
MAX_MESSAGE_BYTES = 1 << 20  # of a message of an agent: parsing it holds up all others
# Reading of one session: bytes at once, and bytes a second for long. Each message counts as more bytes than it has, and
# so does each report or holding in it, since all of them cost time.
BURST_BYTES, BYTES_PER_SECOND = 8 << 20, 1 << 20
MESSAGE_COST_BYTES, ITEM_COST_BYTES = 4 << 10, 64
SLICE_SIZE = 256  # reports or holdings handled before others get their turn
WIRE_OVERHEAD_BYTES = 8  # of each object and id, at most
MAX_OUTBOUND = 64  # messages queued for an agent that reads slowly
MAX_HOLDINGS, MAX_ID_CHARS = 100_000, 36  # objects that an agent may report; of an id
MAX_TEXT_CHARS = 1024  # of an agent's texts; the rest is cut off
MAX_REPORTS = 20_000  # in one message

T = TypeVar("T")


class Holder(NamedTuple):
    """A running agent that holds a token, as it introduced itself."""

    process: str
    host: str  # from which it dials
    version: str

    @property
    def key(self) -> str:
        """What tells it from another with the same token."""
        return self.process or self.host

    def __str__(self) -> str:
        return f"{self.host} (version {self.version or 'unknown'})"


class Session:
    """Sends the difference between the agent's slice and its holdings, one batch at a time.

    No changes are queued: `_dirty` has the ids that may differ, each once.
    """

    def __init__(self, view: View, agent: str, token: str, epoch: int, holder: Holder | None = None) -> None:
        self.agent, self.token, self.epoch = agent, token, epoch
        self.holder = holder or Holder("", "", "")
        self.reading = Bucket(BURST_BYTES, BYTES_PER_SECOND)
        self.holdings: dict[str, tuple[int, bool]] = {}  # id -> generation, and whether it is marked for deletion
        self.held_revision = 0
        self.last_message_at = time.monotonic()
        self.stale = False
        self.ending: asyncio.Future[Ending] = asyncio.get_running_loop().create_future()
        self.finished = asyncio.Event()  # set by `end`, or when the stream has closed
        self.holdings_read = asyncio.Event()  # set when all holdings have come
        self.slice_known = asyncio.Event()  # set when `_slice` is filled, which reports are checked against
        self.ack_stored = asyncio.Event()  # cleared while an ack that has come is not in `holdings` yet
        self.ack_stored.set()
        self.dropped: dict[str, agent_pb2.DroppedReports] = {}  # reports that were dropped, by reason
        self.troubled: set[str] = set()  # shared resources on which the agent has reported a problem
        self._ack: tuple[str, asyncio.Future[fleet_pb2.Ack]] | None = None  # the nonce of the batch under way
        self.outbound: deque[fleet_pb2.ConnectResponse] = deque()  # sent after the batch under way
        self.has_commands = True  # there may be some to send
        self._view = view
        self._slice: dict[str, str] = {}  # id -> kind
        self._dirty: dict[str, str] = {}
        self._send_all = True
        self._woken = asyncio.Event()
        self._woken.set()

    def end(self, ending: Ending) -> None:
        """Ends the session. Only the first ending is told to the agent."""
        if not self.ending.done():
            self.ending.set_result(ending)
        self.finished.set()

    async def add_holdings(self, holdings: Collection[fleet_pb2.Holding]) -> None:
        """Adds to the agent's holdings. Raises Ending when there are more than any slice has."""
        if len(self.holdings) + len(holdings) > MAX_HOLDINGS:
            remedy = "stop it, empty its state and start it again"
            raise protocol_error(f"the agent says it holds more than {MAX_HOLDINGS} objects; {remedy}")
        async for item in in_slices(holdings):
            if len(item.id) > MAX_ID_CHARS:
                problem = f"the agent holds something with an id of {len(item.id)} characters"
                raise protocol_error(f"{problem}; ids have {MAX_ID_CHARS} at most")
            self.holdings[item.id] = (item.generation, item.gone)

    def expect_ack(self, nonce: str) -> "asyncio.Future[fleet_pb2.Ack]":
        """Returns the future of the batch's ack. Called before its last part is sent."""
        acked: asyncio.Future[fleet_pb2.Ack] = asyncio.get_running_loop().create_future()
        self._ack = nonce, acked
        return acked

    def take_ack(self, ack: fleet_pb2.Ack) -> None:
        """Takes the ack of the batch under way. Raises Ending for any other: a second one, or one of another batch."""
        if self._ack is None:
            raise protocol_error("an ack came while no batch is under way; send one for each, after its last part")
        nonce, acked = self._ack
        if ack.nonce != nonce:
            raise protocol_error("the ack names another batch than the one under way; send the nonce of its last part")
        self._ack = None
        self.ack_stored.clear()
        acked.set_result(ack)

    def kind_of(self, id_: str) -> str:
        """The kind of a resource in the agent's slice; empty for any other."""
        return self._slice.get(id_, "")

    def drop(self, id_: str, drop: Drop) -> None:
        """Counts a report that is dropped, and logs the first for each reason."""
        DROPPED.labels(drop.reason).inc()
        noun = CONTRACT.kinds[kind].command if (kind := self.kind_of(id_)) else "object"
        counted = self.dropped.get(drop.reason)
        if counted is None:
            message = f"{noun} {id_[:MAX_ID_CHARS]}: {drop.message}"[:MAX_TEXT_CHARS]
            counted = self.dropped[drop.reason] = agent_pb2.DroppedReports(reason=drop.reason, message=message)
            log.warning("report.dropped", agent=self.agent, reason=str(drop.reason), message=message)
        counted.count += 1

    def mark_changed(self, id_: str, kind: str) -> None:
        """Notes that this resource of the slice may have changed or, without a kind, has left the slice."""
        self._dirty[id_] = kind
        self._woken.set()

    def enqueue(self, response: fleet_pb2.ConnectResponse) -> bool:
        """Queues a message. Returns False when the queue is full, because the agent reads too slowly."""
        if len(self.outbound) >= MAX_OUTBOUND:
            return False
        self.outbound.append(response)
        self._woken.set()
        return True

    def notify_commands(self) -> None:
        """Notes that commands for the agent may have been added."""
        self.has_commands = True
        self._woken.set()

    async def wait_for_change(self, timeout_s: float | None = None) -> None:
        """Returns when something may have changed since the last difference, or after the timeout."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._woken.wait()

    def difference(self) -> tuple[list[fleet_pb2.Object], list[str]]:
        """Returns objects to send, referenced ones first, and ids to remove. Clears `_dirty`."""
        self._woken.clear()
        if self._send_all:
            members = reach_of_kinds().slice(self._view, self.agent)
            self._slice.clear()
        else:
            members = {(kind, id_) for id_, kind in self._dirty.items() if kind}
            for id_ in self._dirty:
                self._slice.pop(id_, None)
        ids = {id_: kind for kind, id_ in members}
        candidates = self.holdings if self._send_all else self._dirty
        removed = [id_ for id_ in candidates if id_ in self.holdings and id_ not in ids]
        self._slice |= ids
        self._dirty, self._send_all = {}, False
        self.slice_known.set()
        objects = []
        for kind, id_ in sorted(members, key=lambda member: (reach_of_kinds().order[member[0]], member[1])):
            entry = self._view.entries(kind).get(id_)
            if entry is not None:
                described = _described(kind, entry.data)
                held, current = self.holdings.get(id_), (described.generation, described.gone)
                if held != current:
                    objects.append(described)
                    if held is not None:
                        self.holdings[id_] = listed(held, current)
        return objects, removed

    def batch_stored(self, objects: list[fleet_pb2.Object], removed: list[str], revision: int) -> None:
        """Updates the holdings after the agent has acked a difference."""
        for object_ in objects:
            self.holdings[object_.id] = (object_.generation, object_.gone)
        for id_ in removed:
            self.holdings.pop(id_, None)
        self.held_revision = revision
        self.ack_stored.set()

    def batch_refused(self) -> None:
        """Has the whole slice compared next time, after the agent has refused a difference."""
        self._send_all = True
        self.ack_stored.set()


def describe(resource: Message) -> fleet_pb2.Object:
    """A resource as sent to agents: without reported fields and labels, so that one generation has one content."""
    head = meta(resource)
    gone, generation = head.HasField("delete_time"), head.generation
    for changing in ("conditions", "observed_generation", "state", "revision", "etag", "update_time"):
        head.ClearField(changing)
    clear(resource, "labels", "status")
    return fleet_pb2.Object(id=head.id, generation=generation, gone=gone, resource=resources.pack(resource))


@lru_cache(64)
def _described(kind: str, data: bytes) -> fleet_pb2.Object:
    """Returns what `describe` does of a stored resource; many sessions may send the same one after a commit."""
    return describe(message_class(kind).FromString(data))


def batches(objects: list[fleet_pb2.Object], removed: list[str], revision: int) -> Iterator[fleet_pb2.ConnectResponse]:
    """Yields a difference in parts of at most MAX_BATCH_BYTES (but for a single larger object) and MAX_BATCH_ITEMS."""
    nonce, size, count = uuid.uuid4().hex, 0, 0
    part = fleet_pb2.Batch(nonce=nonce, revision=revision)
    items: list[fleet_pb2.Object | str] = [*objects, *removed]
    for item in items:
        more = WIRE_OVERHEAD_BYTES + (len(item) if isinstance(item, str) else item.ByteSize())
        if size and (size + more > MAX_BATCH_BYTES or count == MAX_BATCH_ITEMS):
            yield fleet_pb2.ConnectResponse(batch=part)
            part, size, count = fleet_pb2.Batch(nonce=nonce, revision=revision), 0, 0
        size += more
        count += 1
        if isinstance(item, str):
            part.removed.append(item)
        else:
            part.objects.append(item)
    part.last = True
    yield fleet_pb2.ConnectResponse(batch=part)


async def in_slices(items: Collection[T]) -> AsyncIterator[T]:
    """Yields the items of a message; others get their turn after every SLICE_SIZE of them."""
    rest = iter(items)
    while some := list(islice(rest, SLICE_SIZE)):
        for item in some:
            yield item
        await asyncio.sleep(0)
