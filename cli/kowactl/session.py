"""One command's connection and lookups, whose modules are imported on first use so that help is quick, and its wait."""

from functools import cached_property
from os import environ
from time import monotonic
from typing import TYPE_CHECKING

import click

from kowa import errors
from kowactl.terminal import escaped, print_message

if TYPE_CHECKING:
    from kowa.client import Client
    from kowa.v2.operation_pb2 import Operation
    from kowactl.references import References

POLL_INTERVAL_S = 1.0


class Session:
    """Kahuna's address, the client, and lookups by name."""

    def __init__(self, endpoint: str | None, ca: str | None, insecure: bool) -> None:
        self._endpoint, self._ca, self._insecure = endpoint, ca, insecure

    @cached_property
    def client(self) -> "Client":
        """The client. Raises click.UsageError when a setting of the environment is missing or malformed."""
        if not environ.get("KOWABUNGA_API_KEY", "").strip():
            raise click.UsageError("set KOWABUNGA_API_KEY to the key to sign in with")
        if not (self._endpoint or environ.get("KOWABUNGA_ENDPOINT", "")).strip():
            raise click.UsageError("set KOWABUNGA_ENDPOINT (or give --endpoint), such as kahuna.example:443")
        from kowa.client import Client

        command = click.get_current_context()
        reason = command.params.get("reason") or ""
        try:
            client = Client(self._endpoint, ca=self._ca, insecure=self._insecure, reason=reason)
        except OSError as error:
            raise click.UsageError(f"KOWABUNGA_CA (or --ca) can't be read: {error}") from None
        except UnicodeError:  # in an argument; main() reports it
            raise
        except ValueError as error:
            raise click.UsageError(str(error)) from None
        command.call_on_close(client.close)
        return client

    @cached_property
    def references(self) -> "References":
        """Lookups of ids by name, and of names by id."""
        from kowactl.references import References

        return References(self.client)

    def follow(self, operation_id: str, timeout_s: float) -> "Operation":
        """Returns the operation when it is done; until then it shows the progress on stderr.

        Raises OperationFailed when it ended otherwise, OperationPending when the time is up, Unavailable when Kahuna is
        unreachable then.
        """
        from rich.console import Console
        from rich.text import Text

        deadline, shown = monotonic() + timeout_s, ""
        console = Console(stderr=True, highlight=False)
        with console.status("") as status:
            while True:
                try:
                    seconds = min(POLL_INTERVAL_S, max(0.0, deadline - monotonic()))
                    return self.client.operations.wait(operation_id, seconds)
                except (errors.OperationPending, errors.Unavailable) as error:
                    if monotonic() >= deadline:
                        raise
                    state = "Kahuna is unreachable; waiting for it"
                    if isinstance(error, errors.OperationPending):
                        operation = error.operation
                        percent = f" {operation.progress} %" if operation.progress else ""
                        reason = operation.message or "under way"
                        state = escaped(f"{operation.method} {operation.target_name}{percent}: {reason}")
                status.update(Text(state))
                if state != shown and not console.is_terminal:
                    print_message(state)
                shown = state
