"""The pictures of test items in the report, and how all are made: arrays in, PNG bytes out, for light and dark pages.

They live apart from `report.py` because that room knows files and HTML and this one knows neither. Every drawing
function takes a `Theme` first and gives back a Figure; `render` runs one for both themes. Figures are made without
pyplot, so nothing global is touched and no display is needed. The same arrays always give the same bytes.
"""

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import style
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap, to_rgb
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

Array = np.ndarray[Any, Any]

SIZE = (6.2, 5.2)  # inches, of every picture, so that they line up and text has one size across the page
DOTS_PER_INCH = 180
MOST_POINTS = 4_000  # drawn in a cloud; more only cover each other
MISTAKE_GRID = (4, 6)  # rows and columns of images
GAP = 3  # pixels of paper between tiles
MAX_CLASSES_WITH_COUNTS = 20  # beyond this the numbers in a confusion matrix overlap

# Found by a search for ten colours that stay far apart in OKLab, for colour-blind readers too, and show on both papers.
# In the order of labels; each is the farthest from those before it, so that few classes get the most distinct ones.
CLASS_COLOURS = (
    *("#0077ff", "#ff5500", "#00dd88", "#eebb00", "#dd99bb"),
    *("#007788", "#bb0066", "#66ccff", "#885500", "#9933cc"),
)


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


def render(draw: Callable[..., Figure], *arrays: Any) -> Picture:
    """Draw once for each theme; no date or version goes into the PNG, so equal input gives equal bytes."""
    drawn = []
    for theme in (LIGHT, DARK):
        with style.context(["default", theme.style()]):  # a user's own matplotlibrc must not change the report
            figure, buffer = draw(theme, *arrays), io.BytesIO()
            FigureCanvasAgg(figure)
            figure.savefig(buffer, format="png", dpi=DOTS_PER_INCH, metadata={"Software": None})
            drawn.append(buffer.getvalue())
    return Picture(*drawn)


def reconstructions(theme: Theme, image: Array, reconstruction: Array, label: Array) -> Figure:
    """Show the typical and the hardest item of each class above its reconstruction and the squared error."""
    error = item_errors(image, reconstruction)
    classes = np.unique(label)[:10]
    ranked = [np.flatnonzero(label == c)[np.argsort(error[label == c], kind="stable")] for c in classes]
    height, width = image.shape[1:]
    figure = Figure(figsize=SIZE, layout="constrained")
    groups = [("Typical: the median error of its class", 0.5), ("Hardest: the largest error of its class", 1.0)]
    for axes, (title, place) in zip(figure.subplots(2, 1), groups, strict=True):
        picks = np.array([items[round((len(items) - 1) * place)] for items in ranked])
        before, after = image[picks] / 255.0, reconstruction[picks] / 255.0
        squared = (before - after) ** 2
        darkest = max(float(squared.max()), 1e-12)
        rows = [_ink(theme, before, theme.ink), _ink(theme, after, theme.ink)]
        rows.append(_ink(theme, squared / darkest, theme.val))
        axes.imshow(_tile(rows, theme))
        axes.set_title(title)
        axes.spines[:].set_visible(False)
        middles = (height + GAP) * np.arange(3) + height / 2
        axes.set_yticks(middles, ["original", "reconstruction", f"squared error\n(0 to {darkest:.2g})"])
        axes.set_xticks((width + GAP) * np.arange(len(picks)) + width / 2, [f"{error[i]:.3f}" for i in picks])
    return figure


def item_errors(image: Array, reconstruction: Array) -> Array:
    """Return the mean squared error of each item, pixels running from 0 to 1."""
    difference = (image.astype(np.float32) - reconstruction.astype(np.float32)) / 255.0
    return np.asarray((difference**2).mean(axis=(1, 2)))


def _ink(theme: Theme, amount: Array, colour: str) -> Array:
    """Turn amounts in 0..1 into RGB, from bare paper to full colour: a white digit on black becomes ink on paper."""
    paper, full = np.array(to_rgb(theme.paper)), np.array(to_rgb(colour))
    return np.asarray(paper + (full - paper) * amount[..., None])


def _tile(rows: list[Array], theme: Theme) -> Array:
    """Lay rows of [columns, height, width, 3] pictures out as one picture with gaps of paper."""
    count, height, width, _ = rows[0].shape
    shape = (len(rows) * (height + GAP) - GAP, count * (width + GAP) - GAP, 3)
    sheet = np.broadcast_to(np.array(to_rgb(theme.paper)), shape).copy()
    for r, row in enumerate(rows):
        for c, tile in enumerate(row):
            top, left = r * (height + GAP), c * (width + GAP)
            sheet[top : top + height, left : left + width] = tile
    return sheet


def latent_space(theme: Theme, latent: Array, label: Array) -> Figure:
    """Scatter the latent vectors along their two main directions, coloured and named by class."""
    points, explained = principal_components(latent)
    figure = Figure(figsize=SIZE, layout="constrained")
    axes = figure.subplots()
    axes.set_title(f"Latent space: {explained.sum():.0%} of its variance in two of {latent.shape[1]} dimensions")
    colours = np.array([CLASS_COLOURS[int(c) % len(CLASS_COLOURS)] for c in label])
    drawn = np.random.default_rng(0).permutation(len(points))[:MOST_POINTS]  # mixed, so that no class lies on top
    axes.scatter(points[drawn, 0], points[drawn, 1], s=9, c=colours[drawn], alpha=0.7, linewidths=0)
    axes.set_aspect("equal", "datalim")
    classes = np.unique(label)
    centres = _push_apart(np.array([np.median(points[label == c], axis=0) for c in classes]), 0.055 * np.ptp(points))
    for c, (x, y) in zip(classes, centres, strict=True):
        colour = CLASS_COLOURS[int(c) % len(CLASS_COLOURS)]
        badge = {"boxstyle": "circle,pad=0.15", "facecolor": colour, "edgecolor": theme.paper, "linewidth": 1.2}
        ink = LIGHT.ink if np.dot(to_rgb(colour), (0.3, 0.6, 0.1)) > 0.5 else LIGHT.paper
        axes.text(x, y, str(c), fontsize=10, fontweight="bold", ha="center", va="center", color=ink, bbox=badge)
    axes.set_xlabel(f"first principal component ({explained[0]:.0%})")
    axes.set_ylabel(f"second principal component ({explained[1]:.0%})")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    return figure


