"""Signals that ask a training to end: kept from the start of its command until there is a step to save.

Standard library only: it listens before anything heavy is imported.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

STOPPING = tuple(
    getattr(signal, name) for name in ("SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGINT") if hasattr(signal, name)
)
"""What schedulers send before they take a machine, terminals when they close, and people with Ctrl-C."""

SAME = 2.0
"""Seconds within which another signal is the same wish: `timeout` and schedulers send theirs to the process and to its
group. A later one ends the process at once."""

received: str | None = None
"""Name of the first signal that came, None if none has."""
_when = 0.0


@contextmanager
def kept() -> Iterator[None]:
    """Keep signals for whoever looks at `received`; then let them do again what they did, and forget what came.

    Ctrl-C is not among them: before there is a step to save, it ends the command at once.
    """
    global received
    before = {number: signal.getsignal(number) for number in STOPPING} if _is_main_thread() else {}
    listen(STOPPING[:-1])
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if _keep not in before.values():
            received = None


def listen(numbers: tuple[signal.Signals, ...] = STOPPING) -> None:
    """Take signals from who took them meanwhile; but `nohup` and shells want those that are ignored to stay so."""
    if _is_main_thread():
        for number in numbers:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, _keep)


def ignore() -> None:
    """Leave it to the training process, in a process that helps it."""
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)


def _keep(number: int, frame: FrameType | None) -> None:
    global received, _when
    now = time.monotonic()
    if received is None:
        received, _when = signal.Signals(number).name, now
    elif now - _when > SAME:
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)


def _is_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()  # others may not listen
