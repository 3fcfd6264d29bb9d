"""How fast a training is: items and tokens a second, the share of the device's peak, and the memory it takes.

It is measured from one step whose figures are logged to the next one, where the loss is fetched from the device anyway:
then the wall clock tells when the work was done. Validations and checkpoints lie between two such spans. The first two
steps of a process are left out: one starts up, the other records the CUDA graph (`runtime/cuda_graph.py`).
"""

from __future__ import annotations

import resource
import sys
import time
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.loggers import Logger

from ..contracts.config import NetworkConfig
from ..contracts.names import ITEMS_PER_SECOND, MEMORY, MFU, PER_SECOND
from ..contracts.peaks import PEAKS
from .module import is_seen
from .table import CsvLog

NOT_MEASURED = 2
"""Steps at the beginning of a process."""


def peak_of(accelerator: str, precision: str) -> float | None:
    """Return the FLOP/s that this process's device could reach; None for a CPU, a part of a GPU, or an unknown one."""
    name = torch.cuda.get_device_name() if accelerator == "gpu" else ""
    return next((peaks[precision] for chip, peaks in PEAKS.items() if chip in name and "MIG" not in name), None)


class Speed(pl.Callback):
    """Logs how fast the training is, in the steps of which somebody sees the figures."""

    def __init__(self, config: NetworkConfig, global_batch_size: int, peak: float | None) -> None:
        """Measure nothing yet.

        Args:
            config: of the network, which says what an item is made of and what it costs.
            global_batch_size: items of a step.
            peak: FLOP/s of the devices of all ranks together; None if it is not known.
        """
        self.config, self.global_batch_size = config, global_batch_size
        flops = config.flops_per_item()
        self.mfu_of_an_item = flops / peak if flops and peak else None
        self.figures: dict[str, float] = {}
        """by name, as they were logged last"""

    @property
    def metric_names(self) -> tuple[str, ...]:
        """What is logged for this network on this device."""
        return tuple(self._figures(items_per_second=0.0, useful=0.0))

    @property
    def words(self) -> str:
        """What was measured last, for a line: steps, the rate that says most, the share of the peak, and the memory."""
        if not self.figures:
            return ""
        pace = f"{self.figures[ITEMS_PER_SECOND] / self.global_batch_size:,.1f} steps/s"
        rates = [
            f"{value:,.1f} {name.removesuffix(PER_SECOND).replace('_', ' ')}/s"
            for name, value in self.figures.items()
            if name.endswith(PER_SECOND)
        ]
        share = [f"MFU {self.figures[MFU]:.1%}"] if MFU in self.figures else []
        return "  ".join((pace, rates[-1], *share, f"{self.figures[MEMORY]:.3g} GiB"))

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Let the first steps pass."""
        self.first_step = trainer.global_step + NOT_MEASURED
        self.began: tuple[int, float] | None = None

    def on_train_batch_start(self, trainer: pl.Trainer, *args: Any) -> None:
        """Start the clock, if it does not run."""
        if self.began is None and trainer.global_step >= self.first_step:
            self.began = trainer.global_step, time.perf_counter()

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, *args: Any) -> None:
        """Log what was measured since the last logged step."""
        if self.began is None or not is_seen(trainer):
            return
        totals = outputs["totals"].cpu()  # waits for the device
        step, now = trainer.global_step, time.perf_counter()
        items = (step - self.began[0]) * self.global_batch_size
        useful = float(pl_module.loss_reduction.figures(totals)[self.config.useful]) if self.config.useful else 1.0
        self.figures = self._figures(items / (now - self.began[1]), useful)
        self.began = step, now
        if step % trainer.log_every_n_steps == 0:
            self._log(trainer.loggers, step)

    def _log(self, loggers: list[Logger], step: int) -> None:
        """Hand over the figures of a step that Lightning logs next: through it, each takes half a millisecond."""
        for logger in loggers:
            if isinstance(logger, CsvLog):
                logger.beside = self.figures
            else:
                logger.log_metrics(self.figures, step)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop the clock until the next step, after the validation and its checkpoint."""
        self.began = None

    def on_save_checkpoint(self, *args: Any) -> None:
        """Stop the clock until the next step."""
        self.began = None

    def _figures(self, items_per_second: float, useful: float) -> dict[str, float]:
        found = {ITEMS_PER_SECOND: items_per_second}
        if pieces := self.config.pieces:
            found[f"{pieces}{PER_SECOND}"] = items_per_second * self.config.sequence_length
            if self.config.useful:
                found[f"useful_{pieces}{PER_SECOND}"] = items_per_second * self.config.sequence_length * useful
        if self.mfu_of_an_item:
            found[MFU] = items_per_second * self.mfu_of_an_item
        return {**found, MEMORY: peak_memory()}


def peak_memory() -> float:
    """Return the most memory that this process has held so far, in GiB: of the GPU where it uses one, else its own."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated() / 2**30
    unit = 2**10 if sys.platform == "linux" else 1  # getrusage(2): kilobytes on Linux, bytes on macOS
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30
