"""Finding whole checkpoints again; and when a run is validated, and with that saved (`saving.py`).

A checkpoint is whole if it is sealed (`seal.py`) and as it was then. While one is written or removed, NeMo's marker
lies beside it, at whatever moment the process is killed; so one with neither seal nor marker has lost its seal since,
in a copy that left it out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning.pytorch as pl

from ..contracts.errors import UserError
from .failures import tell
from .meeting import from_first
from .seal import LAST, SEAL, damage, finished, is_sealed, marker, step_of

_TRIES = 5
_AGAIN = "a training has a better one now, perhaps; run the command again"


class ValidationSchedule(pl.Callback):
    """Validates after every `val_check_interval` steps and after the last one, however often the run was resumed.

    Lightning 2.4 knows the last step from the loader, whose length is in micro batches of today's size, and holds it
    against what the run counted before. After a resume it would also validate at once, and start behind the last batch:
    the figure would be that of one batch, and maybe "the best".
    """

    def on_train_start(self, trainer: Any, pl_module: pl.LightningModule) -> None:
        """Hide the loader's length, and switch validation off for the moment in which Lightning makes up for one."""
        self.limit = trainer.limit_val_batches
        trainer.fit_loop.max_batches = float("inf")
        trainer.fit_loop._data_fetcher.length = None
        if trainer.global_step > 0:
            trainer.limit_val_batches = 0
            # Lightning counts a step after its validation, so the count in the checkpoint lacks this one
            trainer.fit_loop.epoch_loop._batches_that_stepped = trainer.global_step

    def on_train_batch_start(self, trainer: pl.Trainer, *args: Any) -> None:
        """Switch it on again."""
        trainer.limit_val_batches = self.limit

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        """Say which batch is the last one."""
        trainer.fit_loop.epoch_loop.batch_progress.is_last_batch = trainer.global_step >= trainer.max_steps


def last_checkpoint(folder: Path) -> Path | None:
    """Return the newest checkpoint to resume from, or None if none was ever finished; say which ones are damaged.

    Raises:
        UserError: all of them are damaged, or one of a later step has lost its seal.
    """
    there = sorted(finished(folder), key=lambda path: (step_of(path), path.name.endswith(LAST)), reverse=True)
    sealed, newest = [path for path in there if is_sealed(path)], None
    for checkpoint in sealed:
        problem = damage(checkpoint)
        if problem is None:
            newest = checkpoint
            break
        tell(f"checkpoint {checkpoint} is damaged ({problem}): looking for one before it")
    if sealed and newest is None:
        raise UserError(f"every checkpoint in {folder} is damaged: restore one, or train anew in another --run_dir")
    _check_seals([path for path in reversed(there) if path not in sealed], newest)
    return newest


def _check_seals(unsealed: list[Path], newest: Path | None) -> None:
    """Raise a UserError if there are unsealed checkpoints of later steps than the newest whole one."""
    step = step_of(newest) if newest else 0
    if lost := [path.name for path in unsealed if step_of(path) > step]:
        raise UserError(
            f"of the checkpoints in {unsealed[0].parent}, {', '.join(lost)} lost {SEAL}, which tells whether one is "
            f"whole: copy them again with it, or delete these folders to go on from step {step}"
        )


def best_checkpoint(folder: Path) -> Path:
    """Return the checkpoint with the best validation, which the first rank finds; its weights are in `weights/`.

    If the run is being trained, a better one may come in its place meanwhile; then that is looked at.

    Raises:
        UserError: there is none, or it is damaged, or has lost its seal.
    """
    return folder / from_first(f"best checkpoint in {folder}", lambda: _best(folder).name)


def _best(folder: Path) -> Path:
    for _ in range(_TRIES):
        best = min((path for path in finished(folder) if not path.name.endswith(LAST)), key=score_of, default=None)
        if best is None:
            raise UserError(f"{folder} holds no finished checkpoint of a validation: train the run to one")
        sealed = is_sealed(best)
        problem = damage(best) if sealed else None
        if sealed and problem is None:
            return best
        if not _is_gone(best):
            break
    else:
        raise UserError(f"{best} and those before it were replaced while they were read: {_AGAIN}")
    if problem:
        raise UserError(f"checkpoint {best} is damaged ({problem}): restore it, or train the run again")
    raise UserError(
        f"checkpoint {best} lost {SEAL}, which tells whether it is whole: copy it again with that file, or "
        "train the run again"
    )


@contextmanager
def reading(start: str | None) -> Iterator[None]:
    """Read from a checkpoint that was chosen, of a run that may be being trained.

    Args:
        start: its `weights`; None: nothing is read.

    Raises:
        UserError: instead of whatever libraries raise when it is removed meanwhile.
    """
    try:
        yield
    except (UserError, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # torch's CheckpointException is no Exception
        if start and _is_gone(Path(start).parent):
            raise UserError(f"checkpoint {Path(start).parent} vanished while it was read: {_AGAIN}") from error
        raise


def _is_gone(checkpoint: Path) -> bool:
    return not checkpoint.is_dir() or marker(checkpoint).exists()


def weights(checkpoint: Path) -> Path:
    """Return the folder of a checkpoint that holds the distributed weights."""
    return checkpoint / "weights"


def score_of(path: Path) -> float:
    """Return the monitored value in a name, `step=<n>-<monitor>=<value>`; infinite, the worst, without one."""
    match = re.search(r"=(-?[\d.]+)$", path.name.partition("-")[2])
    return float(match.group(1)) if match else float("inf")
