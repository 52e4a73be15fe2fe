"""Operations: read, awaited and cancelled by callers. Kahuna alone creates them (kinds/tracking.py)."""

import asyncio
import contextlib

from kahuna.domain.errors import invalid
from kahuna.domain.lifecycle import OPEN_PHASES
from kahuna.kinds import command, tracking
from kahuna.kinds.kind import Call, Kind
from kahuna.kinds.verbs import answers_call
from kahuna.store.transaction import Transaction
from kowa.v2 import operation_pb2

WAIT_S = 30  # by default
MAX_WAIT_S = 3600


class Operations(Kind[operation_pb2.Operation], table=tracking.Operation):
    """Waits for operations and cancels them."""

    @answers_call
    async def wait(self, call: Call, request: operation_pb2.WaitOperationRequest) -> operation_pb2.Operation:
        """Returns the operation once it has ended, or as it is after the timeout."""
        timeout_s = request.timeout.seconds + request.timeout.nanos / 1e9 if request.HasField("timeout") else WAIT_S
        if not 0 <= timeout_s <= MAX_WAIT_S:
            raise invalid("timeout", f"is {timeout_s:g} s, 0 to {MAX_WAIT_S} s can be waited for")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while self.read(call, request.id).phase in OPEN_PHASES:
                    await self.platform.store.view.next_commit()
        return self.read(call, request.id)

    @answers_call
    async def cancel(self, call: Call, request: operation_pb2.CancelOperationRequest) -> operation_pb2.Operation:
        """Ends an open operation as CANCELLED; one that has ended is returned unchanged."""

        def work(tx: Transaction) -> operation_pb2.Operation:
            operation = self._visible(tx, call.cause, request.id)
            if operation.phase in OPEN_PHASES:
                if operation.command:
                    command.withdraw(tx, operation.meta.id)
                tracking.cancel(tx, call.cause, operation)
            return self._visible(tx, call.cause, request.id)

        return await self.platform.store.run(work)
