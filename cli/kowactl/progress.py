"""Waiting for an operation, with what it waits for on stderr."""

import contextlib
from collections.abc import Iterator
from time import monotonic
from typing import TYPE_CHECKING

from kowa import errors
from kowactl.terminal import escaped, print_message

if TYPE_CHECKING:
    from kowa.client import Client
    from kowa.v2 import operation_pb2

POLL_INTERVAL_S = 1.0
UNREACHABLE = "Kahuna is out of reach; waiting for it"


@contextlib.contextmanager
def committed(operation_id: str) -> Iterator[None]:
    """On leaving before the operation has ended, for whatever reason, prints how to find it again."""
    try:
        yield
    except (errors.OperationFailed, errors.OperationPending):  # they tell of it themselves
        raise
    except BaseException:
        found_with = f"kowactl operation wait {operation_id}"
        print_message(f"the change is committed and goes on; wait for it with: {found_with}")
        raise


def follow(client: "Client", operation_id: str, limit: float) -> "operation_pb2.Operation":
    """Returns the operation when it is done.

    Raises OperationFailed when it ended otherwise, OperationPending when the time is up, Unavailable when Kahuna is
    away then.
    """
    from rich.console import Console
    from rich.text import Text

    deadline, said = monotonic() + limit, ""
    console = Console(stderr=True, highlight=False)
    with console.status("") as status:
        while True:
            try:
                return client.operations.wait(operation_id, min(POLL_INTERVAL_S, max(0.0, deadline - monotonic())))
            except (errors.OperationPending, errors.Unavailable) as error:
                if monotonic() >= deadline:
                    raise
                state = sentence(error.operation) if isinstance(error, errors.OperationPending) else UNREACHABLE
            status.update(Text(state))
            if state != said and not console.is_terminal:
                print_message(state)
            said = state


def sentence(operation: "operation_pb2.Operation") -> str:
    """Where it stands, in words."""
    share = f" {operation.progress} %" if operation.progress else ""
    return escaped(f"{operation.method} {operation.target_name}{share}: {operation.message or 'under way'}")
