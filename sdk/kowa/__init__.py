"""Kowabunga's Python SDK: the contracts' stubs, the clients, and the runtime that both agents share."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kowa.aio import AsyncClient
    from kowa.client import Client

__all__ = ["AsyncClient", "Client"]


def __getattr__(name: str) -> Any:
    """Imports a client when it is first used: clients import grpc, which kowactl's help does without."""
    if name not in __all__:
        raise AttributeError(f"module 'kowa' has no attribute {name!r}")
    return getattr(import_module("kowa.client" if name == "Client" else "kowa.aio"), name)
