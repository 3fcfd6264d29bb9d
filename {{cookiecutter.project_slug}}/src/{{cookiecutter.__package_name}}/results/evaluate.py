"""Scores and predictions: what a run's best checkpoint makes of the test set, whole, in order, in any layout."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from megatron.core import parallel_state
from nemo import lightning as nl

from ..contracts import names
from ..contracts.errors import UserError
from ..contracts.files import write_whole
from ..model.settings import Settings
from ..runtime.failures import tell
from ..training.datamodule import DataModule
from ..training.module import NetworkModule
from ..training.train import with_best_weights


def evaluate(settings: Settings) -> dict[str, Any]:
    """Score a run's best checkpoint on the whole test set; write evaluation.json and outputs.npz into the run.

    Returns:
        What evaluation.json holds: test_<name> of each figure of the loss, the number of items, and how many values
        each mean is over.
    """
    run = Path(settings.run_dir)
    with with_best_weights(settings) as (trainer, module, data):
        [result] = trainer.test(module, datamodule=data, verbose=False)
        result[names.NUM_ITEMS] = len(data.test)
        result[names.COUNTED] = module.loss_reduction.unit
        result[names.COUNTS] = {f"test_{name}": int(count) for name, count in module.counts.items()}
        outputs = gather_outputs(trainer, module, data)
        if trainer.is_global_zero:
            with write_whole(run / names.OUTPUTS_FILE, "wb") as file:
                np.savez_compressed(file, **outputs)
            with write_whole(run / names.EVALUATION_FILE) as file:
                json.dump(result, file, indent=2)
        return result


def predict(settings: Settings) -> list[Path]:
    """Predict the whole test set with a run's best checkpoint; write predictions.csv into the run.

    One row an item, in the order of the test set: idx, and the columns that the config's `predictions` makes. What has
    more than one number an item goes into predictions.npz beside it.

    Returns:
        The files.

    Raises:
        UserError: the run's network predicts nothing.
    """
    run = Path(settings.run_dir)
    with with_best_weights(settings) as (trainer, module, data):
        outputs = gather_outputs(trainer, module, data)
        try:
            predicted = type(module.config).predictions(outputs)
        except KeyError as error:
            raise UserError(f"model/results.py: predictions wants {error}; keep gives {', '.join(outputs)}") from error
        if not predicted:
            raise UserError(f"the network of {run}, {settings.network}, predicts nothing for an item: give another run")
        _check_rows(predicted, len(data.test))
        columns = {names.IDX: outputs[names.IDX], **{name: a for name, a in predicted.items() if a.ndim == 1}}
        arrays = {names.IDX: outputs[names.IDX], **{name: a for name, a in predicted.items() if a.ndim > 1}}
        files = [run / names.PREDICTIONS_FILE] + [run / names.PREDICTED_ARRAYS_FILE] * (len(arrays) > 1)
        if trainer.is_global_zero:
            (run / names.PREDICTED_ARRAYS_FILE).unlink(missing_ok=True)  # of an earlier prediction
            _write_columns(files[0], columns)
            for path in files[1:]:
                with write_whole(path, "wb") as file:
                    np.savez_compressed(file, **arrays)
    return files


def _check_rows(predicted: dict[str, np.ndarray], size: int) -> None:
    """Tell what is not finite; UserError for what has not a row for each item."""
    for name, array in predicted.items():
        if not isinstance(array, np.ndarray) or array.shape[:1] != (size,):
            given = getattr(array, "shape", type(array).__name__)
            raise UserError(f"model/results.py: predictions gives {name} of {given}, not an array of {size} rows")
        if array.dtype.kind == "f" and not (finite := np.isfinite(array.reshape(size, -1)).all(axis=1)).all():
            tell(f"warning: some predictions are not finite, first {name} of item {finite.argmin()}")


def _write_columns(path: Path, columns: dict[str, np.ndarray]) -> None:
    with write_whole(path) as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        for row in zip(*columns.values(), strict=True):
            writer.writerow(f"{value:.6f}" if isinstance(value, np.floating) else value for value in row)


def gather_outputs(trainer: nl.Trainer, module: NetworkModule, data: DataModule) -> dict[str, np.ndarray]:
    """Predict the test set on all ranks; return what is kept on every rank, whole, each item once, in order.

    Returns:
        `idx` and what the config keeps of a micro batch, each with one row an item; bfloat16 as float32.
    """
    steps = trainer.predict(module, datamodule=data)
    mine = None
    if parallel_state.is_pipeline_last_stage() and parallel_state.get_tensor_model_parallel_rank() == 0:
        whole = {key: torch.cat([step[key] for step in steps]) for key in steps[0]}
        mine = {key: value.float() if value.is_floating_point() else value for key, value in whole.items()}
    shares: list[Any] = [None] * trainer.world_size
    torch.distributed.all_gather_object(shares, mine)
    shares = [share for share in shares if share]
    joined = {key: torch.cat([share[key] for share in shares]) for key in shares[0]}
    order = joined[names.IDX].argsort()
    order = order[joined[names.IDX][order] >= 0]  # padding has idx -1
    return {key: value[order].numpy() for key, value in joined.items()}
