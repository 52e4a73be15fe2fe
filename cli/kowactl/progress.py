"""Waiting for an operation, with what it waits for on stderr."""

from time import monotonic
from typing import TYPE_CHECKING

import click

from kowactl.terminal import harmless

if TYPE_CHECKING:
    from kowa.client import Client
    from kowa.v2 import operation_pb2

STEP = 1.0  # seconds between two looks


def follow(client: "Client", operation_id: str, limit: float) -> "operation_pb2.Operation":
    """Returns the operation when it is done.

    Raises OperationFailed when it ended otherwise, OperationPending when the time is up.
    """
    from rich.console import Console
    from rich.text import Text

    from kowa.errors import OperationPending

    deadline, said = monotonic() + limit, ""
    console = Console(stderr=True, highlight=False)
    with console.status("") as status:
        while True:
            try:
                return client.operations.wait(operation_id, min(STEP, max(0.0, deadline - monotonic())))
            except OperationPending as pending:
                if monotonic() >= deadline:
                    raise
                state = sentence(pending.operation)
            status.update(Text(state))
            if state != said and not console.is_terminal:
                click.echo(state, err=True)
            said = state


def sentence(operation: "operation_pb2.Operation") -> str:
    """Where it stands, in words."""
    share = f" {operation.progress} %" if operation.progress else ""
    return harmless(f"{operation.method} {operation.target_name}{share}: {operation.message or 'under way'}")
