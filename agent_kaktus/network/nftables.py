"""nftables: what a table of ours holds, and fingerprints of rules, which stand as a comment on each rule."""

import hashlib
import json
from typing import Any

from agent_kaktus import process


def fingerprint(rules: str) -> str:
    """A short digest of the text of rules."""
    return hashlib.sha256(rules.encode()).hexdigest()[:16]


async def load(script: str) -> None:
    """Carries out a script as one transaction. Raises StepFailed."""
    await process.run("nft", "-f", "-", stdin_text=script)


async def list_table(family: str, name: str) -> list[dict[str, Any]] | None:
    """The chains, rules and sets in a table; None where there is no such table. Raises StepFailed."""
    tables = _items(await process.run("nft", "-j", "list", "tables", family))
    if not any(item.get("table", {}).get("name") == name for item in tables):
        return None
    return _items(await process.run("nft", "-j", "list", "table", family, name))


def _items(listing: str) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = json.loads(listing)["nftables"]
    return items
