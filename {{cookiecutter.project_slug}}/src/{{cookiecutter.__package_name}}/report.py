"""The report of a finished run: pictures and tables a person wants to look at, in one self-contained page.

`make_report` shows only what the run folder holds (`names.py` lists the files) and works without torch, so a run copied
from a GPU machine can be looked at on a laptop. If the run started from another, that one's story comes first.
This file reads run folders, chooses what is shown and puts it in place; `report_curves.py` and `report_figures.py`
draw, `report_html.py` makes the page.
"""

import csv
import json
import math
import re
import shlex
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from . import names, report_curves
from . import report_figures as figures
from .errors import UserError
from .files import write_whole_folder
from .report_figures import Array, Picture
from .report_html import Chapter, page

COMMAND = (__package__ or "").replace("_", "-")  # as the installed package calls its command


class ReportError(UserError):
    """No report can be made from this folder; the message says what is wrong and how to mend it."""


@dataclass(frozen=True)
class Run:
    """What a run folder holds; what is not there yet is empty."""

    folder: Path
    curves: dict[str, tuple[Array, Array]]  # metric name -> (steps, values)
    settings: dict[str, Any]
    evaluation: dict[str, float]
    outputs: dict[str, Array]


def make_report(run: Path) -> Path:
    """Write <run>/report/ with PNGs and one self-contained page, replacing an older report as a whole.

    Args:
        run: The folder of a run; one that is not evaluated yet gives a report of its curves.

    Returns:
        The path of the page.

    Raises:
        ReportError: If the folder holds no run, or a file in it cannot be read.
    """
    run = Path(run)
    runs, note = read_chain(run)
    chapters = [_chapter(part, f"{i}. " if len(runs) > 1 else "") for i, part in enumerate(runs, start=1)]
    if note:
        chapters[0].notes.insert(0, note)
    with write_whole_folder(run / names.REPORT_FOLDER) as folder:
        for name, (picture, _) in chapters[-1].pictures.items():
            (folder / f"{name}.png").write_bytes(picture.light)
        (folder / names.REPORT_PAGE).write_bytes(page(run.resolve().name, chapters).encode())
    return run / names.REPORT_FOLDER / names.REPORT_PAGE


# From files to runs.


def read_run(folder: Path) -> Run:
    """Read one run folder; only the metrics have to be there."""
    if not folder.is_dir():
        raise ReportError(f"{folder} is not a folder: check the path, or train a run with `{COMMAND} pretrain`")
    if not (folder / names.METRICS_FILE).is_file():
        hint = f"is it a run folder? A run lies in runs/ and writes {names.METRICS_FILE} at its first logged step"
        raise ReportError(f"{folder} has no {names.METRICS_FILE}: {hint}")
    again = f"write it again with `{_evaluate(folder)}`"
    return Run(
        folder,
        curves=_read(folder / names.METRICS_FILE, _read_metrics, "train the run again, or mend that line"),
        settings=_read(folder / names.SETTINGS_FILE, _read_settings, "mend it, or delete it to leave the settings out"),
        evaluation=_read(folder / names.EVALUATION_FILE, _read_evaluation, again),
        outputs=_read(folder / names.OUTPUTS_FILE, _read_outputs, again),
    )


def read_chain(run: Path) -> tuple[list[Run], str]:
    """Read a run and those it started from, oldest first, and a note if the chain cannot be followed to its start."""
    runs = [read_run(run)]
    seen = {run.resolve()}
    while start := runs[0].settings.get(names.FROM_RUN):
        parent = Path(str(start))
        if not parent.is_dir():  # both were moved, or the report is made from another working directory
            parent = runs[0].folder.resolve().parent / parent.name
        if parent.resolve() in seen:
            return runs, f"{runs[0].folder} says that it started from {start}, which closes a circle. It is cut here."
        seen.add(parent.resolve())
        try:
            runs.insert(0, read_run(parent))
        except ReportError as error:
            return runs, f"The run this one started from, {start}, is left out. {error}."
    return runs, ""


