"""Operations: read, awaited, cancelled; never created by a caller."""

import asyncio
import contextlib

from google.protobuf.message import Message

from kahuna.api.service import Context, StandardMethods, cause_of
from kahuna.domain.errors import invalid
from kahuna.domain.lifecycle import OPEN
from kahuna.store import commands, operations
from kahuna.store.transaction import Transaction
from kowa import contract
from kowa.v2 import operation_pb2

WAIT = 30
LONGEST_WAIT = 3600


class OperationService(StandardMethods):
    """What was asked for and how it went."""

    kind = "Operation"

    async def wait(
        self, request: operation_pb2.WaitOperationRequest, context: Context, method: contract.Method
    ) -> Message:
        """The operation once it has ended, or as it stands when the time is up."""
        limit = request.timeout.seconds + request.timeout.nanos / 1e9 if request.HasField("timeout") else WAIT
        if not 0 <= limit <= LONGEST_WAIT:
            raise invalid("timeout", f"is {limit:g} s, 0 to {LONGEST_WAIT} s can be waited for")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit):
                while (await self.get(request, context, method)).phase in OPEN:  # type: ignore[attr-defined]
                    await self.store.view.moved()
        return await self.get(request, context, method)

    async def cancel(
        self, request: operation_pb2.CancelOperationRequest, context: Context, method: contract.Method
    ) -> Message:
        """Nobody waits for it any more; an ended one stays as it ended."""
        cause = cause_of(method)

        def work(tx: Transaction) -> Message:
            operation = tx.get(self.kind, request.id)
            assert isinstance(operation, operation_pb2.Operation)
            if operation.phase in OPEN:
                if operation.command:
                    commands.withdraw(tx, operation.meta.id)
                operations.cancel(tx, cause, operation)
            return tx.get(self.kind, request.id)

        return await self.store.run(work)
