"""The start of our programs: logs, and the signals that stop them."""

import asyncio
import logging
import signal
import sys
from collections.abc import Callable

import structlog


def configure_logs(*, as_json: bool = True) -> None:
    """Logs events with fields on standard error: one JSON object per line, or text for people."""
    text = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer() if as_json else text,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
    )


def on_stop_signal(action: Callable[[], object]) -> None:
    """Makes the running loop call the action at SIGTERM, and at SIGINT unless this program was started with it ignored.

    A shell ignores SIGINT for the background jobs of a script, so that Ctrl-C ends only its foreground job.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        if number == signal.SIGTERM or signal.getsignal(number) is not signal.SIG_IGN:
            asyncio.get_running_loop().add_signal_handler(number, action)
