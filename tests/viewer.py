"""A user at an instance's console."""

import threading

from kowa import errors
from kowa.client import Client
from tests.waiting import until


class Viewer:
    """Reads the console in a thread, and types."""

    def __init__(self, endpoint: str, key: str, instance: str, *, reason: str = "") -> None:
        self.output = bytearray()
        self.session = ""
        self.error = ""
        self.accepted_bytes = 0
        self._client, self._instance = Client(endpoint, key=key, insecure=True, reason=reason), instance
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def _look(self) -> None:
        try:
            for response in self._client.instances.console(self._instance):
                self.session = self.session or response.session
                self.output += response.data
        except errors.KowaError as error:
            self.error = str(error)

    def until(self, expected: bytes, timeout: float = 10) -> None:
        """Waits until the instance has printed it."""
        until(lambda: expected in self.output, timeout=timeout, what=f"{expected!r} on the console")

    def type(self, keys: bytes) -> None:
        """Types keys after those accepted so far."""
        self.accepted_bytes = self.send(self.accepted_bytes, keys)

    def send(self, offset: int, keys: bytes) -> int:
        """Types keys at an offset; returns the number of bytes accepted since the beginning."""
        call = self._client.instances.type_console
        return int(call(self._instance, session=self.session, offset=offset, data=keys).offset)

    def try_send(self, offset: int, keys: bytes) -> str:
        """The result of keys at an offset: the number of bytes accepted, or the error's reason and next offset."""
        try:
            self.accepted_bytes = self.send(offset, keys)
        except errors.KowaError as refused:
            return f"{refused.reason}:{refused.metadata.get('offset', '')}"
        return str(self.accepted_bytes)

    def resize(self, rows: int, columns: int) -> None:
        """Resizes the terminal."""
        self._client.instances.resize_console(self._instance, session=self.session, rows=rows, columns=columns)

    def leave(self) -> None:
        """Closes the console."""
        self._client.close()
        self._thread.join(10)

    def has_ended(self) -> bool:
        """Whether the console has ended."""
        return not self._thread.is_alive()
