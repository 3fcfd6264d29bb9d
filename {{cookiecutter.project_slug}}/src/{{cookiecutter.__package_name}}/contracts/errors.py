"""The kind of error that is the user's to mend, and how those of `model/` become one."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from traceback import walk_tb
from typing import Any

HOUSE = Path(__file__).parents[1]


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


LOST = 69
"""exit code of the ranks of a run that has lost one, or a process that loads: EX_UNAVAILABLE of sysexits.h"""


class LostError(ToldError):
    """Another rank has ended, and not by a mistake that it told: the run may be tried again."""


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


def need_files() -> None:
    """Hold `model/` against the files that other rooms import.

    Raises:
        UserError: it lacks one.
    """
    if not (HOUSE / "model").is_dir():
        raise UserError(
            f"there is no model/ in {HOUSE}: if the project was generated without its hooks, delete it and generate it "
            "again without --accept-hooks no"
        )
    if missing := [name for name in PAGES if not (HOUSE / "model" / name).exists()]:
        raise UserError(f"model/ lacks {missing[0]}: {PAGES[missing[0]]} says what it must give")


@contextmanager
def imports_of_model() -> Iterator[None]:
    """Import files of `model/`, which may hold any mistake.

    Raises:
        UserError: instead of whatever such a file raises; what is wrong in other rooms stays what it is.
    """
    try:
        yield
    except Exception as error:
        place = _place_in_model(error)
        if place is None or isinstance(error, UserError):
            raise
        reason = error.msg if isinstance(error, SyntaxError) else " ".join(str(error).split())
        raise UserError(f"{place}, cannot be imported: {type(error).__name__}: {reason}") from error


def _place_in_model(error: Exception) -> str | None:
    """Return the file and line that an error is from, of all files here; None if that is not in `model/`."""
    places = [(frame.f_code.co_filename, line) for frame, line in walk_tb(error.__traceback__)]
    if isinstance(error, SyntaxError):  # which no line of that file has raised
        places.append((error.filename or "", error.lineno or 0))
    ours = [(Path(file).relative_to(HOUSE), line) for file, line in places if Path(file).is_relative_to(HOUSE)]
    file, line = ours[-1]
    return f"{file.as_posix()}, line {line}" if file.parts[0] == "model" else None