def _read(path: Path, reader: Callable[[Path], dict[str, Any]], mend: str) -> dict[str, Any]:
    """Read a file that may not be there yet; whatever is wrong with it becomes one line that names it."""
    if not path.exists():
        return {}
    try:
        return reader(path)
    except (OSError, EOFError, ValueError, KeyError, yaml.YAMLError, zipfile.BadZipFile) as error:
        raise ReportError(f"{path} cannot be used ({' '.join(str(error).split())}): {mend}") from error


def _read_metrics(path: Path) -> dict[str, tuple[Array, Array]]:
    """Read the sparse table column by column; of a step logged twice, as after a resume, the later row counts."""
    columns: dict[str, dict[float, float]] = {}
    with path.open(newline="", encoding="utf-8") as lines:
        for row in csv.DictReader(lines):
            for name, cell in row.items():
                if cell and name != names.STEP and row.get(names.STEP):
                    columns.setdefault(name, {})[float(row[names.STEP])] = float(cell)
    if not columns:
        raise ValueError("no step is logged in it")
    pairs = {name: np.array(sorted(column.items())) for name, column in columns.items()}
    return {name: (pair[:, 0], pair[:, 1]) for name, pair in pairs.items()}


def _read_settings(path: Path) -> dict[str, Any]:
    settings = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    if not isinstance(settings, dict):
        raise ValueError("it is not a mapping of names to values")
    return settings


def _read_evaluation(path: Path) -> dict[str, float]:
    evaluation = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(evaluation, dict):
        raise ValueError("it is not a mapping of names to values")
    return {name: float(value) for name, value in evaluation.items()}


def _read_outputs(path: Path) -> dict[str, Array]:
    with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        outputs = dict(arrays)
    lengths = {name: len(array) for name, array in outputs.items()}
    if len(set(lengths.values())) > 1 or names.LABEL not in outputs:
        raise ValueError(f"its arrays should have one row an item, with {names.LABEL} among them, and have {lengths}")
    return outputs if lengths[names.LABEL] else {}


def _evaluate(folder: Path) -> str:
    return f"{COMMAND} evaluate --from {shlex.quote(str(folder))}"


# From a run to its chapter.


def _chapter(run: Run, number: str) -> Chapter:
    classifies = names.PROBABILITY in run.outputs or names.VAL_ACCURACY in run.curves
    title = "Finetuning" if run.settings.get(names.FROM_RUN) else "Training" if classifies else "Pretraining"
    notes = []
    if not (run.outputs and run.evaluation):
        notes.append(f"Not evaluated yet. For the test figures and the other pictures: {_evaluate(run.folder)}")
    for name, (steps, values) in run.curves.items():
        if broken := np.flatnonzero(~np.isfinite(values)).tolist():
            count = f"{len(broken):,} of {len(values):,} logged steps"
            notes.append(f"{name} is not finite at {count}, first at step {steps[broken[0]]:,.0f}.")
    pictures = {**dict(_curve_pictures(run.curves)), **dict(_output_pictures(run.outputs))}
    return Chapter(number + title, str(run.folder), list(_headlines(run)), notes, pictures, list(_flat(run.settings)))


def _headlines(run: Run) -> Iterator[tuple[str, str, str]]:
    """Give name, value and detail of the few figures that sum a run up."""
    items = int(run.evaluation.get(names.NUM_ITEMS, 0))
    of_items = f"of {items:,} test items" if items else ""
    if (accuracy := run.evaluation.get(names.TEST_ACCURACY)) is not None:
        error = math.sqrt(max(accuracy * (1 - accuracy), 0) / items) if items else math.nan
        detail = f"\N{PLUS-MINUS SIGN} {error:.2%} (standard error, {items:,} test items)" if items else ""
        yield "test accuracy", f"{accuracy:.2%}", detail
    for name, value in run.evaluation.items():
        if name not in (names.TEST_ACCURACY, names.NUM_ITEMS):
            yield name.replace("_", " "), f"{value:.4g}", f"mean {of_items}" if items else ""
    last = max(steps[-1] for steps, _ in run.curves.values())
    yield "steps", f"{last:,.0f}", "of the optimizer"
    if global_batch := run.settings.get("training", {}).get("global_batch_size"):
        yield "samples seen", f"{last * global_batch:,.0f}", "in training, repeats counted"


