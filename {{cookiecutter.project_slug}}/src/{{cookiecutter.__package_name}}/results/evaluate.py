"""Scores and predictions: what a run's best checkpoint makes of the test set, whole, in order, in any layout."""

from __future__ import annotations

import csv
import filecmp
import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from megatron.core import parallel_state
from nemo import lightning as nl

from ..contracts import names
from ..contracts.config import Ragged
from ..contracts.errors import UserError
from ..contracts.files import write_whole
from ..contracts.given import Given, NotGivenError, check_columns
from ..contracts.settings import DataSettings, by_name
from ..contracts.view import innermost
from ..model.settings import Settings
from ..runtime.disk import writing
from ..runtime.failures import tell
from ..runtime.loggers import log_to_run
from ..runtime.seal import step_of
from ..training.datamodule import DataModule
from ..training.module import NetworkModule
from ..training.run_settings import check_writable, is_run, kept, load_settings
from ..training.train import with_best_weights


def evaluate(settings: Settings) -> dict[str, Any]:
    """Score a run's best checkpoint on the whole test set; write evaluation.json and outputs.npz into the run.

    What the run was logged to is given the test figures.

    Returns:
        What evaluation.json holds: test_<name> of each figure of the loss and of each of the config's `scores`, the
        number of items, how many values each mean is over, the step of the checkpoint if the weights are those of one,
        the settings that the run itself has otherwise, and on the first rank what the figures are held against.

    Raises:
        UserError: the scores are not what they should be.
    """
    check_writable(run := Path(settings.run_dir))
    with with_best_weights("evaluate", settings) as (trainer, module, data), writing(run):
        [result] = trainer.test(module, datamodule=data, verbose=False)
        outputs = gather_outputs(trainer, module, data)
        result |= _scores(module, outputs)
        result[names.NUM_ITEMS] = len(data.test)
        result[names.COUNTED] = module.loss_reduction.unit
        result[names.COUNTS] = {f"test_{name}": int(count) for name, count in module.counts.items()}
        if weights := module.config.start_weights_dir:
            result[names.STEP] = step_of(Path(weights).parent)
        result[names.CHANGED] = _changed(settings)
        result[names.REFERENCES] = _references(module, settings) if trainer.is_global_zero else {}
        if trainer.is_global_zero:
            with write_whole(run / names.OUTPUTS_FILE, "wb") as file:
                np.savez_compressed(file, **outputs)
            with write_whole(run / names.EVALUATION_FILE) as file:
                json.dump(_strict(result), file, indent=2, allow_nan=False)
            figures = {name: value for name, value in result.items() if name.startswith("test_")}
            log_to_run(settings.logger_names, run, figures, result.get(names.STEP, 0))
        del trainer, module, data  # nothing of the run stays
        return result


