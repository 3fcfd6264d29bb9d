"""What the command line says, once for all ranks."""

from __future__ import annotations

import argparse
import os
import shlex
import socket
import sys
from typing import Any, NoReturn

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
    """Print a line of an answer; who reads, `head` perhaps, may have seen enough and be gone."""
    if is_first_rank():
        try:
            print(line, flush=True)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def complain(line: str) -> None:
    """Print an error in one line, on each machine of a run once."""
    if is_first_of_machine():
        where = f" on {socket.gethostname()}" if is_one_of_many_machines() else ""
        print(f"{PROG}: error{where}: {line}", file=sys.stderr)
