"""The kind of error that is the user's to mend."""

from pathlib import Path
from typing import Any


class UserError(Exception):
    """Something the user can put right: the text is one line, what is wrong and how to mend it.

    The command line prints it and exits with 2; every other exception is a defect and keeps its traceback.
    """


class ToldError(UserError):
    """A UserError of a run of many ranks, which one of them has already printed."""


def need(module: Any, *names: str) -> None:
    """Hold a file of `model/` against the names that other rooms take from it.

    Raises:
        UserError: it lacks one.
    """
    if missing := [name for name in names if not hasattr(module, name)]:
        file = "/".join(module.__name__.split(".")[1:])
        raise UserError(f"{file}.py lacks {', '.join(missing)}: contracts/__init__.py says where to read of it")


def need_files(folder: Path, *names: str) -> None:
    """Hold `model/` against the files that other rooms import.

    Raises:
        UserError: it lacks one.
    """
    if missing := [name for name in names if not (folder / name).exists()]:
        raise UserError(f"model/ lacks {', '.join(missing)}: contracts/__init__.py says where to read of it")
