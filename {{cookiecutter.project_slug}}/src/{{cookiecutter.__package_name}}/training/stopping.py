"""What all ranks agree on after each step, in one collective: whether to stop, and whether to save.

A signal (runtime/signals.py) ends a training early without losing a step; `--resume true` goes on where it stopped.
"""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
import torch

from ..runtime import signals
from ..runtime.failures import tell
from ..runtime.saving import Checkpoint


class StopOnSignal(pl.Callback):
    """Finishes the step, lets the checkpoint be saved, and ends the training.

    Whichever rank gets the signal, all ranks stop after the same step; they save when the first one's clock says so.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        """Nothing has ended yet."""
        self.checkpoint = checkpoint
        self.has_stopped = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Forget what Lightning has heard, which ends without a checkpoint: `signals` has it too."""
        trainer._signal_connector.received_sigterm = False

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        """Stop if any rank has received a signal; a validation that is due is still made, no other one."""
        is_due = trainer.is_global_zero and self.checkpoint.is_due
        stops, self.checkpoint.is_wanted = _any_rank(signals.received is not None, is_due, trainer=trainer)
        if not stops:
            return
        self.has_stopped = trainer.global_step < trainer.max_steps
        trainer.should_stop = True
        if self.has_stopped and trainer.global_step % trainer.val_check_interval:
            trainer.limit_val_batches = 0
        tell(f"{signals.received or 'a signal to another rank'}: saving step {trainer.global_step}, then stopping")


def _any_rank(*mine: bool, trainer: pl.Trainer) -> list[bool]:
    """Tell of each whether it is so on any rank. Lightning's own way also has a barrier in each step."""
    if trainer.world_size == 1:
        return list(mine)
    flags = torch.tensor(mine, dtype=torch.float, device=trainer.strategy.root_device)
    torch.distributed.all_reduce(flags)
    return [flag > 0 for flag in flags.tolist()]
