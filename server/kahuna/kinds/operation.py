"""Operations: read, awaited, cancelled; never created by a caller (they are kept in kinds/tracking.py)."""

import asyncio
import contextlib

from kahuna.domain.errors import invalid
from kahuna.domain.lifecycle import OPEN
from kahuna.kinds import command, tracking
from kahuna.kinds.kind import Call, Kind
from kahuna.kinds.verbs import answers_call
from kahuna.store.transaction import Transaction
from kowa.v2 import operation_pb2

WAIT_S = 30  # unless the caller says how long
MAX_WAIT_S = 3600


class Operations(Kind[operation_pb2.Operation], table=tracking.Operation):
    """What was asked for and how it went."""

    @answers_call
    async def wait(self, call: Call, request: operation_pb2.WaitOperationRequest) -> operation_pb2.Operation:
        """The operation once it has ended, or as it stands when the time is up."""
        limit = request.timeout.seconds + request.timeout.nanos / 1e9 if request.HasField("timeout") else WAIT_S
        if not 0 <= limit <= MAX_WAIT_S:
            raise invalid("timeout", f"is {limit:g} s, 0 to {MAX_WAIT_S} s can be waited for")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit):
                while self.read(call, request.id).phase in OPEN:
                    await self.platform.store.view.next_commit()
        return self.read(call, request.id)

    @answers_call
    async def cancel(self, call: Call, request: operation_pb2.CancelOperationRequest) -> operation_pb2.Operation:
        """Nobody waits for it any more; an ended one stays as it ended."""

        def work(tx: Transaction) -> operation_pb2.Operation:
            operation = self._seen(tx, call.cause, request.id)
            if operation.phase in OPEN:
                if operation.command:
                    command.withdraw(tx, operation.meta.id)
                tracking.cancel(tx, call.cause, operation)
            return self._seen(tx, call.cause, request.id)

        return await self.platform.store.run(work)
