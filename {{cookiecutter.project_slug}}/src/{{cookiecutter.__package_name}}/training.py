"""Train, evaluate, predict: the only place that puts the rooms together, and the only translator of settings.

Read this file first. Each function takes the settings of a run, and returns its result.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.loggers import Logger
from megatron.core import parallel_state
from nemo import lightning as nl
from nemo.lightning.pytorch.plugins import MegatronMixedPrecision

from . import names
from .config import NETWORKS
from .data.datamodule import MNISTDataModule
from .data.dataset import pictures
from .errors import UserError
from .files import write_whole
from .logs import CsvLog, Progress, RunRecorder, tell
from .module import NetworkModule, make_optimizer
from .run_settings import holds_run
from .runtime.backend import prepared
from .runtime.checkpoint import Checkpoint, ValidationSchedule, best_checkpoint, last_checkpoint, step_of, weights
from .runtime.rng import RandomNumbers
from .runtime.strategy import Strategy
from .settings import Settings
from .stopping import StopOnSignal

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class TrainingResult:
    """How a training ended."""

    run_dir: Path
    """folder of the run"""
    steps: int
    """finished optimizer steps"""
    metrics: dict[str, float]
    """last logged figures by name"""
    seconds: float
    """wall time of the training loop, without start-up"""
    has_stopped: bool
    """a signal ended it before its last step; it can be resumed"""


def train(settings: Settings) -> TrainingResult:
    """Train a network, from random weights or from another run's; or go on with a run that was stopped.

    Raises:
        UserError: the run, the data or the start weights do not fit these settings; nothing has been written then.
    """
    run = Path(settings.run_dir)
    checkpoint = _checkpoint_to_resume(settings)
    origin = settings.from_run if checkpoint is None else None
    start = best_checkpoint(Path(origin) / names.CHECKPOINTS_FOLDER) if origin else checkpoint
    with prepared(settings.accelerator, settings.parallel.devices, settings.parallel.num_nodes) as accelerator:
        module = make_module(settings, start, same_network=checkpoint is not None)
        recorder, stop = RunRecorder(run, settings), StopOnSignal()
        trainer = make_trainer(
            settings,
            accelerator,
            logger=[CsvLog(run / names.METRICS_FILE, module.metric_names)],
            callbacks=[
                recorder,
                Progress(settings.training.log_every_n_steps),
                Checkpoint(run / names.CHECKPOINTS_FOLDER, monitor=names.VAL_LOSS),
                ValidationSchedule(),
                RandomNumbers(settings.seed),
                stop,
            ],
        )
        if checkpoint:
            nl.AutoResume(resume_from_path=str(checkpoint)).setup(trainer, module)
        trainer.fit(module, datamodule=make_data(settings))
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        return TrainingResult(run, trainer.global_step, metrics, recorder.seconds, stop.has_stopped)


def evaluate(settings: Settings) -> dict[str, Any]:
    """Score a run's best checkpoint on the whole test set; write evaluation.json and outputs.npz into the run.

    Returns:
        What evaluation.json holds: the test loss, the accuracy if there is a classifier, and the number of items.
    """
    run = Path(settings.run_dir)
    with _with_best_weights(settings) as (trainer, module, data):
        [result] = trainer.test(module, datamodule=data, verbose=False)
        result[names.NUM_ITEMS] = len(data.test)
        outputs = gather_outputs(trainer, module, data)
        if trainer.is_global_zero:
            if (drawn := data.test_pictures()) is not None:
                outputs[names.IMAGE] = drawn
            with write_whole(run / names.OUTPUTS_FILE, "wb") as file:
                np.savez_compressed(file, **outputs)
            with write_whole(run / names.EVALUATION_FILE) as file:
                json.dump(result, file, indent=2)
        return result


def predict(settings: Settings) -> Path:
    """Predict the whole test set with a run's best checkpoint; write predictions.csv into the run.

    One row an item, in the order of the test file: idx, label; of a classifier the prediction and its probability; each
    output of the network that is one number an item, under its name; and as true_<key> each such number of the item.

    Returns:
        The file.

    Raises:
        UserError: the run's network has no such output.
    """
    path = Path(settings.run_dir) / names.PREDICTIONS_FILE
    with _with_best_weights(settings) as (trainer, module, data):
        outputs = gather_outputs(trainer, module, data)
        columns = {name: outputs.pop(name) for name in (names.IDX, names.LABEL)}
        if (probability := outputs.get(names.PROBABILITY)) is not None:
            columns |= {"prediction": probability.argmax(axis=1), "probability": probability.max(axis=1)}
        columns |= {name: array for name, array in outputs.items() if array.ndim == 1}
        if not any(name not in (names.IDX, names.LABEL) and not name.startswith(names.TRUTH) for name in columns):
            raise UserError(
                f"{settings.run_dir} is an {settings.network}, which predicts nothing for an item: give a finetuned run"
            )
        unsound = [array for array in columns.values() if array.dtype.kind == "f" and not np.isfinite(array).all()]
        if unsound:
            tell(f"warning: some predictions are not finite, first that of item {np.isfinite(unsound[0]).argmin()}")
        if trainer.is_global_zero:
            with write_whole(path) as file:
                writer = csv.writer(file)
                writer.writerow(columns)
                for row in zip(*columns.values(), strict=True):
                    writer.writerow(f"{value:.6f}" if isinstance(value, np.floating) else value for value in row)
    return path


def make_module(settings: Settings, start_weights: Path | None, same_network: bool = False) -> NetworkModule:
    """Build the LightningModule of these settings; the weights come when the trainer has set up the layout.

    Args:
        settings: the run.
        start_weights: checkpoint to start from, or None for random weights.
        same_network: it is one of this same network, and must have every weight; else it may lack settings.new_heads.

    Raises:
        UserError: there is no such network.
    """
    if settings.network not in NETWORKS:
        raise UserError(f"NETWORKS in config.py has no {settings.network}, only {', '.join(NETWORKS)}: add it there")
    training = settings.training
    config = NETWORKS[settings.network](
        **asdict(settings.model),
        # Megatron wants a number that tensor parallel divides; nothing attends
        num_attention_heads=settings.model.hidden_size,
        init_seed=settings.seed,
        start_weights_dir=str(weights(start_weights)) if start_weights else None,
        new_heads=None if same_network else settings.new_heads,
    )
    optimizer = make_optimizer(
        lr=training.lr,
        min_lr=training.min_lr,
        warmup_steps=training.warmup_steps,
        max_steps=training.max_steps,
        weight_decay=training.weight_decay,
        clip_grad=training.clip_grad,
    )
    return NetworkModule(config, optimizer)


def make_data(settings: Settings) -> MNISTDataModule:
    """Build the data module of these settings; nothing is read yet."""
    return MNISTDataModule(
        settings=settings.data,
        seed=settings.seed,
        max_steps=settings.training.max_steps,
        micro_batch_size=settings.micro_batch_size,
        global_batch_size=settings.training.global_batch_size,
    )


def make_trainer(
    settings: Settings, accelerator: str, logger: list[Logger] | None = None, callbacks: list[pl.Callback] | None = None
) -> nl.Trainer:
    """Build NeMo's trainer for this layout and precision.

    Args:
        settings: the run.
        accelerator: "cpu" or "gpu".
        logger: where figures go; None for evaluation and prediction, which log nothing.
        callbacks: what happens besides; None for evaluation and prediction, which have no optimizer either.
    """
    layout, training = settings.parallel, settings.training
    dtype = DTYPES[training.precision]
    pl.seed_everything(settings.seed, verbose=False)
    return nl.Trainer(
        accelerator=accelerator,
        devices=layout.devices,
        num_nodes=layout.num_nodes,
        strategy=Strategy(
            seed=settings.seed,
            tensor_model_parallel_size=layout.tensor,
            pipeline_model_parallel_size=layout.pipeline,
            virtual_pipeline_model_parallel_size=layout.virtual_pipeline if layout.virtual_pipeline > 1 else None,
            sequence_parallel=layout.sequence,
            setup_optimizers=callbacks is not None,
            cuda_graph=accelerator == "gpu" and callbacks is not None and can_record(settings),
        ),
        plugins=MegatronMixedPrecision(
            precision="bf16-mixed" if training.precision == "bf16" else "32", params_dtype=dtype, pipeline_dtype=dtype
        ),
        max_steps=training.max_steps,
        val_check_interval=training.val_check_interval,
        check_val_every_n_epoch=None,  # the run is one long "epoch" to Lightning: epochs are the resampler's
        log_every_n_steps=training.log_every_n_steps,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        logger=logger or False,
        callbacks=callbacks,
        enable_checkpointing=callbacks is not None,
    )


def can_record(settings: Settings) -> bool:
    """Tell whether training steps can be recorded as a CUDA graph in this layout."""
    # sequence parallel drops from a generator that graphs do not know
    drops_rows = settings.parallel.sequence and settings.model.hidden_dropout > 0
    return settings.training.cuda_graph and not drops_rows


def gather_outputs(trainer: nl.Trainer, module: NetworkModule, data: MNISTDataModule) -> dict[str, np.ndarray]:
    """Predict the test set on all ranks, and return it on every rank, whole, each item once, in the file's order.

    Returns:
        Arrays with one row an item, by the names of OUTPUTS_FILE but the image: what the network computes. Logits come
        as probabilities, reconstructions as pictures (left out if they are none), anything else as it is, in float32.
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
    return _as_arrays({key: value[order] for key, value in joined.items()})


