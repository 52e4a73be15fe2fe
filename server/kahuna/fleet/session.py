"""One agent's session: what it holds, what has changed for it, and the batch under way."""

import asyncio
import contextlib
import time
import uuid
from collections import deque
from collections.abc import Iterable, Iterator

import structlog
from google.protobuf.message import Message

from kahuna.domain.errors import Refusal
from kahuna.kinds.reach import reach_of_kinds
from kahuna.store.resource import clear, meta
from kahuna.store.view import View
from kowa import resources
from kowa.fleet.v1 import fleet_pb2

log = structlog.get_logger()

MAX_BATCH_BYTES = 1 << 20  # of a batch's part; one message stays below MAX_MESSAGE_BYTES with it
MAX_MESSAGE_BYTES = 4 << 20
WIRE_OVERHEAD_BYTES = 8  # of each object and id, at most
MAX_OUTBOUND = 64  # messages that wait for an agent that reads slowly
MAX_HOLDINGS, MAX_ID_CHARS = 100_000, 36  # objects that an agent may say it holds, and the length of an id of one
MAX_TEXT_CHARS = 1024  # of an agent's message that are kept


class Session:
    """What is sent is always the difference between the agent's slice now and what it is known to hold.

    Nothing is queued: `dirty` names what may differ, once each, and one batch at a time is under way.
    """

    def __init__(self, view: View, agent: str, token: str, epoch: int) -> None:
        self.agent, self.token, self.epoch = agent, token, epoch
        self.held: dict[str, tuple[int, bool]] = {}  # of what it holds: the generation, and whether it is marked
        self.held_revision = 0
        self.last_message_at = time.monotonic()
        self.stale = False
        self.end_reason: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.finished = asyncio.Event()  # by `end`, or because the stream closed
        self.holdings_read = asyncio.Event()  # the agent has said all that it holds
        self.slice_known = asyncio.Event()  # reports are only taken of what is in it
        self.outside_slice = 0  # reports of resources that are not in it
        self.acks: asyncio.Queue[fleet_pb2.Ack] = asyncio.Queue(1)
        self.outbound: deque[fleet_pb2.ConnectResponse] = deque()  # sent after the batch under way
        self.has_commands = True  # there may be some to send
        self._view = view
        self._slice: set[str] = set()
        self._dirty: dict[str, str] = {}
        self._send_all = True
        self._woken = asyncio.Event()
        self._woken.set()

    def end(self, why: str) -> None:
        """Ends the session; the agent is told why."""
        if not self.end_reason.done():
            self.end_reason.set_result(why)
        self.finished.set()

    def add_holdings(self, holdings: Iterable[fleet_pb2.Holding]) -> None:
        """Takes what the agent says it holds. Raises Refusal when that is more than any slice has."""
        for item in holdings:
            if len(item.id) > MAX_ID_CHARS:
                raise Refusal("INVALID_ARGUMENT", f"the agent holds something with an id of {len(item.id)} characters")
            self.held[item.id] = (item.generation, item.gone)
        if len(self.held) > MAX_HOLDINGS:
            remedy = "stop it, empty its state and start it again"
            raise Refusal("INVALID_ARGUMENT", f"the agent says it holds more than {MAX_HOLDINGS} objects; {remedy}")

    def concerns(self, id_: str) -> bool:
        """Whether the id is in the agent's slice. Counts and logs (once) those that are not."""
        if id_ in self._slice:
            return True
        self.outside_slice += 1
        if self.outside_slice == 1:
            log.warning("report.outside_slice", agent=self.agent, id=id_[:MAX_ID_CHARS])
        return False

    def touch(self, id_: str, kind: str) -> None:
        """This resource of the slice may have changed; without a kind, it belongs to the slice no more."""
        self._dirty[id_] = kind
        self._woken.set()

    def enqueue(self, response: fleet_pb2.ConnectResponse) -> bool:
        """Queues a message. False when the agent reads too slowly and the queue is full."""
        if len(self.outbound) >= MAX_OUTBOUND:
            return False
        self.outbound.append(response)
        self._woken.set()
        return True

    def touch_commands(self) -> None:
        """Commands for the agent may have been added."""
        self.has_commands = True
        self._woken.set()

    async def wait_for_change(self, limit: float | None = None) -> None:
        """Returns when something may have changed since the last difference, or when the time is up."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit):
                await self._woken.wait()

    def difference(self) -> tuple[list[fleet_pb2.Object], list[str]]:
        """Objects that the agent lacks or holds outdated, references first, and ids to remove. Clears `_dirty`."""
        self._woken.clear()
        if self._send_all:
            wanted = reach_of_kinds().slice(self._view, self.agent)
            self._slice.clear()
        else:
            wanted = {(kind, id_) for id_, kind in self._dirty.items() if kind}
            self._slice.difference_update(self._dirty)
        ids = {id_ for _, id_ in wanted}
        removed = [id_ for id_ in (self.held if self._send_all else self._dirty) if id_ in self.held and id_ not in ids]
        self._slice |= ids
        self._dirty, self._send_all = {}, False
        self.slice_known.set()
        objects = []
        for kind, id_ in sorted(wanted, key=lambda member: (reach_of_kinds().order[member[0]], member[1])):
            resource = self._view.find(kind, id_)
            if resource is not None:
                head = meta(resource)
                if self.held.get(id_) != (head.generation, head.HasField("delete_time")):
                    objects.append(describe(resource))
        return objects, removed

    def stored(self, objects: list[fleet_pb2.Object], removed: list[str], revision: int) -> None:
        """The agent has acked a difference."""
        for described in objects:
            self.held[described.id] = (described.generation, described.gone)
        for id_ in removed:
            self.held.pop(id_, None)
        self.held_revision = revision

    def refused(self) -> None:
        """The agent has refused a difference: the whole slice is compared anew next time."""
        self._send_all = True


def describe(resource: Message) -> fleet_pb2.Object:
    """A resource as agents get it: without what they report and labels, so that a generation always reads the same."""
    head = meta(resource)
    gone, generation = head.HasField("delete_time"), head.generation
    for changing in ("conditions", "observed_generation", "state", "revision", "etag", "update_time"):
        head.ClearField(changing)
    clear(resource, "labels", "status")
    return fleet_pb2.Object(id=head.id, generation=generation, gone=gone, resource=resources.pack(resource))


def batches(objects: list[fleet_pb2.Object], removed: list[str], revision: int) -> Iterator[fleet_pb2.ConnectResponse]:
    """A difference in parts of at most MAX_BATCH_BYTES (a single larger object apart), the last with its mark."""
    nonce, size = uuid.uuid4().hex, 0
    part = fleet_pb2.Batch(nonce=nonce, revision=revision)
    items: list[fleet_pb2.Object | str] = [*objects, *removed]
    for item in items:
        more = WIRE_OVERHEAD_BYTES + (len(item) if isinstance(item, str) else item.ByteSize())
        if size and size + more > MAX_BATCH_BYTES:
            yield fleet_pb2.ConnectResponse(batch=part)
            part, size = fleet_pb2.Batch(nonce=nonce, revision=revision), 0
        size += more
        if isinstance(item, str):
            part.removed.append(item)
        else:
            part.objects.append(item)
    part.last = True
    yield fleet_pb2.ConnectResponse(batch=part)
