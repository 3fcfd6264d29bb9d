"""What functions of `model/` are given, and how they may call what they give."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .errors import UserError
from .names import IDX, NAME

TAKEN = (IDX, NAME, "file")  # the last by NumPy: what `savez` writes to


class NotGivenError(KeyError):
    """A function wants a key that it was not given; any other KeyError is of a dict of its own, and a defect."""


class Given(dict[str, Any]):
    """A dict that raises NotGivenError for the keys that it lacks."""

    def __missing__(self, key: str) -> Any:
        """Tell which key it is."""
        raise NotGivenError(key)


def check_names(names: Iterable[Any], who: str) -> None:
    """Raise a UserError for what is no name for an array in a file that has IDX and perhaps NAME too."""
    for name in names:
        if not (isinstance(name, str) and name.isascii() and name.isidentifier()) or name in TAKEN:
            rule = f"use letters, numbers and _, and none of {', '.join(TAKEN)}"
            raise UserError(f"{who} calls an array {name!r}: {rule}")


def check_columns(names: Iterable[Any], who: str) -> None:
    """Raise a UserError for what is no name for a column of a table; it may have blanks and signs."""
    for name in names:
        is_text = isinstance(name, str) and name.isprintable() and name == name.strip() != ""
        if not is_text or name in TAKEN:
            rule = f"use a text that can be printed, and none of {', '.join(TAKEN)}"
            raise UserError(f"{who} calls a column {name!r}: {rule}")
