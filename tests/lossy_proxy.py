"""A proxy between Kahuna and its PostgreSQL that can lose the response to a commit."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

_SOCKET = ".s.PGSQL.5432"


class LossyProxy:
    """A socket in front of the server's. After `lose`, a commit happens, but its response does not arrive."""

    def __init__(self, server: Path, folder: Path) -> None:
        self.folder = folder
        self.lost = 0
        self._server = server / _SOCKET
        self._losing = b""
        self._refusals = 0
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(folder / _SOCKET))
        self._listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def lose(self, name: str, *, refusing: int = 0) -> None:
        """Loses the response to the next commit whose SQL contains `name`; then refuses `refusing` connections."""
        self._refusals = refusing
        self._losing = name.encode()

    def close(self) -> None:
        """Accepts no more connections."""
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.socket(socket.AF_UNIX)
                if self._refuses() or server.connect_ex(str(self._server)):
                    client.close()
                    continue
                drop_response = threading.Event()
                ends = (client, server, drop_response)
                threading.Thread(target=self._forward_requests, args=ends, daemon=True).start()
                threading.Thread(target=self._forward_responses, args=ends, daemon=True).start()

    def _refuses(self) -> bool:
        if not (self.lost and self._refusals):
            return False
        self._refusals -= 1
        return True

    def _forward_requests(self, client: socket.socket, server: socket.socket, drop_response: threading.Event) -> None:
        name_seen = False
        with _shut_down_both(client, server):
            while data := client.recv(1 << 16):
                name_seen = name_seen or (bool(self._losing) and self._losing in data)
                if name_seen and b"COMMIT" in data:
                    self._losing = b""
                    drop_response.set()
                server.sendall(data)

    def _forward_responses(self, client: socket.socket, server: socket.socket, drop_response: threading.Event) -> None:
        with _shut_down_both(client, server):
            while data := server.recv(1 << 16):
                if drop_response.is_set():
                    self.lost += 1
                    return
                client.sendall(data)


@contextlib.contextmanager
def _shut_down_both(*ends: socket.socket) -> Iterator[None]:
    """When one direction ends, shuts down both sockets, so that the other direction ends too."""
    try:
        with contextlib.suppress(OSError):
            yield
    finally:
        for end in ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