def _as_arrays(outputs: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
    arrays = {key: outputs.pop(key).numpy() for key in (names.IDX, names.LABEL)}
    if "logits" in outputs:
        arrays[names.PROBABILITY] = outputs.pop("logits").softmax(dim=-1).numpy()
    if "reconstruction" in outputs and (drawn := pictures(outputs.pop("reconstruction"))) is not None:
        arrays[names.RECONSTRUCTION] = drawn
    return {**arrays, **{key: value.numpy() for key, value in outputs.items()}}


@contextmanager
def _with_best_weights(settings: Settings) -> Iterator[tuple[nl.Trainer, NetworkModule, MNISTDataModule]]:
    """Make what evaluation and prediction run with: the run's best checkpoint, in the layout of `settings`."""
    best = best_checkpoint(Path(settings.run_dir) / names.CHECKPOINTS_FOLDER)
    with prepared(settings.accelerator, settings.parallel.devices, settings.parallel.num_nodes) as accelerator:
        module = make_module(settings, best, same_network=True)
        yield make_trainer(settings, accelerator), module, make_data(settings)


def _checkpoint_to_resume(settings: Settings) -> Path | None:
    """Return the checkpoint to go on from; None starts a new run.

    Raises:
        UserError: the folder holds a run that is finished, of other settings, or not meant to be resumed.
    """
    run = Path(settings.run_dir)
    if not holds_run(settings):
        return None
    checkpoint = last_checkpoint(run / names.CHECKPOINTS_FOLDER)
    if checkpoint and step_of(checkpoint) >= settings.training.max_steps:
        raise UserError(
            f"{run} has been trained to step {step_of(checkpoint)}: raise --training.max_steps "
            f"{settings.training.max_steps} above it to go on"
        )
    tell(f"going on from {checkpoint.name}" if checkpoint else f"{run} has no checkpoint yet: starting from step 0")
    return checkpoint
