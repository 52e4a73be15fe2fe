"""A PostgreSQL for the tests, on a socket, without fsync. It refuses root, so root starts it as user postgres."""

import contextlib
import os
import pwd
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

USER = "postgres"


class Postgres:
    """A running server."""

    def __init__(self, folder: Path, user: str) -> None:
        self.folder, self._user = folder, user

    def database(self) -> str:
        """Creates an empty database; returns its SQLAlchemy URL."""
        name = f"test_{uuid.uuid4().hex}"
        self.run(_program("createdb"), "-h", str(self.folder), "-U", self._user, name)
        return f"postgresql+psycopg://{self._user}@/{name}?host={self.folder}"

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """Stops the server for the time of the block, as after a power cut."""
        self.stop()
        try:
            yield
        finally:
            self.start()

    def start(self) -> None:
        """Starts the server; returns when it accepts connections."""
        options = f"-k {self.folder} -c listen_addresses='' -c fsync=off -c max_connections=100"
        self._control("-w", "-l", str(self.folder / "log"), "-o", options, "start")

    def stop(self) -> None:
        """Stops the server at once, without a checkpoint."""
        self._control("-m", "immediate", "stop")

    def _control(self, *command: str) -> None:
        self.run(_program("pg_ctl"), "-D", str(self.folder / "data"), *command)

    def run(self, *command: str) -> None:
        """Runs one of PostgreSQL's programs as its user."""
        subprocess.run(_as(self._user, *command), check=True, capture_output=True, cwd="/")


@contextlib.contextmanager
def postgres() -> Iterator[Postgres]:
    """A server that stops at the end of the block."""
    user = USER if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
    folder = Path(tempfile.mkdtemp(prefix="test-pg-"))
    try:
        shutil.chown(folder, user)
        server = Postgres(folder, user)
        data = str(folder / "data")
        server.run(_program("initdb"), "-D", data, "-U", user, "--auth=trust", "--no-sync", "--encoding=UTF8")
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _as(user: str, *command: str) -> list[str]:
    if os.geteuid() != 0:
        return [*command]
    entry = pwd.getpwnam(user)
    return ["setpriv", f"--reuid={entry.pw_uid}", f"--regid={entry.pw_gid}", "--clear-groups", *command]


def _program(name: str) -> str:
    """The path of a program of the newest installed server; Debian's are not on the PATH."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: int(path.parts[4]))
    assert found, f"no {name}: `make setup` installs PostgreSQL"
    return str(found[-1])
