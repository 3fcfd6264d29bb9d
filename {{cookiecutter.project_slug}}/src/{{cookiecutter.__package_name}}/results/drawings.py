"""What `model/figures.py` gives the report, held against what `drawing/theme.py` says that it must give."""

from __future__ import annotations

import inspect
import re
from collections.abc import Collection, Iterable, Iterator
from typing import Any

from matplotlib.figure import Figure

from ..contracts.errors import UserError
from ..drawing.theme import Drawing, Theme


def check_shares(shares: Any) -> None:
    """Raise a UserError for what is not several names; a run need not have figures of these names."""
    is_several = isinstance(shares, Collection) and not isinstance(shares, str)
    if not is_several or not all(isinstance(name, str) for name in shares):
        raise UserError(f'model/figures.py: SHARES is {shares!r}, not names of figures: write ("accuracy",), say')


def drawings(given: Any, taken: Collection[str]) -> Iterator[Drawing]:
    """Give the drawings that `pictures` gives.

    Raises:
        UserError: something is no drawing, or has a name that is no file's, is taken, or was there before.
    """
    if not isinstance(given, Iterable):
        raise UserError(f"model/figures.py: pictures gives {type(given).__name__}: yield a Drawing for each picture")
    names = set(taken)
    for drawing in given:
        if fault := _fault(drawing, names):
            raise UserError(f"model/figures.py: pictures gives {fault}")
        names.add(drawing.name)
        yield drawing


def _fault(drawing: Any, taken: set[str]) -> str:
    """Return what is wrong with a drawing, or nothing."""
    if not isinstance(drawing, Drawing):
        return f"{type(drawing).__name__}, not a Drawing"
    name = drawing.name
    if not (isinstance(name, str) and re.fullmatch(r"[\w -]+", name)):
        return f"a Drawing the name {name!r}: use letters, numbers, spaces, - and _"
    if name in taken:
        return f"a Drawing the name {name}, which another picture of the report has: choose another"
    if not isinstance(drawing.caption, str):
        return f"{name} a caption of {type(drawing.caption).__name__}, not a text"
    if not _takes_a_theme(drawing.draw):
        return f"{name} something to draw with that cannot be called with a Theme alone"
    return ""


def _takes_a_theme(draw: Any) -> bool:
    try:
        inspect.signature(draw).bind(Theme)
    except TypeError:  # also of what cannot be called at all
        return False
    return True


def figure(drawing: Drawing, theme: Theme) -> Figure:
    """Draw; UserError for what is no figure."""
    found = drawing.draw(theme)
    if not isinstance(found, Figure):
        raise UserError(f"model/figures.py: what draws {drawing.name} returns {type(found).__name__}, not a Figure")
    return found