def _flat(settings: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Give each setting under its dotted name, which is also its name on the command line."""
    for name, value in settings.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", yaml.safe_dump(value, default_flow_style=True).removesuffix("...\n").strip()


Pictures = Iterator[tuple[str, tuple[Picture, str]]]  # name -> (picture, caption)


def _curve_pictures(curves: dict[str, tuple[Array, Array]]) -> Pictures:
    if losses := _ends(curves, (names.TRAIN_LOSS, names.VAL_LOSS)):
        yield "loss", (figures.render(report_curves.loss_curves, curves), losses)
    logged = (re.fullmatch("(?:train|val)_(.+)", name) for name in curves if name != names.VAL_LOSS)
    for name in dict.fromkeys(match[1] for match in logged if match):
        if ends := _ends(curves, (f"train_{name}", f"val_{name}")):
            yield name, (figures.render(report_curves.metric_curves, curves, name), ends)


def _ends(curves: dict[str, tuple[Array, Array]], pair: tuple[str, str]) -> str:
    """Tell the last values of a pair of curves, or nothing if there is no finite value to draw."""
    logged = {name: curves[name][1] for name in pair if name in curves}
    ends = ", ".join(f"{name} {values[-1]:.4g}" for name, values in logged.items())
    return f"Last values: {ends}." if any(np.isfinite(values).any() for values in logged.values()) else ""


def _output_pictures(out: dict[str, Array]) -> Pictures:
    """Show what the network made of the test items, as far as `evaluate` left it."""
    label, image = out.get(names.LABEL), out.get(names.IMAGE)
    if image is not None and (after := out.get(names.RECONSTRUCTION)) is not None:
        error = figures.item_errors(image, after).mean()
        caption = "Two test items of each class, and below each its mean squared error, of pixels "
        caption += "clipped to 0 and 1 (the loss is of unclipped ones, and a little larger). "
        caption += f"The mean over all {len(image):,} test items is {error:.4f}."
        yield "reconstructions", (figures.render(figures.reconstructions, image, after, label), caption)
    if (latent := out.get(names.LATENT)) is not None and np.isfinite(latent).all():
        caption = "What the encoder makes of the test items, seen along the two directions of largest variance "
        caption += f"(PCA). {min(len(latent), figures.MOST_POINTS):,} of {len(latent):,} are drawn. A badge stands at "
        caption += "the median of its class."
        yield "latent", (figures.render(figures.latent_space, latent, label), caption)
    for name, answer in out.items():
        truth = out.get(f"{names.TRUTH}{name}")
        if truth is not None and answer.shape == truth.shape and np.isfinite(answer).all():
            caption = "Each point is a test item; on the line both are equal. The mean distance is "
            caption += f"{np.abs(answer - truth).mean():.4g}, and the true values have a standard deviation of "
            caption += f"{truth.std():.4g}."
            yield f"predicted_{name}", (figures.render(figures.answers, name, answer, truth), caption)
    if label is not None and (probability := out.get(names.PROBABILITY)) is not None:
        yield from _answer_pictures(label, probability, image)


def _answer_pictures(label: Array, probability: Array, image: Array | None) -> Pictures:
    """Compare the classifier's answers with the labels: all of them as counts, the worst ones as images."""
    answer, sureness = probability.argmax(axis=1), probability.max(axis=1)
    counts = np.zeros((max(probability.shape[1], int(label.max()) + 1),) * 2, dtype=np.int64)
    np.add.at(counts, (label, answer), 1)
    wrong = np.flatnonzero(answer != label)
    caption = f"{len(wrong):,} of {len(label):,} test items are classified wrong. The colour is the square root of the "
    caption += "share of the row, so that rare mistakes show; recall is the share of a class that was found."
    yield "confusion", (figures.render(figures.confusion, counts), caption)
    if len(wrong) and image is not None:
        worst = wrong[np.argsort(-sureness[wrong], kind="stable")][: math.prod(figures.MISTAKE_GRID)]
        titles = [(f"{label[i]} \N{RIGHTWARDS ARROW} {answer[i]}", f"{sureness[i]:.1%} sure") for i in worst]
        caption = "True class \N{RIGHTWARDS ARROW} predicted class, and the probability the network gave to its answer."
        yield "mistakes", (figures.render(figures.mistakes, image[worst], titles), caption)
