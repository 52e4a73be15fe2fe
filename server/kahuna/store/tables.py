"""All tables, so that whoever needs the whole schema has one import."""

from kahuna.store import (
    adapter,
    agent,
    agent_token,
    audit,
    command,
    credential,
    gone,
    instance,
    kaktus,
    kiwi,
    log,
    operation,
    project,
    region,
    request,
    storage_pool,
    subnet,
    template,
    vnet,
    volume,
    zone,
)
from kahuna.store.resource import TABLES

__all__ = [
    "TABLES", "adapter", "agent", "agent_token", "audit", "command", "credential", "gone", "instance", "kaktus", "kiwi",
    "log", "operation", "project", "region", "request", "storage_pool", "subnet", "template", "vnet", "volume", "zone",
]  # fmt: skip
