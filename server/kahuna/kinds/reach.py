"""Whom the kinds reach, as each declares it (`kinds/kind.py`)."""

from functools import cache

from kahuna.domain.reach import Paths, Reach
from kahuna.store.resource import CONTRACT

PATHS: dict[str, Paths] = {}


@cache
def reach_of_kinds() -> Reach:
    """The paths of all kinds, compiled. Raises ValueError for what is no path over the contract's references."""
    return Reach({kind.name: kind.references for kind in CONTRACT.kinds.values()}, PATHS)
