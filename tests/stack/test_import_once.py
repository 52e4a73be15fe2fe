"""A template is imported once, though the look that asks for it be older than the end of its import."""

import asyncio
import hashlib
from pathlib import Path
from typing import Any

from agent_kaktus.desired import Template
from agent_kaktus.hands import Hands
from agent_kaktus.site import Site
from agent_kaktus.steps import ImportTemplate
from agent_kaktus.storage.dir import DirPools
from agent_kaktus.storage.source import Sources
from agent_kaktus.storage.template import Imports
from tests.kaktus.slices import id_of
from tests.stack.stack import SECTOR, TINY


def test_asked_for_again_it_is_not_fetched_again(tmp_path: Path) -> None:
    (tmp_path / TINY).write_bytes(SECTOR)
    site = Site(pools=tmp_path / "pools", machines=tmp_path / "machines")
    pools = DirPools(tmp_path / "pools", tmp_path / "made")
    pools.look()
    pools.make_pool(id_of("pool"))
    checksum = hashlib.sha256(SECTOR).hexdigest()
    template = Template(id_of("tiny"), 1, False, "tiny", id_of("pool"), TINY, checksum)
    ends: list[str] = []

    async def ask_twice() -> None:
        ended = asyncio.Event()

        def end(_: Template, reason: str) -> None:
            ends.append(reason)
            ended.set()

        imports = Imports(pools, Sources(tmp_path), end, lambda _: None)
        nothing: Any = None
        hands = Hands(site, nothing, pools, imports, nothing)
        step = ImportTemplate(template)
        await hands.do(step, nothing)
        await ended.wait()
        await hands.do(step, nothing)
        assert not imports.percent
        await imports.close()

    asyncio.run(ask_twice())
    assert ends == [""]
