"""`kowactl console`: a machine's serial console on this terminal."""

import contextlib
import os
import select
import threading
from collections.abc import Callable
from typing import Any

import click

from kowa import contract
from kowactl.exits import interruptible
from kowactl.session import Session
from kowactl.terminal import STDIN, STDOUT, raw_terminal

LEAVE_KEY = b"\x1d"  # Ctrl-]
MAX_KEYS_BYTES = 64 << 10  # in one message
POLL_INTERVAL_S = 0.1  # how often it is looked whether the console has ended, or the terminal has another size
LEAVE_LIMIT_S = 1.0  # for Kahuna to take the last keys, to take a size, or to say why the console has ended


@click.command(
    short_help="A machine's serial console",
    epilog="\b\nExample:\n  kowactl console my-instance\n  kowactl console my-instance </dev/null | head -20",
)
@click.argument("instance")
@click.pass_obj
def console(session: Session, instance: str) -> None:
    """A machine's serial console: the end of what it has printed, then all it prints. Ctrl-] leaves."""
    id_ = session.references.id_of(contract.load().kinds["Instance"], instance)
    ended = threading.Event()
    left = contextlib.suppress(_LeaveKeyPressed)
    with left, interruptible() as interrupt, open(STDOUT, "wb", closefd=False) as output:
        shown = session.client.instances.console(id_)
        machine = _ConsoleInput(session, {"id": id_, "session": next(shown).session}, ended, interrupt)
        with raw_terminal():
            typing = threading.Thread(target=_read_keys, args=(STDIN, machine, ended), daemon=True)
            typing.start()
            try:
                for response in shown:
                    output.write(response.data)
                    output.flush()
            finally:
                ended.set()
                shown.close()
                typing.join()


class _LeaveKeyPressed(Exception):
    """Ctrl-] was typed: the console ends, the machine goes on."""


class _ConsoleInput:
    """Sends keys and terminal sizes to a console. Keys typed during a call wait in a pipe, and go in one message."""

    def __init__(
        self,
        session: Session,
        target: dict[str, str],
        ended: threading.Event,
        interrupt: Callable[[BaseException], None],
    ) -> None:
        self._session, self._target, self._ended, self.interrupt = session, target, ended, interrupt
        self._source, self.keys = os.pipe()
        self._sending = threading.Thread(target=self._send_keys, daemon=True)
        self._sending.start()

    def resize(self, columns: int, rows: int) -> None:
        """Sends the terminal's size. That it can't be sent is no error."""
        from kowa.errors import KowaError

        with contextlib.suppress(KowaError):
            self._call("resize-console", LEAVE_LIMIT_S, rows=rows, columns=columns)

    def close(self) -> None:
        """Waits up to LEAVE_LIMIT_S until the keys typed so far are sent."""
        os.close(self.keys)
        self._sending.join(LEAVE_LIMIT_S)

    def _send_keys(self) -> None:
        from kowa.errors import KowaError, Unavailable

        offset = 0
        while keys := os.read(self._source, MAX_KEYS_BYTES):
            while keys:
                try:
                    offset, keys = self._call("type-console", None, offset=offset, data=keys).offset, b""
                except Unavailable:  # as long as the console is open it is the machine that reads no keys now
                    if self._ended.wait(POLL_INTERVAL_S):
                        return
                except KowaError as error:
                    if not self._ended.wait(LEAVE_LIMIT_S):
                        self.interrupt(error)
                    return

    def _call(self, verb: str, limit: float | None, **fields: object) -> Any:
        method = contract.load().kinds["Instance"].service.methods[verb]
        request: Any = contract.load().stub(method.request.name)
        return self._session.client.call(method, request(**self._target, **fields), limit=limit).resource


def _read_keys(source: int, machine: _ConsoleInput, ended: threading.Event) -> None:
    """Reads keys until Ctrl-], which ends the console; at the end of a file the console goes on without keys."""
    size, left = (0, 0), False
    while not (ended.is_set() or left):
        if os.isatty(source) and size != (size := os.get_terminal_size(source)):
            machine.resize(*size)
        if not select.select([source], [], [], POLL_INTERVAL_S)[0]:
            continue
        try:
            data = os.read(source, 4096)
        except OSError:  # closed, or a terminal that is gone
            break
        if not data:
            break
        keys, found, _ = data.partition(LEAVE_KEY)
        left = bool(found)
        while keys and not ended.is_set():
            if select.select([], [machine.keys], [], POLL_INTERVAL_S)[1]:
                keys = keys[os.write(machine.keys, keys) :]
    machine.close()
    if left and not ended.is_set():
        machine.interrupt(_LeaveKeyPressed())