def _push_apart(centres: Array, distance: float) -> Array:
    """Move places that are closer than a distance away from each other, so that the labels there can all be read."""
    centres = centres + 1e-6 * distance * np.arange(len(centres))[:, None]  # equal places need a direction to part in
    for _ in range(100):
        offset = centres[:, None] - centres[None, :]
        length = np.hypot(offset[..., 0], offset[..., 1]) + 1e-12 * distance + 1e-300
        overlap = np.clip(distance - length, 0, None) * (1 - np.eye(len(centres)))
        centres = centres + 0.25 * (offset * (overlap / length)[..., None]).sum(axis=1)
    return centres


def principal_components(latent: Array) -> tuple[Array, Array]:
    """Project on the two directions of largest variance; also return the share of the variance each explains."""
    centred = latent.astype(np.float64) - latent.mean(axis=0, dtype=np.float64)
    _, singular, directions = np.linalg.svd(centred, full_matrices=False)
    # A direction and its opposite are equally good: fix the sign, so that the picture is always the same way round.
    leading = np.abs(directions).argmax(axis=1)
    directions = directions * np.sign(directions[np.arange(len(directions)), leading])[:, None]
    shares = singular**2 / max(float((singular**2).sum()), 1e-30)
    points = np.zeros((len(latent), 2))
    points[:, : len(directions[:2])] = centred @ directions[:2].T
    return points, np.concatenate([shares, np.zeros(2)])[:2]


def answers(theme: Theme, name: str, answer: Array, truth: Array) -> Figure:
    """Scatter the numbers that the network gives over the true ones, with the line on which all should lie."""
    figure = Figure(figsize=SIZE, layout="constrained")
    axes = figure.subplots()
    axes.set_title(f"{name.replace('_', ' ').capitalize()} of the test items")
    drawn = np.random.default_rng(0).permutation(len(truth))[:MOST_POINTS]
    axes.scatter(truth[drawn], answer[drawn], s=9, color=theme.train, alpha=0.5, linewidths=0)
    # From the lowest number of either kind to the highest, the line also gives both axes the same limits.
    both = np.concatenate([truth, answer])
    ends = [np.nanmin(both), np.nanmax(both)]
    axes.plot(ends, ends, color=theme.val, linewidth=1.2, label="predicted = true")
    axes.set_aspect("equal")
    axes.legend(loc="upper left")
    axes.grid()
    axes.set_xlabel("true")
    axes.set_ylabel("predicted")
    return figure


def confusion(theme: Theme, counts: Array) -> Figure:
    """Draw counts [true class, predicted class]; a row's colour is its share, so small classes count as much."""
    totals = counts.sum(axis=1, keepdims=True)
    share = counts / np.maximum(totals, 1)
    figure = Figure(figsize=SIZE, layout="constrained")
    axes = figure.subplots()
    axes.set_title("Confusion matrix")
    ramp = LinearSegmentedColormap.from_list("ink", [theme.paper, theme.train])
    # The square root lifts the rare mistakes, which a linear scale leaves as pale as zero.
    axes.imshow(np.sqrt(share), cmap=ramp, vmin=0, vmax=1)
    classes = np.arange(len(counts))
    if len(counts) <= MAX_CLASSES_WITH_COUNTS:
        axes.set_xticks(classes, classes)
        axes.set_yticks(classes, classes)
        size = min(8.5, 110 / len(counts))  # four digits fit into a cell
        for (row, column), count in np.ndenumerate(counts):
            colour = theme.paper if share[row, column] > 0.4 else theme.ink if count else theme.grid
            axes.text(column, row, str(count), ha="center", va="center", fontsize=size, color=colour)
        recall, present = axes.secondary_yaxis("right"), classes[totals[:, 0] > 0]
        recall.set_yticks(present, [f"{share[row, row]:.1%}" for row in present], fontsize=8.5)
        recall.set_ylabel("recall")
        recall.spines[:].set_visible(False)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    axes.spines[:].set_visible(False)
    return figure


def mistakes(theme: Theme, image: Array, caption: list[tuple[str, str]]) -> Figure:
    """Show wrongly classified images; each caption is (true -> predicted, how sure)."""
    figure = Figure(figsize=SIZE, layout=ConstrainedLayoutEngine(rect=(0, 0, 1, 0.97)))
    figure.suptitle("Most confident mistakes", x=0.02, ha="left", fontsize=11, fontweight="bold")
    panels = figure.subplots(*MISTAKE_GRID).ravel()
    for axes in panels:
        axes.set_axis_off()
    for axes, pixels, (answer, sureness) in zip(panels, image, caption, strict=False):
        axes.imshow(_ink(theme, pixels / 255.0, theme.ink))
        axes.set_title(answer, loc="center", pad=13, fontsize=10.5)
        axes.text(0.5, 1.02, sureness, transform=axes.transAxes, ha="center", fontsize=8, color=theme.muted)
    return figure
