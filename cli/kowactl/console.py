"""`kowactl console`: an instance's serial console on this terminal."""

import contextlib
import os
import select
import threading
from collections.abc import Callable, Iterator
from typing import Any

import click

from kowa import contract, errors
from kowactl.session import Session
from kowactl.terminal import STDIN, STDOUT, interruptible, raw_terminal

LEAVE_KEY = b"\x1d"  # Ctrl-]
MAX_KEYS_BYTES = 64 << 10  # in one message, and of those that the instance has not read yet
POLL_INTERVAL_S = 0.1  # between checks for the console's end and for a new size of the terminal
END_TIMEOUT_S = 1.0  # of calls that send a size, for keys typed before Ctrl-], and for the console's last error


@click.command(
    short_help="A machine's serial console",
    epilog="\b\nExample:\n  kowactl console my-instance\n  kowactl console my-instance </dev/null | head -20",
)
@click.argument("instance")
@click.pass_obj
def console(session: Session, instance: str) -> None:
    """A machine's serial console: the end of its past output, then its new output. Ctrl-] leaves."""
    kind, client = contract.load().kinds["Instance"], session.client
    with interruptible(client.close) as interrupt:
        id_ = session.references.id_of(kind, instance)
        responses = client.instances.console(id_)
        target = {"id": id_, "session": next(responses).session}

        def call(verb: str, timeout: float | None = None, **fields: object) -> Any:
            method = kind.service.methods[verb]
            request: Any = contract.load().stub(method.request.name)
            return client.call(method, request(**target, **fields), limit=timeout).resource

        keys = Keys(STDIN, call, interrupt)
        threads = [threading.Thread(target=each, daemon=True) for each in (keys.send, lambda: _show(responses, keys))]
        with raw_terminal():
            for thread in threads:
                thread.start()
            try:
                keys.read()
            finally:
                keys.ended.set()
                client.close()
                for thread in threads:
                    thread.join(END_TIMEOUT_S)  # a write may wait longer for a reader


class Keys:
    """Keys for the instance. One thread reads them and another sends them, so that Ctrl-] does not wait for Kahuna."""

    def __init__(self, source: int, call: Callable[..., Any], interrupt: Callable[[BaseException], None]) -> None:
        self._source, self._call, self.interrupt = source, call, interrupt
        self._waiting, self._changed = bytearray(), threading.Condition()
        self.ended = threading.Event()

    def read(self) -> None:
        """Reads keys, and sends the terminal's size, until Ctrl-] ends the console; the end of a file does not."""
        size, is_open = (0, 0), True
        while not self.ended.is_set():
            if os.isatty(self._source) and size != (size := os.get_terminal_size(self._source)):
                with contextlib.suppress(errors.KowaError):
                    self._call("resize-console", END_TIMEOUT_S, columns=size[0], rows=size[1])
            room = MAX_KEYS_BYTES - len(self._waiting)
            if not (is_open and room):
                self.ended.wait(POLL_INTERVAL_S)
            elif select.select([self._source], [], [], POLL_INTERVAL_S)[0]:
                data = b""
                with contextlib.suppress(OSError):  # the file is closed, or the terminal is gone
                    data = os.read(self._source, room)
                typed, leave, _ = data.partition(LEAVE_KEY)
                is_open = bool(data)
                with self._changed:
                    self._waiting += typed
                    self._changed.notify()
                    if leave:
                        self._changed.wait_for(lambda: not self._waiting, END_TIMEOUT_S)
                if leave:
                    self.interrupt(click.exceptions.Exit(0))
                    self.ended.set()

    def send(self) -> None:
        """Sends keys as they come. Those that the instance does not read yet wait; sending them twice is harmless."""
        offset = 0
        while not self.ended.is_set():
            with self._changed:
                self._changed.wait_for(lambda: self._waiting, POLL_INTERVAL_S)
                keys = bytes(self._waiting)
            try:
                if keys:
                    offset = self._call("type-console", offset=offset, data=keys).offset
            except errors.Unavailable:  # while the console is open: the instance does not read keys now
                self.ended.wait(POLL_INTERVAL_S)
                continue
            except errors.KowaError as error:
                if not self.ended.wait(END_TIMEOUT_S):
                    self.interrupt(error)
                self.ended.set()
            with self._changed:
                del self._waiting[: len(keys)]
                self._changed.notify()


def _show(responses: Iterator[Any], keys: Keys) -> None:
    """Prints what the instance prints. Not on the main thread: Ctrl-] does not wait for a reader of the output."""
    try:
        for response in responses:
            data = response.data
            while data:
                data = data[os.write(STDOUT, data) :]
    except (errors.KowaError, OSError) as error:
        keys.interrupt(error)
    finally:
        keys.ended.set()
