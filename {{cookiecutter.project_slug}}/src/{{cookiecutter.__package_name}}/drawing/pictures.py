"""Pictures that fit many models: a map of vectors, numbers over the true ones, a confusion matrix."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.colors import LinearSegmentedColormap, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from .theme import LIGHT, SIZE, Array, Theme

MOST_POINTS = 4_000  # drawn in a cloud; more only cover each other
MOST_COUNTED = 20  # labels beyond which the numbers in a confusion matrix overlap

# Found by a search for ten colours that stay far apart in OKLab, for colour-blind readers too, and show on both papers.
# In the order of labels; each is the farthest from those before it, so that few labels get the most distinct ones.
COLOURS = (
    *("#0077ff", "#ff5500", "#00dd88", "#eebb00", "#dd99bb"),
    *("#007788", "#bb0066", "#66ccff", "#885500", "#9933cc"),
)


def latent_space(theme: Theme, latent: Array, label: Array, names: Sequence[str] = ()) -> Figure:
    """Scatter the latent vectors along their two main directions, coloured by label; names are told below."""
    figure, points = cloud(latent, np.array([colour_of(c) for c in label]))
    labels = np.unique(label)
    centres = _push_apart(np.array([np.median(points[label == c], axis=0) for c in labels]), 0.055 * np.ptp(points))
    for c, (x, y) in zip(labels, centres, strict=True):
        colour = colour_of(c)
        badge = {"boxstyle": "circle,pad=0.15", "facecolor": colour, "edgecolor": theme.paper, "linewidth": 1.2}
        ink = LIGHT.ink if np.dot(to_rgb(colour), (0.3, 0.6, 0.1)) > 0.5 else LIGHT.paper
        text = figure.axes[0].text(x, y, str(c), fontsize=10, fontweight="bold", color=ink, bbox=badge)
        text.set(ha="center", va="center")
    if names:
        dots = [Line2D([], [], color=colour_of(c), marker="o", linestyle="") for c in labels]
        words = [f"{c}  {shortened(names[c], 22)}" for c in labels]
        figure.legend(dots, words, loc="outside lower center", ncols=3, fontsize=8.5)
    return figure


def cloud(latent: Array, colour: Array, **style: Any) -> tuple[Figure, Array]:
    """Scatter vectors along their two main directions; also return where they lie, [N, 2].

    Args:
        latent: [N, H], finite.
        colour: of each vector; also numbers, if `style` says what matplotlib's `scatter` makes of them.
        style: further arguments of `scatter`.
    """
    points, explained = principal_components(latent)
    figure = Figure(figsize=SIZE, layout="constrained")
    axes = figure.subplots()
    axes.set_title(f"Latent space: {explained.sum():.0%} of its variance in two of {latent.shape[1]} dimensions")
    drawn = np.random.default_rng(0).permutation(len(points))[:MOST_POINTS]  # mixed, so that no label lies on top
    axes.scatter(points[drawn, 0], points[drawn, 1], s=9, c=colour[drawn], alpha=0.7, linewidths=0, **style)
    axes.set_aspect("equal", "datalim")
    axes.set_xlabel(f"first principal component ({explained[0]:.0%})")
    axes.set_ylabel(f"second principal component ({explained[1]:.0%})")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    return figure, points


def colour_of(label: int) -> str:
    """Return the colour of a label; beyond ten they begin again."""
    return COLOURS[int(label) % len(COLOURS)]


def shortened(name: str, most: int) -> str:
    """Return a name in at most so many characters."""
    return name if len(name) <= most else f"{name[: most - 1]}\N{HORIZONTAL ELLIPSIS}"


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


def confusion(theme: Theme, counts: Array, names: Sequence[str] = ()) -> Figure:
    """Draw counts [true label, predicted label]; a row's colour is its share, so rare labels count as much."""
    totals = counts.sum(axis=1, keepdims=True)
    share = counts / np.maximum(totals, 1)
    figure = Figure(figsize=SIZE, layout="constrained")
    axes = figure.subplots()
    axes.set_title("Confusion matrix")
    ramp = LinearSegmentedColormap.from_list("ink", [theme.paper, theme.train])
    # The square root lifts the rare mistakes, which a linear scale leaves as pale as zero.
    axes.imshow(np.sqrt(share), cmap=ramp, vmin=0, vmax=1)
    labels = np.arange(len(counts))
    if len(counts) <= MOST_COUNTED:
        words = [shortened(name, 18) for name in names] or [str(label) for label in labels]
        axes.set_xticks(labels, words)
        axes.set_yticks(labels, words)
        if is_long := max(map(len, words)) > 3:
            for text in axes.get_xticklabels():
                text.set(rotation=45, ha="right", rotation_mode="anchor")
        size = min(8.5, (80 if is_long else 110) / len(counts))  # numbers of four places fit into a cell
        for (row, column), count in np.ndenumerate(counts):
            colour = theme.paper if share[row, column] > 0.4 else theme.ink if count else theme.grid
            axes.text(column, row, str(count), ha="center", va="center", fontsize=size, color=colour)
        recall, present = axes.secondary_yaxis("right"), labels[totals[:, 0] > 0]
        recall.set_yticks(present, [f"{share[row, row]:.1%}" for row in present], fontsize=8.5)
        recall.set_ylabel("recall")
        recall.spines[:].set_visible(False)
    axes.set_xlabel("predicted label")
    axes.set_ylabel("true label")
    axes.spines[:].set_visible(False)
    return figure
