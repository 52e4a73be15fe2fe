"""A PostgreSQL of the tests' own, on a socket, without fsync. It refuses root, so root starts it as its own user."""

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
    """A running server. `database` makes a new, empty database and returns its URL."""

    def __init__(self, folder: Path, user: str) -> None:
        self.folder, self._user = folder, user

    def database(self) -> str:
        """An SQLAlchemy URL."""
        name = f"test_{uuid.uuid4().hex}"
        self.run(_program("createdb"), "-h", str(self.folder), "-U", self._user, name)
        return f"postgresql+psycopg://{self._user}@/{name}?host={self.folder}"

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """Away for a while, as after a power cut."""
        self.stop()
        try:
            yield
        finally:
            self.start()

    def start(self) -> None:
        """Returns when it serves."""
        options = f"-k {self.folder} -c listen_addresses='' -c fsync=off -c max_connections=100"
        self._control("-w", "-l", str(self.folder / "log"), "-o", options, "start")

    def stop(self) -> None:
        """At once."""
        self._control("-m", "immediate", "stop")

    def _control(self, *command: str) -> None:
        self.run(_program("pg_ctl"), "-D", str(self.folder / "data"), *command)

    def run(self, *command: str) -> None:
        """Runs one of its programs as its user."""
        subprocess.run(_as(self._user, *command), check=True, capture_output=True, cwd="/")


@contextlib.contextmanager
def postgres() -> Iterator[Postgres]:
    """A server for the time of a test run."""
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
    """The newest installed server's program; Debian keeps them off the PATH."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: int(path.parts[4]))
    assert found, f"no {name}: `make setup` installs PostgreSQL"
    return str(found[-1])
