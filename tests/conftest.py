"""The order of all tests, and the last line with their counts."""

import os
import signal
from collections.abc import Iterator

import pytest

# The order of the suites: those without a marker first, then these; slow tests take minutes.
_ORDER = ("gateway", "libvirt", "slow")


def pytest_configure() -> None:
    """Lets the programs that tests start get Ctrl-C, though the run itself may ignore it as a background job."""
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
    """Restores the umask: commands run in this process narrow it, and QEMU could not read files of later tests."""
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """Prints the counts as the very last line."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or os.environ.get("PYTEST_XDIST_WORKER"):
        return
    counts = {name: len(reporter.stats.get(name, ())) for name in ("passed", "failed", "error", "skipped")}
    print(f"{counts['passed']} passed, {counts['failed'] + counts['error']} failed, {counts['skipped']} skipped")  # noqa: T201
