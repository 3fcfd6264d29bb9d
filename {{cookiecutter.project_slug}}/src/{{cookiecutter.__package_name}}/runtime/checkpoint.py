"""Saving checkpoints with NeMo's ModelCheckpoint, and finding whole ones again."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from nemo.lightning.pytorch import callbacks as nemo

from ..errors import UserError

_UNFINISHED = nemo.ModelCheckpoint.UNFINISHED_CHECKPOINT_SUFFIX
_LAST = "-last"


class Checkpoint(nemo.ModelCheckpoint):
    """NeMo's ModelCheckpoint: after each validation the best and the last state, marked unfinished while they form."""

    CHECKPOINT_NAME_LAST = "{step}" + _LAST

    def __init__(self, folder: Path, monitor: str) -> None:
        """Save under `folder`; the best checkpoint is the one with the lowest `monitor`."""
        super().__init__(
            dirpath=folder,
            filename="{step}-{" + monitor + ":.6f}",
            monitor=monitor,
            save_top_k=1,
            save_last=True,
            save_optim_on_train_end=True,  # so that a finished run can go on with more steps
            always_save_context=False,  # settings.yaml says what the run was; NeMo's context needs nemo_run
            save_context_on_train_end=False,
        )

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Skip what NeMo's experiment manager does here: moving files, git logs, error logs, pandas."""
        super(nemo.ModelCheckpoint, self).on_train_start(trainer, pl_module)


class NoSecondValidation(pl.Callback):
    """Keeps a resumed run from validating again at the step of its checkpoint.

    Lightning 2.4 would, and start behind the last batch: the figure would be that of one batch, and maybe "the best".
    """

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Switch validation off for the moment in which Lightning decides whether to make up for one."""
        self.limit = trainer.limit_val_batches
        if trainer.global_step > 0:
            trainer.limit_val_batches = 0
            # Lightning counts a step after its validation, so the count in the checkpoint lacks this one
            trainer.fit_loop.epoch_loop._batches_that_stepped = trainer.global_step

    def on_train_batch_start(self, trainer: pl.Trainer, *args: Any) -> None:
        """Switch it on again."""
        trainer.limit_val_batches = self.limit


def last_checkpoint(folder: Path) -> Path | None:
    """Return the newest whole checkpoint to resume from, or None."""
    return max((path for path in _whole(folder) if path.name.endswith(_LAST)), key=step_of, default=None)


def best_checkpoint(folder: Path) -> Path:
    """Return the whole checkpoint with the best validation; its distributed weights are in `weights/`.

    Raises:
        UserError: there is none.
    """
    best = min((path for path in _whole(folder) if not path.name.endswith(_LAST)), key=_score, default=None)
    if best is None:
        raise UserError(f"{folder} holds no finished checkpoint: train the run first")
    return best


def weights(checkpoint: Path) -> Path:
    """Return the folder of a checkpoint that holds the distributed weights."""
    return checkpoint / "weights"


def _whole(folder: Path) -> list[Path]:
    """List the checkpoints that were saved to the end: Megatron writes metadata.json last, NeMo drops its mark."""
    return [
        path
        for path in folder.glob("step=*")
        if (weights(path) / "metadata.json").is_file() and not Path(f"{path}{_UNFINISHED}").exists()
    ]


def _score(path: Path) -> float:
    """Return the monitored value in a name, `step=<n>-<monitor>=<value>`; a name without one is the worst."""
    match = re.search(r"=(-?[\d.]+)$", path.name.partition("-")[2])
    return float(match.group(1)) if match else float("inf")


def step_of(path: Path) -> int:
    """Return the number of finished optimizer steps of a checkpoint."""
    match = re.match(r"step=(\d+)", path.name)
    return int(match.group(1)) if match else -1
