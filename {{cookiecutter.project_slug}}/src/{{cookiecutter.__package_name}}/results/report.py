"""The report of a finished run: pictures and tables a person wants to look at, in one self-contained page.

`make_report` shows only what the run folder holds (`contracts/names.py` lists the files) and works without torch, so
a run copied from a GPU machine can be looked at on a laptop. If the run started from another, that one's story comes
first. Curves and figures are there for every model (`curves.py`); what is shown of outputs says `model/figures.py`.
"""

import math
import re
import shlex
import sys
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from ..contracts import names
from ..contracts.errors import UserError, need
from ..contracts.files import check_only, write_whole_folder
from ..contracts.given import Given, NotGivenError
from ..contracts.reading import NO_NUMBERS, in_flags, in_yaml, mapping, read_evaluation, read_metrics, read_whole
from ..contracts.settings import by_name
from ..drawing.theme import Array, Picture, render
from ..model import figures
from . import curves
from .drawings import check_shares, drawings, figure
from .page import Chapter, page, shows

COMMAND = (__package__ or "").partition(".")[0].replace("_", "-")  # as the installed package calls its command


class ReportError(UserError):
    """No report can be made from this folder; the message says what is wrong and how to mend it."""


@dataclass(frozen=True)
class Run:
    """What a run folder holds; what is not there yet is empty."""

    folder: Path
    curves: dict[str, tuple[Array, Array]]  # metric name -> (steps, values)
    settings: dict[str, Any]
    evaluation: dict[str, Any]
    outputs: dict[str, Array]


def make_report(run: Path) -> Path:
    """Write <run>/report/ with PNGs and one self-contained page, replacing an older report as a whole.

    Args:
        run: The folder of a run; one that is not evaluated yet gives a report of its curves.

    Returns:
        The path of the page.

    Raises:
        UserError: the folder holds no run, a file in it cannot be read, <run>/report/ holds something else, or
            `model/figures.py` does not give what it should.
    """
    need(figures, "SHARES", "pictures")
    check_shares(figures.SHARES)
    run = Path(run)
    runs, note = read_chain(run)
    _check_room(run / names.REPORT_FOLDER)
    chapters = [_chapter(part, number, len(runs)) for number, part in enumerate(runs, start=1)]
    if note:
        chapters[0].notes.insert(0, note)
    if note := _outdated(runs[-1]):
        print(note, file=sys.stderr)
    with write_whole_folder(run / names.REPORT_FOLDER) as folder:
        for name, (picture, _) in chapters[-1].pictures.items():
            (folder / f"{name}.png").write_bytes(picture.light)
        (folder / names.REPORT_PAGE).write_bytes(page(run.resolve().name, chapters).encode())
    return run / names.REPORT_FOLDER / names.REPORT_PAGE


def _check_room(folder: Path) -> None:
    """Raise a UserError unless a folder can be replaced: it is new, empty, or an older report, of whatever pictures."""
    shown = (folder / names.REPORT_PAGE).read_text(errors="replace") if (folder / names.REPORT_PAGE).is_file() else ""
    ours = [path.name for path in folder.glob("*.png") if path.is_file() and shows(shown, path.read_bytes())]
    check_only(folder, [names.REPORT_PAGE, *ours], "report", "a new report would delete it; move it to another folder")


# From files to runs.


