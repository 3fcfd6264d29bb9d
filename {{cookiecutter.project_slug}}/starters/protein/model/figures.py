"""What the report shows of proteins (drawing/theme.py): guesses by residue, embeddings, answers and the worst ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from sklearn.metrics import auc, roc_curve

from ..drawing.pictures import MOST_POINTS, answers, cloud, colour_of, confusion, latent_space, shortened
from ..drawing.theme import SIZE, Array, Drawing, Theme
from .item import AMINO_ACIDS
from .measures.scores import auroc, told_apart

SHARES = ("accuracy", "auroc", "fill")

MOST_ROWS = 20  # of a table
FEW_CLASSES = 8  # whose legend has room beside the ROC curves

Outputs = Mapping[str, Array]


def pictures(outputs: dict[str, Array], settings: dict[str, Any]) -> Iterator[Drawing]:
    """Show what the network made of the test proteins, in the arrays that results.py keeps."""
    classes = outputs.get("probability", np.zeros(0)).shape[-1]
    names = settings.get("model", {}).get("classes") or [str(number) for number in range(classes)]
    if "masked" in outputs:
        yield _guesses(outputs["masked"].sum(axis=0), outputs["right"].sum(axis=0))
    if "embedding" in outputs and np.isfinite(outputs["embedding"]).all():
        yield _embedding(outputs, names)
    if "probability" in outputs and np.isfinite(outputs["probability"]).all():
        yield from _classes(outputs, names)
    if "value" in outputs and np.isfinite(outputs["value"]).all():
        yield from _values(outputs)


def _guesses(masked: Array, right: Array) -> Drawing:
    share = right.sum() / max(masked.sum(), 1)
    caption = f"Of {masked.sum():,} masked residues of the test set {share:.1%} are guessed right. Who always guesses "
    caption += "the most frequent one is right about that one, and about no other."
    return Drawing("residues", caption, partial(guesses, masked=masked, right=right))


def _embedding(outputs: Outputs, names: Sequence[str]) -> Drawing:
    step = max(len(outputs["embedding"]) // MOST_POINTS, 1)
    latent, label = outputs["embedding"][::step], outputs.get("label", np.zeros(0))[::step]
    caption = f"What the network makes of {len(latent):,} test proteins: the mean of their residues, seen along the "
    caption += "two directions of largest variance (PCA)."
    if label.ndim != 1 or not len(label):
        return Drawing("embedding", caption, partial(plain_cloud, latent=latent))
    if label.dtype.kind == "f":
        return Drawing("embedding", caption, partial(valued_cloud, latent=latent, value=label))
    caption += " A badge stands at the median of its class."
    return Drawing("embedding", caption, partial(latent_space, latent=latent, label=label, names=names))


def _labelled(outputs: Outputs, answer: str) -> tuple[Array, Array, str]:
    """Return labels [n] and the answers to them [n, ...], and what they are of."""
    where = outputs["is_labelled"]
    return outputs["label"][where], outputs[answer][where], "proteins" if where.ndim == 1 else "residues"


def _classes(outputs: Outputs, names: Sequence[str]) -> Iterator[Drawing]:
    """Compare a classifier's answers with the labels."""
    label, probability, items = _labelled(outputs, "probability")
    answer = probability.argmax(axis=1)
    counts = np.zeros((len(names),) * 2, dtype=np.int64)
    np.add.at(counts, (label, answer), 1)
    caption = f"{(answer != label).sum():,} of {len(label):,} test {items} are classified wrong. The colour is the "
    caption += "square root of the share of the row, so that rare mistakes show; recall is the share of a class that "
    caption += "was found."
    yield Drawing("confusion", caption, partial(confusion, counts=counts, names=names))
    if told_apart(label, len(names)):
        caption = "The share of a class that is found, over the share of the others that are taken for it. The mean "
        caption += f"AUROC of {len(names)} classes is {auroc(label, probability):.3f}."
        yield Drawing("roc", caption, partial(roc_curves, label=label, probability=probability, names=names))
    yield from _wrong_residues(outputs) if items == "residues" else _wrong_proteins(outputs, names)


def _wrong_proteins(outputs: Outputs, names: Sequence[str]) -> Iterator[Drawing]:
    label, probability = outputs["label"], outputs["probability"]
    answer, sureness = probability.argmax(axis=1), probability.max(axis=1)
    wrong = np.flatnonzero((answer != label) & outputs["is_labelled"])
    worst = wrong[np.argsort(-sureness[wrong], kind="stable")][:MOST_ROWS]
    if len(worst):
        rows = [(outputs["name"][n], names[label[n]], names[answer[n]], f"{sureness[n]:.1%}") for n in worst]
        caption = "The proteins that were classified wrong, and the probability that the network gave to its answer."
        header = ("protein", "true", "predicted", "probability")
        yield Drawing("mistakes", caption, partial(table, title="Most confident mistakes", header=header, rows=rows))


