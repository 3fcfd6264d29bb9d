"""The curves of the report: what a run logged, over its steps; `report_figures.render` makes pictures of them.

Curves hold finite values only.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, PercentFormatter, StrMethodFormatter

from . import names
from .report_figures import SIZE, Array, Theme

Curves = Mapping[str, tuple[Array, Array]]  # metric name -> (steps, values)


def loss_curves(theme: Theme, curves: Curves) -> Figure:
    """Draw the losses, and below them slim panels for learning rate and gradient norm where they were logged."""
    slim = {names.LEARNING_RATE: "learning\nrate", names.GRAD_NORM: "gradient\nnorm"}
    slim = {name: label for name, label in slim.items() if name in curves}
    figure = Figure(figsize=SIZE, layout="constrained")
    panels = figure.subplots(1 + len(slim), 1, sharex=True, squeeze=False, height_ratios=[4.2] + [1] * len(slim))[:, 0]
    panels[0].set_title("Loss")
    _draw_pair(panels[0], theme, curves, names.TRAIN_LOSS, names.VAL_LOSS)
    losses = [curves[name][1] for name in (names.TRAIN_LOSS, names.VAL_LOSS) if name in curves]
    values = np.concatenate(losses or [np.ones(1)])
    if 0 < 10 * values.min() < values.max():
        panels[0].set_yscale("log")
        # A range of one or two decades has few powers of ten in it: also label 2 and 5 times them.
        panels[0].yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        panels[0].yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        panels[0].yaxis.set_minor_formatter(NullFormatter())
        panels[0].tick_params(which="minor", length=0)
    for axes, (name, label) in zip(panels[1:], slim.items(), strict=True):
        axes.plot(*curves[name], color=theme.muted, linewidth=1.1)
        axes.set_ylabel(label)
        if (top := curves[name][1].max()) > 0:
            axes.set_yticks([0, top], ["0", f"{top:.2g}"])
            axes.set_ylim(-0.06 * top, 1.1 * top)
    figure.align_ylabels()
    _step_axis(panels)
    return figure


def metric_curves(theme: Theme, curves: Curves, name: str) -> Figure:
    """Draw what else a loss reduction names, in training and in validation; the accuracy is a share of the items."""
    figure = Figure(figsize=SIZE, layout="constrained")
    axes = figure.subplots()
    axes.set_title(name.capitalize())
    axes.margins(y=0.08)
    _draw_pair(axes, theme, curves, f"train_{name}", f"val_{name}")
    if name == names.ACCURACY:
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    _step_axis([axes])
    return figure


def _draw_pair(axes: Axes, theme: Theme, curves: Curves, train: str, val: str) -> None:
    """Draw a metric of both splits: training is noisy and gets a smoothed line, validation is points."""
    if train in curves:
        steps, values = curves[train]
        window = len(values) // 20
        if window > 1:
            axes.plot(steps, values, color=theme.train, alpha=0.4, linewidth=0.8, label="training")
            label = f"training, mean of {2 * (window // 2) + 1} points"
            axes.plot(steps, _smooth(values, window // 2), color=theme.train, label=label)
        else:
            axes.plot(steps, values, color=theme.train, label="training")
    if val in curves:
        axes.plot(*curves[val], color=theme.val, marker="o", markersize=4.5, linewidth=1.2, label="validation")
    if train in curves or val in curves:
        axes.legend()


def _smooth(values: Array, reach: int) -> Array:
    """Average each value with `reach` neighbours on both sides; centred, so that the line does not lag behind."""
    sums = np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])
    places = np.arange(len(values))
    first, past = np.maximum(places - reach, 0), np.minimum(places + reach + 1, len(values))
    return np.asarray((sums[past] - sums[first]) / (past - first))


def _step_axis(panels: Any) -> None:
    for axes in panels:
        axes.grid(axis="y")
        axes.margins(x=0.01)
    panels[-1].set_xlabel("step")
    panels[-1].xaxis.set_major_locator(MaxNLocator(6, integer=True))
    panels[-1].xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
