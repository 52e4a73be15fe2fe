"""Groups of tasks: the first that is done cancels the others, and a closed group leaves none running."""

import asyncio

import pytest

from kowa.runtime.tasks import Tasks, first_done, until_first_done


def test_the_first_task_that_is_done_cancels_the_others() -> None:
    ended: list[str] = []

    async def forever() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("cancelled")

    async def fail() -> None:
        await asyncio.sleep(0)
        raise ValueError("no such disk")

    async def run() -> None:
        await first_done(forever(), asyncio.sleep(0))
        with pytest.raises(ValueError, match="no such disk"):
            await first_done(forever(), fail())
        outcomes = await until_first_done(fail(), forever(), asyncio.sleep(0, "slept"))
        assert [type(outcome) for outcome in outcomes] == [ValueError, asyncio.CancelledError, str]
        shielded = asyncio.get_running_loop().create_future()
        await first_done(asyncio.shield(shielded), asyncio.sleep(0))
        assert not shielded.cancelled()

    asyncio.run(run())
    assert ended == ["cancelled"] * 3


def test_a_failing_task_does_not_end_others_and_closing_the_group_cancels_all() -> None:
    async def fail() -> None:
        raise ValueError("no such disk")

    async def run() -> None:
        tasks = Tasks()
        waiting = tasks.spawn(asyncio.Event().wait(), "waits")
        await asyncio.wait([tasks.spawn(fail(), "fails")])
        assert not waiting.done()
        await tasks.close()
        assert waiting.cancelled()

    asyncio.run(run())
