"""The curves of the report: what a run logged, over its steps; `drawing.theme.render` makes pictures of them.

Only finite values are drawn; the legend tells of the others.
"""

from collections.abc import Iterator, Mapping
from itertools import cycle
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, PercentFormatter, StrMethodFormatter

from ..contracts import names
from ..drawing.theme import SIZE, Array, Theme

Curves = Mapping[str, tuple[Array, Array]]  # metric name -> (steps, values)
References = Mapping[str, float]  # another method -> what it reaches

DASHES = ("dashed", "dotted", "dashdot")


def loss_curves(theme: Theme, curves: Curves, references: References) -> Figure:
    """Draw the losses, and below them slim panels for learning rate and gradient norm where they were logged."""
    slim = {names.LEARNING_RATE: "learning\nrate", names.GRAD_NORM: "gradient\nnorm"}
    slim = {name: label for name, label in slim.items() if name in curves and np.isfinite(curves[name][1]).any()}
    figure = Figure(figsize=SIZE, layout="constrained")
    panels = figure.subplots(1 + len(slim), 1, sharex=True, squeeze=False, height_ratios=[3.8] + [1] * len(slim))[:, 0]
    panels[0].set_title("Loss")
    panels[0].set_ylabel("loss")
    drawn = _draw_pair(panels[0], theme, curves, names.TRAIN_LOSS, names.VAL_LOSS)
    drawn += _draw_references(panels[0], theme, references, "{:.4g}")
    panels[0].legend()
    if _spans_a_decade(np.concatenate(drawn)):
        panels[0].set_ylabel("loss (log scale)")
        panels[0].set_yscale("log")
        # A range of one or two decades has few powers of ten in it: also label 2 and 5 times them.
        panels[0].yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        panels[0].yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        panels[0].minorticks_off()
    for axes, (name, label) in zip(panels[1:], slim.items(), strict=True):
        _draw_slim(axes, theme, *_finite(*curves[name])[:2], label, log=name == names.GRAD_NORM)
    figure.align_ylabels()
    _step_axis(panels)
    return figure


def metric_curves(theme: Theme, curves: Curves, name: str, is_share: bool, references: References) -> Figure:
    """Draw what else a loss reduction names, in training and in validation; a share in percent."""
    figure = Figure(figsize=SIZE, layout="constrained")
    axes = figure.subplots()
    axes.set_title(name.replace("_", " ").capitalize())
    axes.margins(y=0.08)
    drawn = _draw_pair(axes, theme, curves, f"train_{name}", f"val_{name}")
    drawn += _draw_references(axes, theme, references, "{:.1%}" if is_share else "{:.4g}")
    axes.legend()
    if is_share:
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        axes.set_ylim(_share_limits(drawn))
    _step_axis([axes])
    return figure


def _share_limits(curves: list[Array]) -> tuple[float, float]:
    """Give the steep rise of the first quarter at most as much height as all that follows; the rest is cut off."""
    values, later = np.concatenate(curves), np.concatenate([values[len(values) // 4 :] for values in curves])
    low = max(values.min(), 2 * later.min() - values.max())
    margin = 0.05 * (values.max() - low) or 0.05
    return max(low - margin, 0.0), min(values.max() + margin, 1.0)


def speed(curves: Curves) -> Iterator[tuple[str, str, str]]:
    """Give name, value and detail of what the clock and the machine said of a training."""
    medians = {name: float(np.median(values)) for name, (_, values) in curves.items()}
    rates = [name for name in medians if name.endswith(names.PER_SECOND)]
    for name in rates[-1:]:
        others = (f"{other.replace('_', ' ')}: {medians[other]:,.1f}" for other in rates[:-1])
        median = f"median of {len(curves[name][1]):,} measurements"
        yield name.replace("_", " "), f"{medians[name]:,.1f}", "\n".join((median, *others))
    if names.MFU in medians:
        yield "MFU", f"{medians[names.MFU]:.1%}", "of what the devices could compute; median"
    if names.MEMORY in curves:
        yield "memory", f"{curves[names.MEMORY][1].max():.3g} GiB", "the most that the first process held"


def _draw_pair(axes: Axes, theme: Theme, curves: Curves, train: str, val: str) -> list[Array]:
    """Draw a metric of both splits and return its values; training is noisy and gets a smoothed line."""
    drawn = []
    if train in curves:
        steps, values, broken = _finite(*curves[train])
        window = len(values) // 20
        if window > 1:
            axes.plot(steps, values, color=theme.train, alpha=0.4, linewidth=0.8, label=f"training{broken}")
            label = f"training, mean of {2 * (window // 2) + 1} points"
            axes.plot(steps, _smooth(values, window // 2), color=theme.train, label=label)
        else:
            axes.plot(steps, values, color=theme.train, label=f"training{broken}")
        drawn.append(values)
    if val in curves:
        steps, values, broken = _finite(*curves[val])
        label = f"validation{broken}"
        axes.plot(steps, values, color=theme.val, marker="o", markersize=4.5, linewidth=1.2, label=label)
        drawn.append(values)
    return drawn


def _draw_references(axes: Axes, theme: Theme, references: References, form: str) -> list[Array]:
    """Draw what other methods reach as level lines, and return their values."""
    finite = {name: value for name, value in references.items() if np.isfinite(value)}
    for (name, value), dashes in zip(finite.items(), cycle(DASHES), strict=False):
        label = f"{name}, {form.format(value)}"
        axes.axhline(value, color=theme.ink, linestyle=dashes, linewidth=1.1, label=label)
    return [np.array([value]) for value in finite.values()]


def _draw_slim(axes: Axes, theme: Theme, steps: Array, values: Array, label: str, log: bool) -> None:
    """Draw a curve where there is room for three ticks; a log axis shows what follows after a first peak."""
    axes.plot(steps, values, color=theme.muted, linewidth=1.1)
    top = values.max()
    ticks = np.unique(np.linspace(0, top, 3))
    if log and _spans_a_decade(values):
        axes.set_yscale("log")
        axes.minorticks_off()
        ticks, label = np.geomspace(values.min(), top, 3), f"{label} (log)"
    elif top > 0:
        axes.set_ylim(-0.06 * top, 1.1 * top)
    axes.set_yticks(ticks, [f"{tick:.2g}" for tick in ticks])
    axes.set_ylabel(label)


def _finite(steps: Array, values: Array) -> tuple[Array, Array, str]:
    """Return what can be drawn of a curve, and words for the legend that tell of the rest."""
    good = np.isfinite(values)
    broken = f" (not finite at {(~good).sum():,} of {len(good):,} points)"
    return steps[good], values[good], "" if good.all() else broken


def _spans_a_decade(values: Array) -> bool:
    return bool(0 < 10 * values.min() < values.max())


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
