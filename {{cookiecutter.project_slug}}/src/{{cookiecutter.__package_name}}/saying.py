"""What the command line says, once for all ranks."""

from __future__ import annotations

import argparse
import errno
import os
import shlex
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn, TextIO

from .contracts.errors import UserError
from .runtime.launch import is_first_of_machine, is_first_rank, is_one_of_many_machines

PROG = (__package__ or "").replace("_", "-")


class Parser(argparse.ArgumentParser):
    """A parser of a command's words that says what is wrong with them as everything is said, in one line."""

    def error(self, message: str) -> NoReturn:
        """Raise a UserError."""
        raise UserError(f"{message}; see {self.prog} --help")


def to_paste(*words: object) -> str:
    """Return a command of this program that can be pasted into a shell, whatever characters its paths have."""
    return shlex.join([PROG, *map(str, words)])


def in_words(figures: dict[str, Any]) -> str:
    """Return figures on one line; what is no number is left out."""
    numbers = {name: value for name, value in figures.items() if isinstance(value, float)}
    shown = (f"{name} {value:.4f}" if abs(value) >= 0.001 else f"{name} {value:.3g}" for name, value in numbers.items())
    return "  ".join(shown)


def say(line: str) -> None:
    """Print a line of an answer."""
    if is_first_rank():
        print(line, flush=True)


def complain(line: str) -> None:
    """Print an error in one line, on each machine of a run once."""
    if is_first_of_machine():
        where = f" on {socket.gethostname()}" if is_one_of_many_machines() else ""
        print(f"{PROG}: error{where}: {line}", file=sys.stderr)


class Screen:
    """A stream that nobody may read: `head` has seen enough, a terminal was closed, its disk is full.

    What is said aside (on stderr) then ends nothing. An answer that cannot be kept is a mistake.
    """

    def __init__(self, stream: TextIO, holds_answers: bool) -> None:
        """Write to `stream`; a process may have been started without one."""
        self.stream, self.holds_answers = stream, holds_answers

    def write(self, text: str) -> int:
        """Write, with escapes for characters that the stream does not have."""
        code = self.stream.encoding or "utf-8"
        self._try(lambda: self.stream.write(text.encode(code, "backslashreplace").decode(code)))
        return len(text)

    def flush(self) -> None:
        """Write what is left."""
        self._try(self.stream.flush)

    def __getattr__(self, name: str) -> Any:
        """Be the stream in all else."""
        return getattr(self.stream, name)

    def _try(self, act: Callable[[], Any]) -> None:
        try:
            act()
        except OSError as error:
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.stream.fileno())  # Python writes what is left when it ends
            if self.holds_answers and error.errno not in (errno.EPIPE, errno.EIO):
                raise UserError(f"the answer cannot be written: {error.strerror}") from None


@contextmanager
def screens() -> Iterator[None]:
    """Put a `Screen` before stdout and stderr, and what goes nowhere before those that are closed."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes that number, which a file of the run would take
    streams = sys.stdout, sys.stderr
    out, aside = (stream or open(os.devnull, "w", encoding="utf-8") for stream in streams)  # noqa: SIM115, until the end
    sys.stdout, sys.stderr = Screen(out, holds_answers=True), Screen(aside, holds_answers=False)
    try:
        yield
    finally:
        try:
            sys.stdout.flush()
        finally:
            sys.stdout, sys.stderr = streams
