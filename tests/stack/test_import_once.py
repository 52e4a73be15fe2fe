"""A template is imported once, also when a plan from before the end of its import starts it again."""

import asyncio
import hashlib
from pathlib import Path

from agent_kaktus.storage.dir import DirDriver
from agent_kaktus.storage.imports import Imports
from agent_kaktus.storage.source import Sources
from agent_kaktus.storage.template import Template
from tests.kaktus.settings_of import settings_of
from tests.kaktus.slices import id_of
from tests.stack.stack import SECTOR, TINY


def test_a_finished_import_is_not_repeated(tmp_path: Path) -> None:
    (tmp_path / TINY).write_bytes(SECTOR)
    pools = DirDriver(settings_of(tmp_path / "pools", tmp_path / "instances"), tmp_path / "created")
    checksum = hashlib.sha256(SECTOR).hexdigest()
    template = Template(id_of("tiny"), 1, False, "tiny", id_of("pool"), TINY, checksum)
    reasons: list[str] = []

    async def import_twice() -> None:
        ended = asyncio.Event()

        def end(_: Template, reason: str) -> None:
            reasons.append(reason)
            ended.set()

        await pools.observe()
        await pools.create_pool(id_of("pool"))
        imports = Imports(pools, Sources(tmp_path), end, lambda _: None)
        await imports.start(template)
        await ended.wait()
        await imports.start(template)
        assert not imports.percent
        await imports.close()

    asyncio.run(import_twice())
    assert reasons == [""]
