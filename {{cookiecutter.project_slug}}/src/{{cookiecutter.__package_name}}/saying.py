"""What the command line says, once for all ranks."""

from __future__ import annotations

import sys

from .runtime.launch import is_first_rank

PROG = (__package__ or "").replace("_", "-")


def say(line: str) -> None:
    """Print a line of an answer."""
    if is_first_rank():
        print(line)


def complain(line: str) -> None:
    """Print an error in one line."""
    if is_first_rank():
        print(f"{PROG}: error: {line}", file=sys.stderr)
