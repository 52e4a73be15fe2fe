"""The agents that the kinds reach, as their tables declare."""

from functools import cache

from kahuna.domain.reach import Paths, Reach
from kahuna.store.resource import CONTRACT, TABLES


def paths_of_kinds() -> dict[str, Paths]:
    """Returns the paths of each kind that has some."""
    found = {kind: Paths(table.reaches, table.informs) for kind, table in TABLES.items()}
    return {kind: paths for kind, paths in found.items() if any(paths)}


@cache
def reach_of_kinds() -> Reach:
    """Returns the compiled paths of all kinds. Raises ValueError for a path that does not fit the contract."""
    return Reach({kind.name: kind.message.references for kind in CONTRACT.kinds.values()}, paths_of_kinds())
