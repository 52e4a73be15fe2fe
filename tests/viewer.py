"""A user at a machine's console."""

import threading

from kowa import errors
from kowa.client import Client
from tests.waiting import until


class Viewer:
    """Looks in a thread of their own, and types."""

    def __init__(self, endpoint: str, key: str, instance: str, *, reason: str = "") -> None:
        self.seen = bytearray()
        self.session = ""
        self.error = ""
        self.typed = 0
        self._client, self._instance = Client(endpoint, key=key, insecure=True, reason=reason), instance
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def _look(self) -> None:
        try:
            for response in self._client.instances.console(self._instance):
                self.session = self.session or response.session
                self.seen += response.data
        except errors.KowaError as error:
            self.error = str(error)

    def until(self, shows: bytes, limit: float = 10) -> None:
        """Waits until the machine has printed it."""
        until(lambda: shows in self.seen, timeout=limit, what=f"{shows!r} on the console")

    def type(self, keys: bytes) -> None:
        """Types what comes next."""
        self.typed = self.send(self.typed, keys)

    def send(self, offset: int, keys: bytes) -> int:
        """Types at an offset. Says how many bytes were taken since the beginning."""
        call = self._client.instances.type_console
        return int(call(self._instance, session=self.session, offset=offset, data=keys).offset)

    def answer(self, offset: int, keys: bytes) -> str:
        """What is answered to keys at an offset: how many were taken, or the reason and the offset to go on from."""
        try:
            self.typed = self.send(offset, keys)
        except errors.KowaError as refused:
            return f"{refused.reason}:{refused.metadata.get('offset', '')}"
        return str(self.typed)

    def resize(self, rows: int, columns: int) -> None:
        """Makes their terminal so large."""
        self._client.instances.resize_console(self._instance, session=self.session, rows=rows, columns=columns)

    def leave(self) -> None:
        """Looks no more."""
        self._client.close()
        self._thread.join(10)

    def has_ended(self) -> bool:
        """Whether they look at nothing any more."""
        return not self._thread.is_alive()
