"""The order of all tests, and the last line that sums them up."""

import os
import signal
from collections.abc import Iterator

import pytest

# What runs first: quick suites, then the gateway, then real machines, then what takes minutes.
_ORDER = ("gateway", "libvirt", "slow")


def pytest_configure() -> None:
    """Programs that tests start hear Ctrl-C, though the run itself may not, as a shell's background job."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Quick suites first, the slow part last; each suite keeps its own order."""
    items.sort(
        key=lambda item: max(
            (index + 1 for index, mark in enumerate(_ORDER) if item.get_closest_marker(mark)), default=0
        )
    )


@pytest.fixture(autouse=True)
def umask() -> Iterator[None]:
    """A command that is run in this process narrows it for good: QEMU could read nothing that later tests make."""
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """The very last line counts."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or os.environ.get("PYTEST_XDIST_WORKER"):
        return
    counts = {name: len(reporter.stats.get(name, ())) for name in ("passed", "failed", "error", "skipped")}
    print(f"{counts['passed']} passed, {counts['failed'] + counts['error']} failed, {counts['skipped']} skipped")  # noqa: T201
