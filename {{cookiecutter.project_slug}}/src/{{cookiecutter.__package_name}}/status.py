"""Says how a run is doing, from the files in its folder alone, also while they are being written. No torch.

A last line that is not whole yet does not count, nor what is gone when it is looked at: the next look finds more.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import Any

import yaml

from .contracts import names
from .contracts.errors import UserError
from .contracts.files import as_path
from .contracts.reading import first_comment, in_flags, mapping, read_evaluation, read_metrics, read_whole
from .runtime.lock import LOCK_FILE, holder, named
from .runtime.seal import SEAL, damage, is_sealed, marker, step_of
from .saying import PROG, Parser, in_words, say, to_paste

MEASURED = 10
"""Logged steps whose median is the speed of now."""
WHOLE = "whole"

Row = dict[str, str]


def show(argv: list[str], description: str) -> int:
    """Say how the run is doing that the words of the command line name; UserError if they name none, or two."""
    parser = Parser(prog=f"{PROG} status", description=description)
    parser.add_argument("run", nargs="?", type=as_path, metavar="RUN", help="folder of the run")
    parser.add_argument("--from", dest="from_run", type=as_path, metavar="RUN", help="the same")
    given = parser.parse_args(argv)
    if (given.run is None) == (given.from_run is None):
        raise UserError("status needs RUN, the folder of one run")
    for line in describe(given.run or given.from_run):
        say(line)
    return 0


def describe(run: Path) -> Iterator[str]:
    """Give the lines that describe a run.

    Raises:
        UserError: the folder holds no run, or one that cannot be read.
    """
    try:
        if not (run / names.SETTINGS_FILE).exists():
            yield _without_settings(run)
            return
        yield from _lines(run)
    except OSError as error:
        raise UserError(f"{error.filename or run} cannot be read: {error.strerror}") from error


def _without_settings(run: Path) -> str:
    """Say that a run is starting; UserError if the folder holds none, with those that it has inside."""
    with suppress(OSError):
        if who := holder(run):
            return f"{run}: {who} is starting; nothing has been trained yet"
    if not run.is_dir():
        raise UserError(f"{run} is no folder: give that of a run, which makes it a moment after its start")
    inside = sorted(str(path.parent) for path in run.glob(f"*/{names.SETTINGS_FILE}"))
    mend = f"give one of {', '.join(inside)}" if inside else "give the folder of a training"
    raise UserError(f"{run} holds no run ({names.SETTINGS_FILE} is missing): {mend}")


def _lines(run: Path) -> Iterator[str]:
    lives, died = _state(run)  # asked first: what has ended by now writes no more
    command, settings = _settings(run / names.SETTINGS_FILE)
    training = mapping(settings["training"])
    _, rows = read_metrics(run / names.METRICS_FILE)
    checkpoints = dict(_checkpoints(run / names.CHECKPOINTS_FOLDER, bool(lives)))
    whole = [path for path, state in checkpoints.items() if state == WHOLE]
    steps, saved = int(training["max_steps"]), max(map(step_of, whole), default=0)
    step = int(rows[-1][names.STEP]) if rows else saved
    ended = "finished" if saved >= steps else died or _stopped(saved, checkpoints)
    yield f"{run}: {lives or ended}"
    if command:
        yield _line("command", command)
    logged = f"logged {_duration(_age(run / names.METRICS_FILE))} ago" if rows else "nothing is logged yet"
    yield _line("step", f"{step:,} of {steps:,} ({step / steps:.1%}), {logged}")
    pace = _speed(rows, names.ITEMS_PER_SECOND) / int(training["global_batch_size"])
    if pace:
        kinds = [name.removesuffix(names.PER_SECOND) for name in rows[-1] if name.endswith(names.PER_SECOND)]
        rates = (f"{_speed(rows, kind + names.PER_SECOND):,.1f} {kind.replace('_', ' ')}/s" for kind in kinds)
        yield _line("speed", "  ".join((f"{pace:,.1f} steps/s", *rates)))
    if lives and step < steps and (pace := _pace_with_pauses(run, rows, whole) or pace):
        yield _line("to go", f"about {_duration((steps - step) / pace)}")
    yield from _figures(run, rows)
    for path, found in checkpoints.items():
        yield _line("checkpoint", f"{path.name}  {found}")
    if not lives and saved < steps:
        word = "finetune" if settings.get(names.FROM_RUN) or settings.get("new_heads") else "pretrain"
        yield f"Go on with {to_paste(word, '--run_dir', run, '--resume', 'true')}"


def _stopped(saved: int, checkpoints: dict[Path, str]) -> str:
    """Say where a run can go on that has ended before its last checkpoint, or lost it."""
    if saved:
        return f"stopped after step {saved:,}"
    return "stopped, and no checkpoint is whole" if checkpoints else "stopped without a checkpoint: it starts anew"


def _settings(path: Path) -> tuple[str, dict[str, Any]]:
    """Return the command that began a run, nothing if it was no command, and its settings."""
    try:
        text = read_whole(path)
        settings = mapping(yaml.safe_load(text))
        training = mapping(settings["training"])
        if min(int(training["max_steps"]), int(training["global_batch_size"])) < 1:
            raise ValueError("its training has no step or no item")
    except (KeyError, TypeError, ValueError, OverflowError, yaml.YAMLError) as error:
        raise UserError(f"{path} cannot be used ({' '.join(str(error).split())}): restore it from a copy") from error
    return first_comment(text), settings


def _state(run: Path) -> tuple[str, str]:
    """Say who trains in the folder, and else, if the last one left its lock there, that it died."""
    try:
        who = holder(run)
    except OSError as error:
        return f"running, or died: locks cannot be asked for here ({error.strerror}); see {named(run)}", ""
    if who:
        return f"running, {who}", ""
    return "", f"died; its lock was left by {named(run)}" if (run / LOCK_FILE).exists() else ""


def _checkpoints(folder: Path, lives: bool) -> Iterator[tuple[Path, str]]:
    """Give the checkpoints, those of later steps first, and what is seen of each without reading all of it."""
    folders = (path for path in folder.glob("step=*") if path.is_dir())
    for path in sorted(folders, key=lambda path: (step_of(path), path.name), reverse=True):
        with suppress(FileNotFoundError):
            problem = damage(path, reads=False) if is_sealed(path) else f"it lost {SEAL}"
            if marker(path).exists():  # looked at last, as it may just have become that
                yield path, f"unfinished: {'is' if lives else 'was'} being written or removed"
            elif path.exists():  # else it has been removed meanwhile
                yield path, f"DAMAGED: {problem}" if problem else WHOLE


def _speed(rows: list[Row], name: str) -> float:
    """Return the median of what was measured last, 0 if nothing was."""
    measured = [float(row[name]) for row in rows if row.get(name)]
    return median(measured[-MEASURED:]) if measured else 0.0


def _pace_with_pauses(run: Path, rows: list[Row], whole: list[Path]) -> float:
    """Return the steps a second since the earliest checkpoint of this start, validations included; 0 if unknown."""
    started = (run / names.SETTINGS_FILE).stat().st_mtime
    seals = [(step_of(path), (path / SEAL).stat().st_mtime) for path in whole]
    marks = [mark for mark in seals if mark[1] > started]
    if not rows or not marks:
        return 0.0
    step, when = min(marks)
    seconds = (run / names.METRICS_FILE).stat().st_mtime - when
    return max(int(rows[-1][names.STEP]) - step, 0) / seconds if seconds > 0 else 0.0


def _figures(run: Path, rows: list[Row]) -> Iterator[str]:
    """Give the last figures of training, validation and test, and the best validation."""
    validated = [row for row in rows if row.get(names.VAL_LOSS)]
    for name, found in (("training", [row for row in rows if row.get(names.TRAIN_LOSS)]), ("validation", validated)):
        if found:
            figures = {key: float(cell) for key, cell in found[-1].items() if cell and not names.is_measured(key)}
            at = figures.pop(names.STEP)
            kept = {key: value for key, value in figures.items() if key.startswith("val_") == (name == "validation")}
            yield _line(name, f"step {at:,.0f}  {in_words(kept)}")
    losses = [(float(row[names.VAL_LOSS]), int(row[names.STEP])) for row in validated]
    if finite := [pair for pair in losses if math.isfinite(pair[0])]:
        loss, at = min(finite)
        yield _line("best", f"step {at:,}  {in_words({names.VAL_LOSS: loss})}")
    if (path := run / names.EVALUATION_FILE).exists():
        result = read_evaluation(path)
        step = result.pop(names.STEP, math.nan)
        scored = f"step {step:,.0f}  " if math.isfinite(step) else ""
        changes = f"  with {in_flags(result[names.CHANGED])}" if result[names.CHANGED] else ""
        tested = in_words({key: value for key, value in result.items() if key.startswith("test_")})
        yield _line("test", f"{scored}{tested}{changes}")


def _age(path: Path) -> float:
    return max(time.time() - path.stat().st_mtime, 0.0)


def _duration(seconds: float) -> str:
    """Return a time in its two largest units."""
    whole = round(seconds)
    units = [(whole // 86_400, "d"), (whole // 3_600 % 24, "h"), (whole // 60 % 60, "min"), (whole % 60, "s")]
    first = next((number for number, (count, _) in enumerate(units) if count), len(units) - 1)
    return " ".join(f"{count} {unit}" for count, unit in units[first : first + 2])


def _line(name: str, text: str) -> str:
    return f"{name:12}{text}"
