"""The connection of one command, made when first needed: grpc takes longer to import than help takes to print."""

from functools import cached_property
from os import environ
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from kowa.client import Client
    from kowactl.references import References


class Session:
    """Where Kahuna is, and what speaks with it."""

    def __init__(self, endpoint: str | None, ca: str | None, insecure: bool) -> None:
        self._endpoint, self._ca, self._insecure = endpoint, ca, insecure

    @cached_property
    def client(self) -> "Client":
        """Raises click.UsageError when the environment doesn't say where Kahuna is, or says what can't be."""
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
        except UnicodeError:  # of what was typed; the edge tells of it
            raise
        except ValueError as error:
            raise click.UsageError(str(error)) from None
        command.call_on_close(client.close)
        return client

    @cached_property
    def references(self) -> "References":
        """Names and ids."""
        from kowactl.references import References

        return References(self.client)
