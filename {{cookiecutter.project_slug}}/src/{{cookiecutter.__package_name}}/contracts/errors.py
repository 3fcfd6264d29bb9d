"""The kind of error that is the user's to mend."""

from pathlib import Path
from typing import Any


class UserError(Exception):
    """Something the user can put right: the text is one line, what is wrong and how to mend it.

    The command line prints it and exits with 2; every other exception is a defect and keeps its traceback.
    """

    def __init__(self, text: str) -> None:
        """Keep the text; torch brings that of a loader's process as the last line of a traceback."""
        if "\nOriginal Traceback" in text:
            text = text.splitlines()[-1].partition(": ")[2]
        super().__init__(text)


class ToldError(UserError):
    """A UserError of a run of many ranks, which one of them has already printed."""


PAGES = {
    "config.py": "contracts/config.py",
    "figures.py": "drawing/theme.py",
    "plain.py": "results/export.py",
    "settings.py": "contracts/settings.py",
}
"""Files of `model/` that other rooms import, and the page that says what each must give."""


def need(module: Any, *names: str) -> None:
    """Hold a file of `model/` against the names that other rooms take from it.

    Raises:
        UserError: it lacks one.
    """
    if missing := [name for name in names if not hasattr(module, name)]:
        file = module.__name__.rpartition(".")[2] + ".py"
        raise UserError(f"model/{file} lacks {', '.join(missing)}: {PAGES[file]} says what it must give")


def need_files(folder: Path) -> None:
    """Hold `model/` against the files that other rooms import.

    Raises:
        UserError: it lacks one.
    """
    if missing := [name for name in PAGES if not (folder / name).exists()]:
        raise UserError(f"model/ lacks {missing[0]}: {PAGES[missing[0]]} says what it must give")
