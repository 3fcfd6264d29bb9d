"""Puts a run together, and is the only translator of its settings. Read this file first."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import lightning.pytorch as pl
import torch
from lightning.pytorch.loggers import Logger
from nemo import lightning as nl
from nemo.lightning.pytorch.plugins import MegatronMixedPrecision

from ..contracts import names
from ..contracts.config import NetworkConfig, check_config, sized
from ..contracts.errors import UserError, need
from ..model import config as model
from ..model.settings import Settings
from ..runtime import cluster, signals
from ..runtime.agreement import check_shared
from ..runtime.backend import prepared
from ..runtime.checkpoint import ValidationSchedule, best_checkpoint, last_checkpoint, weights
from ..runtime.disk import writing
from ..runtime.failures import tell
from ..runtime.lock import locked
from ..runtime.meeting import from_first
from ..runtime.rng import RandomNumbers
from ..runtime.saving import Checkpoint
from ..runtime.seal import step_of
from ..runtime.strategy import Strategy
from .datamodule import DataModule
from .logs import Progress, RunRecorder
from .module import NetworkModule
from .optimizer import make_optimizer
from .run_settings import holds_run, load_settings, other_heads
from .speed import Speed, peak_of
from .stopping import StopOnSignal
from .table import CsvLog, check_figures

GO_ON = "go on from the last checkpoint with --resume true"
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
        UserError: a setting is wrong, or run, data or start weights do not fit these; nothing has been written then.
    """
    if problems := settings.problems():  # which the command line has told before the imports
        raise UserError("; ".join(problems))
    run = Path(settings.run_dir)
    with signals.kept(), _prepared("train", settings) as accelerator, locked(run):
        check_shared(run)
        with writing(run, GO_ON):
            return _fit(settings, run, _checkpoint_to_resume(settings), accelerator)


def _fit(settings: Settings, run: Path, checkpoint: Path | None, accelerator: Literal["cpu", "gpu"]) -> TrainingResult:
    origin = settings.from_run if checkpoint is None else None
    start = best_checkpoint(Path(origin) / names.CHECKPOINTS_FOLDER) if origin else checkpoint
    answers_else = other_heads(settings, load_settings(Path(origin))) if origin else False
    module = make_module(replace(settings, redraw_heads=settings.redraw_heads or answers_else), start, bool(checkpoint))
    if checkpoint:
        check_figures(run / names.METRICS_FILE, module.metric_names)
    recorder, speed = RunRecorder(run, settings), make_speed(settings, module, accelerator)
    how = settings.training
    how_saved = (how.keep_checkpoints, how.checkpoint_minutes, how.async_checkpoints)
    saving = Checkpoint(run / names.CHECKPOINTS_FOLDER, names.VAL_LOSS, *how_saved)
    stop = StopOnSignal(saving)
    trainer = make_trainer(
        settings,
        accelerator,
        logger=[CsvLog(run / names.METRICS_FILE, (*module.metric_names, *speed.metric_names))],
        callbacks=[
            recorder,
            speed,
            Progress(settings.training.log_every_n_steps, speed),
            saving,
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


def make_module(settings: Settings, start_weights: Path | None, same_network: bool = False) -> NetworkModule:
    """Build the LightningModule of these settings; the weights come when the trainer has set up the layout.

    Args:
        settings: the run.
        start_weights: checkpoint to start from, or None for those of settings.foreign_start, or random ones.
        same_network: it is one of this same network, and must have every weight; else it may lack settings.new_heads.

    Raises:
        UserError: there is no such network, or its config does not fit its settings.
    """
    network = sized(
        config_of(settings),
        settings,
        start_weights_dir=str(weights(start_weights)) if start_weights else None,
        foreign_start_dir=settings.foreign_start,
        new_heads=None if same_network else settings.new_heads,
        redraw_heads=settings.redraw_heads,
    )
    return NetworkModule(network, make_optimizer(settings.training, settings.new_heads))


def config_of(settings: Settings) -> type[NetworkConfig]:
    """Return the config of the run's network; UserError if there is none, or it lacks something."""
    need(model, "NETWORKS")
    return check_config(settings.network, model.NETWORKS)


def make_speed(settings: Settings, module: NetworkModule, accelerator: str) -> Speed:
    """Build what measures the training of these settings."""
    peak = peak_of(accelerator, settings.training.precision)
    return Speed(module.config, settings.training.global_batch_size, peak and peak * settings.world_size)


def make_data(settings: Settings) -> DataModule:
    """Build the data module of these settings; nothing is read yet."""
    return DataModule(config_of(settings), settings)


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
    precision = MegatronMixedPrecision(
        precision="bf16-mixed" if training.precision == "bf16" else "32", params_dtype=dtype, pipeline_dtype=dtype
    )
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
        plugins=[precision, cluster.environment()],
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
    # what tensor parallel ranks do not share, they drop from a generator that graphs do not know
    drops_rows = settings.parallel.sequence and settings.model.hidden_dropout > 0
    drops_heads = settings.parallel.tensor > 1 and getattr(settings.model, "attention_dropout", 0.0) > 0
    # what is computed again reads the state of the generator, which waits for the device
    recomputes = getattr(settings.model, "recompute", "none") != "none"
    return settings.training.cuda_graph and not (drops_rows or drops_heads or recomputes)


def best_of(settings: Settings) -> Path | None:
    """Return the run's best checkpoint; None if there is no run, and all weights are those of a foreign start.

    Raises:
        UserError: the run has no checkpoint, or a damaged one.
    """
    run = Path(settings.run_dir)
    if settings.foreign_start and not (run / names.SETTINGS_FILE).exists():
        return None
    return best_checkpoint(run / names.CHECKPOINTS_FOLDER)


@contextmanager
def with_best_weights(work: str, settings: Settings) -> Iterator[tuple[nl.Trainer, NetworkModule, DataModule]]:
    """Make what evaluation and prediction run with: the run's best checkpoint, in the layout of `settings`."""
    with _prepared(work, settings) as accelerator:
        best = best_of(settings)
        yield make_trainer(settings, accelerator), make_module(settings, best, same_network=True), make_data(settings)


def _prepared(work: str, settings: Settings) -> AbstractContextManager[Literal["cpu", "gpu"]]:
    return prepared(settings.accelerator, settings.parallel, {"command": work, **asdict(settings)})


def _checkpoint_to_resume(settings: Settings) -> Path | None:
    """Return the checkpoint to go on from, which the first rank finds; None starts a new run.

    Raises:
        UserError: the folder holds a run that is finished, of other settings, or not meant to be resumed.
    """
    folder = Path(settings.run_dir) / names.CHECKPOINTS_FOLDER

    def find() -> str:
        checkpoint = last_checkpoint(folder) if (held := holds_run(settings)) else None
        if checkpoint and step_of(checkpoint) >= settings.training.max_steps:
            raise UserError(
                f"{settings.run_dir} has been trained to step {step_of(checkpoint)}: raise --training.max_steps "
                f"{settings.training.max_steps} above it to go on"
            )
        if held:
            none = f"{settings.run_dir} has no checkpoint yet: starting from step 0"
            tell(f"going on from {checkpoint.name}" if checkpoint else none)
        return checkpoint.name if checkpoint else ""

    name = from_first("checkpoint to resume", find)
    return folder / name if name else None
