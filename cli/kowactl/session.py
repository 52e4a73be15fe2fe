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
        self.reason = ""  # why, for those who ask later
        self._endpoint, self._ca, self._insecure = endpoint, ca, insecure
        self._opened = False

    @cached_property
    def client(self) -> "Client":
        """Raises click.UsageError when the environment doesn't say where Kahuna is, or says what can't be."""
        key, endpoint = _key(), _endpoint(self._endpoint or environ.get("KOWABUNGA_ENDPOINT", ""))
        from kowa.client import Client

        self._opened = True
        try:
            return Client(endpoint, key=key, ca=self._ca, insecure=self._insecure, reason=self.reason)
        except OSError as error:
            raise click.UsageError(f"KOWABUNGA_CA (or --ca) can't be read: {error}") from None

    @cached_property
    def references(self) -> "References":
        """Names and ids."""
        from kowactl.references import References

        return References(self.client)

    def close(self) -> None:
        """Ends the connection, if there is one."""
        if self._opened:
            self.client.close()


def _key() -> str:
    """The key, without what a file or a shell may have put around it."""
    key = environ.get("KOWABUNGA_API_KEY", "").strip()
    if not key:
        raise click.UsageError("set KOWABUNGA_API_KEY to the key to sign in with")
    if not (key.isascii() and key.isprintable()):
        raise click.UsageError("KOWABUNGA_API_KEY holds signs that no key has; set it to the key alone")
    return key


def _endpoint(text: str) -> str:
    """A host and a port; https:// before it says nothing new."""
    endpoint = text.strip()
    if not endpoint:
        raise click.UsageError("set KOWABUNGA_ENDPOINT (or give --endpoint), such as kahuna.example:443")
    place = endpoint.removeprefix("https://").rstrip("/")
    is_url = "://" in place and ":///" not in place  # dns:///host:port is gRPC's
    if is_url or (place != endpoint and "/" in place):
        raise click.UsageError(f"{endpoint} is no endpoint; write it as HOST:PORT, such as kahuna.example:443")
    return place
