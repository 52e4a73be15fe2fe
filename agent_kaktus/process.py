"""Runs programs with a timeout; their output is the reason when they fail."""

import asyncio

from kowa.runtime.errors import StepFailed

TIMEOUT_S = 60.0
MAX_REASON_CHARS = 500  # of a program's standard error


async def run(program: str, *arguments: str, stdin_text: str = "") -> str:
    """Runs a program. Returns its standard output. Raises StepFailed with the beginning of its standard error."""
    pipe = asyncio.subprocess.PIPE
    # Without input there is no pipe: the program may end before even an empty input is written.
    stdin = pipe if stdin_text else asyncio.subprocess.DEVNULL
    try:
        process = await asyncio.create_subprocess_exec(program, *arguments, stdin=stdin, stdout=pipe, stderr=pipe)
    except OSError as error:
        raise StepFailed(f"{program} can't be run: {error.strerror}") from error
    try:
        async with asyncio.timeout(TIMEOUT_S):
            output, errors = await process.communicate(stdin_text.encode() or None)
    except TimeoutError as error:
        raise StepFailed(f"{program} took longer than {TIMEOUT_S:.0f} s") from error
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        raise StepFailed(f"{program}: {errors.decode(errors='replace').strip()[:MAX_REASON_CHARS]}")
    return output.decode()
