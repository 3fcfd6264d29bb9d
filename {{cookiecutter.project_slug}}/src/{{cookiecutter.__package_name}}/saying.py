"""What the command line says, once for all ranks."""

from __future__ import annotations

import shlex
import sys

from .runtime.launch import is_first_rank

PROG = (__package__ or "").replace("_", "-")


def to_paste(*words: object) -> str:
    """Return a command of this program that can be pasted into a shell, whatever characters its paths have."""
    return shlex.join([PROG, *map(str, words)])


def say(line: str) -> None:
    """Print a line of an answer."""
    if is_first_rank():
        print(line)


def complain(line: str) -> None:
    """Print an error in one line."""
    if is_first_rank():
        print(f"{PROG}: error: {line}", file=sys.stderr)
