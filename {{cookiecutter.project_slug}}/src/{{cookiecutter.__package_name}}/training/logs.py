"""What a person sees of a run while it trains: a progress bar or plain lines; and the run folder is opened here."""

from __future__ import annotations

import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from nemo.utils.model_utils import unwrap_model
from torch import Tensor
from tqdm import tqdm

from ..contracts.names import LEARNING_RATE, LOSS, TRAIN_LOSS
from ..contracts.settings import RunSettings
from ..runtime import signals
from ..runtime.failures import tell
from ..runtime.loggers import open_loggers
from .run_settings import save_settings
from .speed import Speed
from .table import CsvLog


class RunRecorder(pl.Callback):
    """Opens the run folder when training really starts: a run that fails before leaves nothing behind."""

    def __init__(self, run: Path, settings: RunSettings) -> None:
        """Record `settings` in `run`."""
        self.run, self.settings = run, settings
        self.seconds = 0.0  # of the training loop, with its validations and checkpoints

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save the settings, drop logged rows that this run will write anew, and open the loggers.

        Lightning opens the files of loggers that it has from the beginning before a start that can still fail.
        """
        signals.listen()  # in place of Lightning, which has begun to: what is opened is not left without a checkpoint
        if trainer.global_step == 0 and (start := self.settings.foreign_start or self.settings.from_run):
            weights = "weights in" if self.settings.foreign_start else "best weights of"
            loaded = _loaded_heads(trainer)
            heads = (f"; {head}: {'loaded from it' if head in loaded else 'new'}" for head in self.settings.new_heads)
            tell(f"starting from the {weights} {start}{''.join(heads)}")
        data: Any = trainer
        sizes = [len(items) for items in (data.datamodule.train, data.datamodule.validation)]
        tell("training on {:,} items, validation with {:,}".format(*sizes))
        loggers = open_loggers(self.settings.logger_names, self.run, asdict(self.settings), trainer.global_step)
        if trainer.is_global_zero:
            save_settings(self.settings, self.run)
            for logger in trainer.loggers:
                if isinstance(logger, CsvLog):
                    logger.cut(trainer.global_step)
        trainer.loggers = [*trainer.loggers, *loggers]
        self.started = time.monotonic()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take the time."""
        self.seconds = time.monotonic() - self.started


def _loaded_heads(trainer: Any) -> set[str]:
    """Return which heads the start had; the ranks of the last stage know."""
    ranks: list[Any] = [None] * trainer.world_size
    here = [head for stage in unwrap_model(list(trainer.strategy.model)) for head in stage.loaded_heads]
    torch.distributed.all_gather_object(ranks, here)
    return {head for heads in ranks for head in heads}


class Progress(pl.Callback):
    """A progress bar where the output is a terminal, else a line for each validation; on rank 0 only."""

    def __init__(self, every_n_steps: int, speed: Speed) -> None:
        """Refresh the bar's figures every n optimizer steps, and tell what `speed` has measured by then."""
        self.every_n_steps, self.speed = every_n_steps, speed
        self.bar: tqdm[None] | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start at the step that the run resumes from."""
        if trainer.is_global_zero and sys.stderr.isatty():
            self.bar = tqdm(total=trainer.max_steps, initial=trainer.global_step, unit="step", dynamic_ncols=True)
        else:
            steps = f"steps {trainer.global_step + 1} to {trainer.max_steps}"
            ranks = "1 process" if trainer.world_size == 1 else f"{trainer.world_size} processes"
            validation = f"validation every {trainer.val_check_interval} steps"
            tell(f"training {steps} in {ranks} on {pl_module.device.type}, {validation}")

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, *args: Any) -> None:
        """Advance by one optimizer step; its loss is in `outputs`, for the module logs it after this hook."""
        if self.bar is not None:
            self.bar.update(1)
            if trainer.global_step % self.every_n_steps == 0:
                loss = _figures({TRAIN_LOSS: outputs[LOSS]}, (TRAIN_LOSS,))
                self.bar.set_postfix_str(f"{loss}  {self.speed.words}".rstrip(), refresh=False)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Print the figures of this validation as a line that stays."""
        if not trainer.is_global_zero or trainer.state.fn != "fit":
            return
        validated = (f"val_{name}" for name in pl_module.figure_names)
        figures = _figures(trainer.callback_metrics, (TRAIN_LOSS, *validated, LEARNING_RATE))
        line = f"step {trainer.global_step}/{trainer.max_steps}  {figures}  {self.speed.words}"
        if self.bar is not None:
            self.bar.write(line.rstrip(), file=sys.stderr)
        else:
            print(line.rstrip(), file=sys.stderr, flush=True)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Leave the finished bar on the screen."""
        if self.bar is not None:
            self.bar.close()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Leave the bar where it stopped."""
        self.on_train_end(trainer, pl_module)


def _figures(metrics: dict[str, Tensor], names: tuple[str, ...]) -> str:
    return "  ".join(f"{name} {float(metrics[name]):.4g}" for name in names if name in metrics)
