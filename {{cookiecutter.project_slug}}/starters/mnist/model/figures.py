"""What the report shows of the digits (drawing/theme.py): reconstructions, the latent space, mistakes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from ..drawing.pictures import MOST_POINTS, confusion, latent_space
from ..drawing.theme import SIZE, Array, Drawing, Theme

SHARES = ("accuracy",)

MISTAKE_GRID = (4, 6)  # rows and columns of images
GAP = 3  # pixels of paper between tiles


def pictures(outputs: dict[str, Array], settings: dict[str, Any]) -> Iterator[Drawing]:
    """Show what the network made of the test digits."""
    label, image, latent = outputs["label"], outputs["image"], outputs["latent"]
    if (after := outputs.get("reconstruction")) is not None:
        caption = "Two test digits of each class, and below each its mean squared error, of pixels clipped to 0 and 1 "
        caption += "(the loss is of unclipped ones, and a little larger). The mean over all "
        caption += f"{len(image):,} test digits is {item_errors(image, after).mean():.4f}."
        draw = partial(reconstructions, image=image, reconstruction=after, label=label)
        yield Drawing("reconstructions", caption, draw)
    if np.isfinite(latent).all():
        caption = "What the encoder makes of the test digits, seen along the two directions of largest variance (PCA). "
        caption += f"{min(len(latent), MOST_POINTS):,} of {len(latent):,} are drawn. "
        caption += "A badge stands at the median of its class."
        yield Drawing("latent", caption, partial(latent_space, latent=latent, label=label))
    if (probability := outputs.get("probability")) is not None:
        yield from _answers(label, probability, image)


def _answers(label: Array, probability: Array, image: Array) -> Iterator[Drawing]:
    """Compare the classifier's answers with the labels: all of them as counts, the worst ones as images."""
    answer, sureness = probability.argmax(axis=1), probability.max(axis=1)
    counts = np.zeros((probability.shape[1],) * 2, dtype=np.int64)
    np.add.at(counts, (label, answer), 1)
    wrong = np.flatnonzero(answer != label)
    caption = f"{len(wrong):,} of {len(label):,} test digits are classified wrong. "
    caption += "The colour is the square root of the share of the row; recall is the share of a class that was found."
    yield Drawing("confusion", caption, partial(confusion, counts=counts))
    if len(wrong):
        worst = wrong[np.argsort(-sureness[wrong], kind="stable")][: math.prod(MISTAKE_GRID)]
        titles = [(f"{label[i]} \N{RIGHTWARDS ARROW} {answer[i]}", f"{sureness[i]:.1%} sure") for i in worst]
        caption = "True class \N{RIGHTWARDS ARROW} predicted class, and the probability the network gave to its answer."
        yield Drawing("mistakes", caption, partial(mistakes, image=image[worst], caption=titles))


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
