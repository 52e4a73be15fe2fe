"""A proxy between Kahuna and its PostgreSQL that loses the answer to a commit when told to."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

_SOCKET = ".s.PGSQL.5432"


class LossyProxy:
    """A socket in front of a server's. `lose` lets a commit happen and its answer not arrive."""

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
        """Loses the answer to the commit of what bears a name; then closes so many connections before they speak."""
        self._refusals = refusing
        self._losing = name.encode()

    def close(self) -> None:
        """Takes no more connections."""
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.socket(socket.AF_UNIX)
                if self._refuses() or server.connect_ex(str(self._server)):
                    client.close()
                    continue
                doomed = threading.Event()
                threading.Thread(target=self._ask, args=(client, server, doomed), daemon=True).start()
                threading.Thread(target=self._answer, args=(server, client, doomed), daemon=True).start()

    def _refuses(self) -> bool:
        if not (self.lost and self._refusals):
            return False
        self._refusals -= 1
        return True

    def _ask(self, client: socket.socket, server: socket.socket, doomed: threading.Event) -> None:
        named = False
        with _ending(client, server):
            while data := client.recv(1 << 16):
                named = named or (bool(self._losing) and self._losing in data)
                if named and b"COMMIT" in data:
                    self._losing = b""
                    doomed.set()
                server.sendall(data)

    def _answer(self, server: socket.socket, client: socket.socket, doomed: threading.Event) -> None:
        with _ending(client, server):
            while data := server.recv(1 << 16):
                if doomed.is_set():
                    self.lost += 1
                    return
                client.sendall(data)


@contextlib.contextmanager
def _ending(*ends: socket.socket) -> Iterator[None]:
    """What one direction ends, the other shall notice."""
    try:
        with contextlib.suppress(OSError):
            yield
    finally:
        for end in ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
