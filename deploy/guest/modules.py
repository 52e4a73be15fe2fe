"""Kernel modules in the order in which they load."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path


def load_order(modules: Path, names: Iterable[str]) -> list[Path]:
    """The files of the named modules, each after its dependencies. Modules built into the kernel are left out."""
    files = {_name(file.stem): file for file in modules.rglob("*.ko")}
    order: dict[str, Path] = {}

    def add(name: str) -> None:
        if name in order or name not in files:
            return
        for needed in _depends(files[name]):
            add(needed)
        order[name] = files[name]

    for name in names:
        add(_name(name))
    return list(order.values())


def _depends(module: Path) -> list[str]:
    found = re.search(rb"\0depends=([^\0]+)\0", module.read_bytes())
    return [_name(name) for name in found[1].decode().split(",")] if found else []


def _name(module: str) -> str:
    return module.replace("-", "_")