def _strict(value: Any) -> Any:
    """Return what JSON can hold: null for a number that is not finite."""
    if isinstance(value, dict):
        return {name: _strict(part) for name, part in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _scores(module: NetworkModule, outputs: dict[str, np.ndarray]) -> dict[str, float]:
    """Return what the config scores; tell what is not finite."""
    scores: dict[str, float] = _ask(module, "scores", outputs)
    for name, value in scores.items():
        if not isinstance(value, float) or name in module.figure_names:
            rule = "give a float, under a name that the loss does not have"
            raise UserError(f"model/results.py: scores gives {name} as {value!r}: {rule}")
        if not math.isfinite(value):
            tell(f"warning: test_{name} is {value}")
    return {f"test_{name}": value for name, value in scores.items()}


def _changed(settings: Settings) -> dict[str, Any]:
    """Return what the run itself, if it is one, has otherwise, of the settings that its figures depend on."""
    if not is_run(settings.run_dir):
        return {}
    own, given = (dict(by_name(asdict(each))) for each in (load_settings(Path(settings.run_dir)), settings))
    deciding = kept(settings).keys() | {name for name in given if name.startswith("data.")}
    deciding -= {f"data.{name}" for name in DataSettings.NOT_KEPT}
    return {name: given[name] for name in sorted(deciding) if given[name] != own[name]}


def _references(module: NetworkModule, settings: Settings) -> dict[str, dict[str, float]]:
    """Return what the figures are held against; if there are no data for that, tell it, and keep the figures."""
    try:
        return module.config.references(settings)
    except UserError as error:
        tell(f"warning: the figures are not held against anything: {error}")
        return {}


def _ask(module: NetworkModule, hook: str, outputs: dict[str, np.ndarray]) -> Any:
    """Return what the config makes of the outputs; UserError if that is no dict, or wants what was not kept."""
    try:
        given = getattr(module.config, hook)(Given(outputs))
    except NotGivenError as error:
        raise UserError(f"model/results.py: {hook} wants {error}; keep gives {', '.join(outputs)}") from error
    if not isinstance(given, Mapping):
        raise UserError(f"model/results.py: {hook} gives {type(given).__name__}, not a dict")
    return given


def predict(settings: Settings) -> list[Path]:
    """Predict the whole test set, or what else the settings say, with a run's best checkpoint.

    Writes predictions.csv into the run, under a name with a word more if it is not the test set. One row an item, in
    its order: idx, the name of the item if it has one, and the columns that the config's `predictions` makes. What has
    more than one number an item goes into predictions.npz beside it.

    Returns:
        The files.

    Raises:
        UserError: the run's network predicts nothing.
    """
    settings = settings.to_predict()
    check_writable(run := Path(settings.run_dir))
    with with_best_weights("predict", settings) as (trainer, module, data), writing(run):
        outputs = gather_outputs(trainer, module, data)
        rows = {name: outputs[name] for name in (names.IDX, names.NAME) if name in outputs}
        given = _ask(module, "predictions", outputs)
        predicted = {name: found for name, found in given.items() if found is not rows.get(name)}  # they come anyway
        if not predicted:
            raise UserError(f"the network of {run}, {settings.network}, predicts nothing for an item: give another run")
        _check_predicted(predicted, len(data.test))
        columns, arrays = _sorted(predicted)
        table, others = (_named(run / file, settings) for file in (names.PREDICTIONS_FILE, names.PREDICTED_ARRAYS_FILE))
        if trainer.is_global_zero:
            old = _set_aside(table, others)
            _write_columns(table, rows | columns)
            if arrays:
                with write_whole(others, "wb") as file:
                    np.savez_compressed(file, **rows, **arrays)
            _drop_same(old)
        del trainer, module, data  # nothing of the run stays
    return [table, others] if arrays else [table]


def _set_aside(*paths: Path) -> dict[Path, Path]:
    """Give predictions that are there, perhaps of another file of that name, a number; return old -> new names."""
    there = [path for path in paths if path.exists()]
    number = next(n for n in count(1) if not any(path.with_stem(f"{path.stem}.{n}").exists() for path in paths))
    return {path: path.replace(path.with_stem(f"{path.stem}.{number}")) for path in there}


def _drop_same(old: dict[Path, Path]) -> None:
    """Remove what was set aside and is the same again; tell what is kept, and where."""
    for path, aside in old.items():
        if path.exists() and filecmp.cmp(path, aside, shallow=False):
            aside.unlink()
        else:
            tell(f"other predictions were in {path}: they are in {aside} now")


def _sorted(predicted: dict[str, np.ndarray | Ragged]) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return what has one value an item, and what has more, as files hold them."""
    columns: dict[str, np.ndarray] = {}
    arrays: dict[str, np.ndarray] = {}
    for name, found in predicted.items():
        if isinstance(found, Ragged):
            arrays |= {name: found.values, f"{name}_offsets": found.offsets}
        else:
            (columns if found.ndim == 1 else arrays)[name] = found
    return columns, arrays


def _named(path: Path, settings: Settings) -> Path:
    """Return a path whose name says what is predicted."""
    return path.with_stem(f"{path.stem}-{settings.predicted}") if settings.predicted else path


def _check_predicted(predicted: dict[str, Any], size: int) -> None:
    """Tell what is not finite; UserError for what cannot be written, or has not a row for each item."""
    check_columns(predicted, "model/results.py: predictions")
    for name, found in predicted.items():
        if not _has_rows(found, size):
            parts = ", ".join(map(_kind, found if isinstance(found, Ragged) else [found]))
            rule = f"numbers or texts in a NumPy array of {size} rows, or Ragged(values, offsets) of {size} items"
            raise UserError(f"model/results.py: predictions gives {name} as {parts}, not {rule}")
        values, offsets = found if isinstance(found, Ragged) else (found, np.arange(size + 1))
        items = np.arange(size).repeat(np.diff(offsets))
        if values.dtype.kind == "f" and not (finite := np.isfinite(values.reshape(len(items), -1)).all(axis=1)).all():
            tell(f"warning: some predictions are not finite, first {name} of item {items[finite.argmin()]}")


def _has_rows(found: Any, size: int) -> bool:
    """Tell whether something is an array, or several of different lengths, with a row for each item."""
    if not isinstance(found, Ragged):
        return _is_array(found) and len(found) == size
    values, offsets = found
    if not (_is_array(values) and _is_array(offsets) and offsets.dtype.kind == "i" and offsets.shape == (size + 1,)):
        return False
    return offsets[0] == 0 and offsets[-1] == len(values) and bool((np.diff(offsets) >= 0).all())


def _is_array(found: Any) -> bool:
    """Tell whether a file can hold something: objects of Python it cannot."""
    return isinstance(found, np.ndarray) and found.ndim > 0 and not found.dtype.hasobject


def _kind(found: Any) -> str:
    """Return what something is, and of an array the dtype and shape."""
    shape = f" {found.dtype} {tuple(found.shape)}" if hasattr(found, "shape") else ""
    return f"{type(found).__name__}{shape}"


def _write_columns(path: Path, columns: dict[str, np.ndarray]) -> None:
    with write_whole(path) as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        for row in zip(*columns.values(), strict=True):
            writer.writerow(f"{value:.6g}" if isinstance(value, np.floating) else value for value in row)


def gather_outputs(trainer: nl.Trainer, module: NetworkModule, data: DataModule) -> dict[str, np.ndarray]:
    """Predict the test set on all ranks; return what is kept on every rank, whole, each item once, in order.

    Every rank has all of it in the memory of its host, though rank 0 alone writes: what is made of it is the same on
    all of them, and so is a mistake.

    Returns:
        `idx`, what the config keeps of a micro batch, and the `name` of each item if it has one: a row an item in each;
        bfloat16 as float32.
    """
    steps = trainer.predict(module, datamodule=data)
    mine = None
    if parallel_state.is_pipeline_last_stage() and parallel_state.get_tensor_model_parallel_rank() == 0:
        whole = {key: torch.cat([step[key] for step in steps]) for key in steps[0]}
        mine = {key: value.float() if value.is_floating_point() else value for key, value in whole.items()}
    shares = [share for share in trainer.strategy.of_all_ranks(mine) if share]
    joined = {key: torch.cat([share[key] for share in shares]) for key in shares[0]}
    order = joined[names.IDX].argsort()
    order = order[joined[names.IDX][order] >= 0]  # padding has idx -1
    outputs = {key: value[order].numpy() for key, value in joined.items()}
    if callable(name := getattr(innermost(data.test), names.NAME, None)):
        outputs[names.NAME] = np.array([name(position) for position in outputs[names.IDX].tolist()])
    return outputs
