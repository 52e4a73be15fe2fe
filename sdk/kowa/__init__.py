"""Kowabunga's Python SDK: the contracts' stubs, a client, and what both agents stand on."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kowa.client import AsyncClient, Client

__all__ = ["AsyncClient", "Client"]


def __getattr__(name: str) -> Any:
    """The clients, imported when asked for: they bring grpc, which kowactl's help does without."""
    if name in __all__:
        from kowa import client

        return getattr(client, name)
    raise AttributeError(f"module 'kowa' has no attribute {name!r}")
