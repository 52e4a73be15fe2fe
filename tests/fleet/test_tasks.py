"""Tasks have an owner: the first that is done ends the others, and what is closed leaves none behind."""

import asyncio

import pytest

from kowa.runtime.tasks import Tasks, first_done, until_first_done


def test_the_first_that_is_done_ends_the_others() -> None:
    ended: list[str] = []

    async def forever() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("cancelled")

    async def fail() -> None:
        await asyncio.sleep(0)
        raise ValueError("no such disk")

    async def story() -> None:
        await first_done(forever(), asyncio.sleep(0))
        with pytest.raises(ValueError, match="no such disk"):
            await first_done(forever(), fail())
        lost = await until_first_done(fail(), forever(), asyncio.sleep(0, "slept"))
        assert [type(outcome) for outcome in lost] == [ValueError, asyncio.CancelledError, str]
        theirs = asyncio.get_running_loop().create_future()
        await first_done(asyncio.shield(theirs), asyncio.sleep(0))
        assert not theirs.cancelled()

    asyncio.run(story())
    assert ended == ["cancelled"] * 3


def test_what_fails_ends_no_other_and_all_end_with_their_owner() -> None:
    async def fail() -> None:
        raise ValueError("no such disk")

    async def story() -> None:
        tasks = Tasks()
        waiting = tasks.spawn(asyncio.Event().wait(), "waits")
        await asyncio.wait([tasks.spawn(fail(), "fails")])
        assert not waiting.done()
        await tasks.close()
        assert waiting.cancelled()

    asyncio.run(story())