def read_run(folder: Path) -> Run:
    """Read one run folder; only the metrics have to be there."""
    if not folder.is_dir():
        raise ReportError(f"{folder} is not a folder: check the path, or train a run with `{COMMAND} pretrain`")
    if not (folder / names.METRICS_FILE).is_file():
        hint = f"is it a run folder? A run lies in runs/ and writes {names.METRICS_FILE} at its first logged step"
        raise ReportError(f"{folder} has no {names.METRICS_FILE}: {hint}")
    evaluation = folder / names.EVALUATION_FILE
    return Run(
        folder,
        curves=_read_curves(folder / names.METRICS_FILE),
        settings=_read(folder / names.SETTINGS_FILE, _read_settings, "mend it, or restore it from a copy"),
        evaluation=read_evaluation(evaluation) if evaluation.exists() else {},
        outputs=_read(folder / names.OUTPUTS_FILE, _read_outputs, f"write it again with `{_evaluate(folder)}`"),
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
        except UserError as error:
            return runs, f"The run this one started from, {start}, is left out. {error}."
    return runs, ""


def _read(path: Path, reader: Callable[[Path], dict[str, Any]], mend: str) -> dict[str, Any]:
    """Read a file that may not be there yet; whatever is wrong with it becomes one line that names it."""
    if not path.exists():
        return {}
    try:
        return reader(path)
    except (OSError, EOFError, TypeError, ValueError, KeyError, yaml.YAMLError, zipfile.BadZipFile) as error:
        raise ReportError(f"{path} cannot be used ({' '.join(str(error).split())}): {mend}") from error


def _read_curves(path: Path) -> dict[str, tuple[Array, Array]]:
    """Read the sparse table column by column; of a step logged twice, as after a resume, the later row counts."""
    columns: dict[str, dict[float, float]] = {}
    for row in read_metrics(path)[1]:
        for name, cell in row.items():
            if cell and name != names.STEP:
                columns.setdefault(name, {})[float(row[names.STEP])] = float(cell)
    if not columns:
        raise ReportError(f"{path} cannot be used (no step is logged in it): train the run again")
    pairs = {name: np.array(sorted(column.items())) for name, column in columns.items()}
    return {name: (pair[:, 0], pair[:, 1]) for name, pair in pairs.items()}


def _read_settings(path: Path) -> dict[str, Any]:
    settings = mapping(yaml.safe_load(read_whole(path)) or {})
    int(mapping(settings.get("training", {})).get("global_batch_size", 0))  # the one number that is counted with here
    return settings


def _read_outputs(path: Path) -> dict[str, Array]:
    with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        outputs = dict(arrays)
    lengths = {name: len(array) for name, array in outputs.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"its arrays should have one row an item, and have {lengths}")
    return outputs


def _evaluate(folder: Path) -> str:
    return f"{COMMAND} evaluate --from {shlex.quote(str(folder))}"


# From a run to its chapter.


def _chapter(run: Run, number: int, runs: int) -> Chapter:
    title = "Finetuning" if run.settings.get(names.FROM_RUN) else "Pretraining" if number < runs else "Training"
    notes = []
    if not (run.outputs and run.evaluation):
        notes.append(f"Not evaluated yet. For the test figures and the other pictures: {_evaluate(run.folder)}")
    if note := _outdated(run):
        notes.append(note)
    if changes := run.evaluation.get(names.CHANGED):
        notes.append(f"The test figures were made with other settings than the run's own: {in_flags(changes)}")
    for name, (steps, values) in run.curves.items():
        if broken := np.flatnonzero(~np.isfinite(values)).tolist():
            count = f"{len(broken):,} of {len(values):,} logged steps"
            notes.append(f"{name} is not finite at {count}, first at step {steps[broken[0]]:,.0f}.")
    pictures = dict(_curve_pictures(run))
    pictures |= dict(_output_pictures(run, taken=list(pictures)))
    headlines, settings = list(_headlines(run)), [(name, in_yaml(value)) for name, value in by_name(run.settings)]
    return Chapter(f"{number}. {title}" if runs > 1 else title, str(run.folder), headlines, notes, pictures, settings)


def _outdated(run: Run) -> str:
    """Say that the run has become better since it was scored, if its evaluation tells the step that was scored."""
    scored, best = run.evaluation.get(names.STEP), _best_step(run)
    if scored is None or best is None or best == scored:
        return ""
    lowest = f"the lowest {names.VAL_LOSS} is that of step {best:,.0f}"
    return f"The test figures are those of step {scored:,.0f}, and {lowest}. For its figures: {_evaluate(run.folder)}"


def _best_step(run: Run) -> float | None:
    """Return the step of the lowest loss of a validation, whose checkpoint is the best; None if there is none."""
    steps, losses = run.curves.get(names.VAL_LOSS, (np.zeros(0), np.zeros(0)))
    return float(steps[np.nanargmin(losses)]) if np.isfinite(losses).any() else None


def _headlines(run: Run) -> Iterator[tuple[str, str, str]]:
    """Give name, value and detail of the few figures that sum a run up."""
    for name, value in run.evaluation.items():
        if name not in (names.NUM_ITEMS, names.STEP, *NO_NUMBERS):
            figure = name.removeprefix("test_")
            others = (f"{other}: {_written(figure, reached)}" for other, reached in _references(run, figure).items())
            details = filter(None, (_certainty(run, name), *others))
            yield name.replace("_", " "), _written(figure, value), "\n".join(details)
    last = max(steps[-1] for steps, _ in run.curves.values())
    yield "steps", f"{last:,.0f}", "of the optimizer"
    if (best := _best_step(run)) is not None:
        yield "best step", f"{best:,.0f}", f"lowest {names.VAL_LOSS}: its weights are evaluated and exported"
    if global_batch := run.settings.get("training", {}).get("global_batch_size"):
        yield "samples seen", f"{last * global_batch:,.0f}", "in training, repeats counted"
    yield from curves.speed(run.curves)


def _certainty(run: Run, name: str) -> str:
    """Say what a figure of the test set is the mean of, and of a share how uncertain that is."""
    counts, counted = run.evaluation[names.COUNTS], run.evaluation.get(names.COUNTED, "items")
    count = int(counts.get(name, 0))
    if counts.get(f"test_{names.LOSS}", count) != count:
        counted = "values"  # of something else than the loss counts
    over = f"{count:,} test items" if counted == "items" else f"{count:,} {counted} of the test set"
    if count and name.removeprefix("test_") in figures.SHARES:
        error = math.sqrt(max(run.evaluation[name] * (1 - run.evaluation[name]), 0) / count)
        return f"\N{PLUS-MINUS SIGN} {error:.2%} (standard error, {over})"
    return f"mean of {over}" if count else ""


def _written(figure: str, value: float) -> str:
    return f"{value:.2%}" if figure in figures.SHARES else f"{value:.4g}"


def _references(run: Run, figure: str) -> dict[str, float]:
    """Return what other methods reach in a figure of the test set, by their names."""
    references = run.evaluation.get(names.REFERENCES, {})
    return {name: reached[figure] for name, reached in references.items() if figure in reached}


Pictures = Iterator[tuple[str, tuple[Picture, str]]]  # name -> (picture, caption)


def _curve_pictures(run: Run) -> Pictures:
    references = _references(run, names.LOSS)
    if caption := _caption(run, (names.TRAIN_LOSS, names.VAL_LOSS), references):
        yield "loss", (render(partial(curves.loss_curves, curves=run.curves, references=references)), caption)
    matches = (re.fullmatch("(?:train|val)_(.+)", name) for name in run.curves if name != names.VAL_LOSS)
    for name in dict.fromkeys(match[1] for match in matches if match):
        references, is_share = _references(run, name), name in figures.SHARES
        if caption := _caption(run, (f"train_{name}", f"val_{name}"), references):
            draw = partial(curves.metric_curves, curves=run.curves, name=name, is_share=is_share, references=references)
            yield name, (render(draw), caption)


def _caption(run: Run, pair: tuple[str, str], references: dict[str, float]) -> str:
    """Tell the last values of a pair of curves, or nothing if there is no finite value to draw."""
    logged = {name: run.curves[name][1] for name in pair if name in run.curves}
    if not any(np.isfinite(values).any() for values in logged.values()):
        return ""
    ends = ", ".join(f"{name} {values[-1]:.4g}" for name, values in logged.items())
    return f"Last values: {ends}." + (" Level lines: other methods, on the test set." if references else "")


def _output_pictures(run: Run, taken: list[str]) -> Pictures:
    """Show what the network made of the test items, as far as `evaluate` left it.

    Raises:
        ReportError: the outputs are not those that this version of the project draws.
    """
    if not len(run.outputs.get(names.IDX, ())):
        return
    try:
        for drawing in drawings(figures.pictures(Given(run.outputs), run.settings), taken):
            yield drawing.name, (render(partial(figure, drawing)), drawing.caption)
    except NotGivenError as error:
        what = f"{run.folder / names.OUTPUTS_FILE} has no {error}, which model/figures.py draws"
        raise ReportError(f"{what}: write it again with `{_evaluate(run.folder)}`") from error
