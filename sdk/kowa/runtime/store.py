"""The agent's desired state on disk, from which it works while Kahuna is unreachable."""

import contextlib
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from kowa.fleet.v1 import fleet_pb2
from kowa.runtime.state import connect

_SCHEMA = """
CREATE TABLE IF NOT EXISTS object (id TEXT PRIMARY KEY, data BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS fact (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
"""


class Holdings:
    """The agent's slice as last accepted. `store` is atomic."""

    def __init__(self, folder: Path) -> None:
        # If it is damaged, Kahuna sends everything again, and nothing on the host is touched because of that.
        self._connection = connect(folder / "holdings.db", self._read)

    def _read(self, connection: sqlite3.Connection) -> None:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.executescript(_SCHEMA)
        rows = connection.execute("SELECT id, data FROM object")
        self.objects: dict[str, fleet_pb2.Object] = {id_: fleet_pb2.Object.FromString(data) for id_, data in rows}
        row = connection.execute("SELECT value FROM fact WHERE name = 'incarnation'").fetchone()
        self.incarnation = str(row[0]) if row else ""

    def merged(self, put: Iterable[fleet_pb2.Object], removed: Iterable[str]) -> Mapping[str, fleet_pb2.Object]:
        """The objects as they would be after a change."""
        removed_ids = set(removed)
        kept = {id_: stored for id_, stored in self.objects.items() if id_ not in removed_ids}
        return kept | {object_.id: object_ for object_ in put}

    def store(self, put: Iterable[fleet_pb2.Object], removed: Iterable[str]) -> None:
        """Stores a change durably. Raises OSError, and changes nothing, when the write fails."""
        put, removed = list(put), list(removed)
        with self._durably() as connection:
            connection.executemany("DELETE FROM object WHERE id = ?", [(id_,) for id_ in removed])
            connection.executemany(
                "INSERT OR REPLACE INTO object VALUES (?, ?)", [(item.id, item.SerializeToString()) for item in put]
            )
        self.objects = dict(self.merged(put, removed))

    def start_incarnation(self, incarnation: str) -> None:
        """Records a new incarnation of Kahuna's store, and drops the objects of the old; the host is not touched.

        Raises OSError as `store` does.
        """
        with self._durably() as connection:
            connection.execute("DELETE FROM object")
            connection.execute("INSERT OR REPLACE INTO fact VALUES ('incarnation', ?)", (incarnation,))
        self.objects, self.incarnation = {}, incarnation

    def close(self) -> None:
        """Closes the database."""
        self._connection.close()

    @contextlib.contextmanager
    def _durably(self) -> Iterator[sqlite3.Connection]:
        try:
            with self._connection:  # commits, or rolls back
                self._connection.execute("BEGIN IMMEDIATE")
                yield self._connection
        except sqlite3.Error as error:
            raise OSError(f"the agent can't store it: {error}") from error
