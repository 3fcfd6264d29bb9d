"""What a person sees of the figures: tables and a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from generated import module


def print_rows(rows: list[dict[str, Any]]) -> None:
    """Print a table."""
    columns = list(rows[0])
    widths = [max(len(name), *(len(str(row[name])) for row in rows)) for name in columns]
    for line in ({name: name for name in columns}, *rows):
        print("  ".join(str(line[name]).rjust(width) for name, width in zip(columns, widths, strict=True)))
    print()


def plot_growth(rows: list[dict[str, Any]], machine: str, path: Path) -> None:
    """Draw the milliseconds of a step over batch, micro batches and ranks, as far as there are several of them."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    base = {"batch": 128, "micro_batches": 1, "ranks": 1}
    titles = {
        "batch": "batch of one process",
        "micro_batches": "micro batches of a batch of 128",
        "ranks": "ranks that share a batch of 128",
    }
    points = {
        name: sorted(
            (row[name], row["milliseconds"])
            for row in rows
            if all(row[other] == value for other, value in base.items() if other != name)
        )
        for name in titles
    }
    shown = [name for name in titles if len(points[name]) > 1]  # with one GPU there is one rank
    figure, axes = plt.subplots(1, len(shown), figsize=(3.7 * len(shown), 3.4), layout="constrained")
    for axis, name in zip(axes, shown, strict=True):
        axis.plot(*zip(*points[name], strict=True), marker="o")
        axis.set(xlabel=titles[name], xscale="log", xticks=[x for x, _ in points[name]])
        if name == "batch":
            axis.set(yscale="log")  # a straight line is a step as long as its batch is large
            axis.yaxis.set_major_locator(matplotlib.ticker.LogLocator(subs=(1, 2, 3, 5)))
            axis.yaxis.set_major_formatter(matplotlib.ticker.ScalarFormatter())
            axis.yaxis.set_minor_locator(matplotlib.ticker.NullLocator())
        else:
            axis.set(ylim=(0, 1.1 * max(milliseconds for _, milliseconds in points[name])))
        axis.xaxis.set_major_formatter(matplotlib.ticker.ScalarFormatter())
        axis.xaxis.set_minor_locator(matplotlib.ticker.NullLocator())
    axes[0].set_ylabel("milliseconds a step")
    figure.suptitle(machine, fontsize=9)
    with module("contracts.files").write_whole(path, "wb") as file:
        figure.savefig(file, dpi=120, format="png")
