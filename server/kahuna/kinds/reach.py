"""Whom the kinds reach, as their tables say."""

from functools import cache

from kahuna.domain.reach import Paths, Reach
from kahuna.store.resource import CONTRACT, TABLES


def paths_of_kinds() -> dict[str, Paths]:
    """The paths of each kind that reaches anybody."""
    found = {kind: Paths(table.reaches, table.informs) for kind, table in TABLES.items()}
    return {kind: paths for kind, paths in found.items() if any(paths)}


@cache
def reach_of_kinds() -> Reach:
    """The paths of all kinds, compiled. Raises ValueError for what is no path over the contract's references."""
    return Reach({kind.name: kind.references for kind in CONTRACT.kinds.values()}, paths_of_kinds())