def _wrong_residues(outputs: Outputs) -> Iterator[Drawing]:
    where = outputs["is_labelled"]
    wrong = (where & (outputs["probability"].argmax(axis=-1) != outputs["label"])).sum(axis=1)
    residues = where.sum(axis=1)
    share = wrong / np.maximum(residues, 1)
    worst = [n for n in np.argsort(-share, kind="stable")[:MOST_ROWS] if wrong[n]]
    if worst:
        rows = [(outputs["name"][n], f"{residues[n]:,}", f"{wrong[n]:,}", f"{share[n]:.1%}") for n in worst]
        caption = "The proteins with the largest share of residues that were classified wrong."
        header = ("protein", "labelled residues", "wrong", "share")
        yield Drawing("mistakes", caption, partial(table, title="Hardest proteins", header=header, rows=rows))


def _values(outputs: Outputs) -> Iterator[Drawing]:
    """Compare predicted values with the true ones."""
    label, value, items = _labelled(outputs, "value")
    caption = f"Predicted values over the true ones: {min(len(label), MOST_POINTS):,} of {len(label):,} test {items}."
    yield Drawing("values", caption, partial(answers, name="value", answer=value, truth=label))
    if items == "proteins":
        names, error = outputs["name"][outputs["is_labelled"]], value - label
        worst = np.argsort(-np.abs(error), kind="stable")[:MOST_ROWS]
        rows = [(names[n], *(f"{number[n]:#.4g}" for number in (label, value, error))) for n in worst]
        header = ("protein", "true", "predicted", "error")
        caption = "The test proteins whose predicted value is farthest from the true one."
        yield Drawing("mistakes", caption, partial(table, title="Largest errors", header=header, rows=rows))


def guesses(theme: Theme, masked: Array, right: Array) -> Figure:
    """Draw how often each amino acid, [20], is guessed right, beside how many of the masked it is."""
    order = np.argsort(-masked, kind="stable")
    places, letters = np.arange(len(order)), [AMINO_ACIDS[n] for n in order]
    figure = Figure(figsize=SIZE, layout="constrained")
    axes = figure.subplots()
    axes.set_title("Masked residues by amino acid")
    accuracy = (right / np.maximum(masked, 1))[order]
    axes.bar(places - 0.2, accuracy, 0.4, color=theme.train, label="guessed right")
    axes.bar(places + 0.2, masked[order] / max(masked.sum(), 1), 0.4, color=theme.muted, label="share of all masked")
    axes.set_xticks(places, letters)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.grid(axis="y")
    axes.legend()
    return figure


def plain_cloud(theme: Theme, latent: Array) -> Figure:
    """Scatter vectors that have no labels."""
    figure, _ = cloud(latent, np.full(len(latent), theme.train))
    return figure


def valued_cloud(theme: Theme, latent: Array, value: Array) -> Figure:
    """Scatter vectors that have values, from one colour of the theme to the other."""
    ramp = LinearSegmentedColormap.from_list("values", [theme.train, theme.muted, theme.val])
    low, high = np.quantile(value, (0.02, 0.98))
    figure, _ = cloud(latent, value, cmap=ramp, vmin=low, vmax=high)
    points = figure.axes[0].collections[0]
    bar = figure.colorbar(points, location="bottom", shrink=0.6, extend="both", label="true value")
    bar.outline.set_visible(False)
    return figure


def roc_curves(theme: Theme, label: Array, probability: Array, names: Sequence[str]) -> Figure:
    """Draw the ROC curve of each class against the rest; of two classes only that of the last, as both are alike."""
    figure = Figure(figsize=SIZE, layout="constrained")
    axes = figure.subplots()
    axes.set_title("ROC curves")
    for c in told_apart(label, len(names))[-1 if len(names) == 2 else 0 :]:
        false, true, _ = roc_curve(label == c, probability[:, c])
        words = f"{auc(false, true):.3f}  {shortened(names[c], 22)}"
        axes.plot(false, true, color=colour_of(c), linestyle="-" if c < 10 else "--", linewidth=1.4, label=words)
    axes.plot([0, 1], [0, 1], color=theme.muted, linestyle=":", linewidth=1, label="0.500  chance")
    axes.set_aspect("equal")
    axes.set_xlabel("share of the others that are taken for the class")
    axes.set_ylabel("share of the class that is found")
    axes.grid()
    if len(names) <= FEW_CLASSES:
        axes.legend(loc="lower right", title="AUROC", alignment="left", frameon=True, edgecolor="none")  # over the grid
    else:
        figure.legend(loc="outside right upper", title="AUROC", alignment="left", fontsize=8)
    return figure


def table(theme: Theme, title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> Figure:
    """Write rows of four texts: a name on the left, the others flush right."""
    figure = Figure(figsize=SIZE, layout="constrained")
    axes = figure.subplots()
    axes.set_title(title)
    axes.set_axis_off()
    axes.set(xlim=(0, 1), ylim=(MOST_ROWS + 0.5, -1))
    for place, row in enumerate((header, *rows)):
        colour = theme.ink if place else theme.muted
        for x, text in zip((0, 0.59, 0.84, 1), row, strict=True):
            side, most = ("right", 18) if x else ("left", 24)
            axes.text(x, place - 0.5, shortened(text, most), ha=side, va="center", color=colour, fontsize=8.5)
        axes.axhline(place, color=theme.grid, linewidth=0.8)
    return figure
