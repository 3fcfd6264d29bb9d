"""What a picture of the report is, and how all are made: drawn once for light pages and once for dark ones.

`model/figures.py` says what the report shows of a run, beside its curves and figures, which are there for every
model. The contract is two names, read without torch:

    SHARES                        names of figures of any network that are shares, shown in percent: ("accuracy",)
    pictures(outputs, settings)   yields a `Drawing` for each picture in the order of the page, given the arrays of
                                  outputs.npz: what `keep` chose of the test set, a row an item, and `idx`; and the
                                  settings of the run, as settings.yaml has them

A drawing function takes a `Theme` and gives back a Figure. Figures are made without pyplot, so nothing global is
touched and no display is needed. The same arrays always give the same bytes. `pictures.py` has some that fit many
models.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import style
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

Array = np.ndarray[Any, Any]

SIZE = (6.2, 5.2)  # inches, of every picture, so that they line up and text has one size across the page
DOTS_PER_INCH = 180


@dataclass(frozen=True)
class Theme:
    """Colours of one page background; train and val are a pair that colour-blind readers can tell apart."""

    paper: str
    ink: str
    muted: str
    grid: str
    train: str
    val: str

    def style(self) -> dict[str, Any]:
        """Return the matplotlib settings that make a figure of this theme."""
        return {
            **{"axes.facecolor": self.paper, "savefig.facecolor": self.paper},
            **{"text.color": self.ink, "axes.titlecolor": self.ink, "axes.labelcolor": self.muted},
            **{"xtick.color": self.muted, "ytick.color": self.muted, "axes.edgecolor": self.grid},
            **{"grid.color": self.grid, "grid.linewidth": 0.8, "axes.axisbelow": True},
            **{"axes.spines.top": False, "axes.spines.right": False, "xtick.major.size": 0, "ytick.major.size": 0},
            **{"font.family": "DejaVu Sans", "font.size": 9.5, "axes.titlesize": 11, "axes.titleweight": "bold"},
            **{"axes.titlelocation": "left", "axes.titlepad": 10, "legend.frameon": False, "lines.linewidth": 1.8},
            **{"figure.constrained_layout.w_pad": 0.09, "figure.constrained_layout.h_pad": 0.09},
        }


LIGHT = Theme(paper="#ffffff", ink="#1c2126", muted="#5d6670", grid="#e2e5e9", train="#0072b2", val="#d55e00")
DARK = Theme(paper="#1b1f24", ink="#e8eaed", muted="#a2abb5", grid="#343a42", train="#56b4e9", val="#f0a030")


@dataclass(frozen=True)
class Picture:
    """One picture as PNG bytes for each kind of page."""

    light: bytes
    dark: bytes


@dataclass(frozen=True)
class Drawing:
    """A picture to be drawn."""

    name: str
    """of its file, and its alternative text; curves have the names of their figures, "loss" say"""
    caption: str
    draw: Callable[[Theme], Figure]


def render(draw: Callable[[Theme], Figure]) -> Picture:
    """Draw once for each theme; no date or version goes into the PNG, so equal input gives equal bytes."""
    drawn = []
    for theme in (LIGHT, DARK):
        with style.context(["default", theme.style()]):  # a user's own matplotlibrc must not change the report
            figure, buffer = draw(theme), io.BytesIO()
            FigureCanvasAgg(figure)
            figure.savefig(buffer, format="png", dpi=DOTS_PER_INCH, metadata={"Software": None})
            drawn.append(buffer.getvalue())
    return Picture(*drawn)
