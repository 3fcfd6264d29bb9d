"""Saving checkpoints with NeMo's ModelCheckpoint, and finding whole ones again.

A checkpoint is whole if it is sealed (`seal.py`) and as it was then. While one is written or removed, NeMo's marker
lies beside it, at whatever moment the process is killed; so one with neither seal nor marker has lost its seal since,
in a copy that left it out. More than one `-last` checkpoint is kept, so that there is one to go back to when the newest
is damaged. An old one goes only when the new one is whole.
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from nemo.lightning.ckpt_utils import ckpt_to_dir
from nemo.lightning.pytorch import callbacks as nemo

from ..contracts.errors import UserError
from .disk import DiskError, check_room
from .failures import tell
from .seal import SEAL, damage, is_sealed
from .writer import together

_UNFINISHED = nemo.ModelCheckpoint.UNFINISHED_CHECKPOINT_SUFFIX
_LAST = "-last"


class Checkpoint(nemo.ModelCheckpoint):
    """NeMo's ModelCheckpoint: after each validation the best and the last state, and the last one every some minutes.

    A checkpoint is marked unfinished while it forms or goes. One that cannot be written is told, and the training goes
    on; unless it is that of the last step.
    """

    CHECKPOINT_NAME_LAST = "{step}" + _LAST

    def __init__(self, folder: Path, monitor: str, keep: int = 2, minutes: float = 0) -> None:
        """Save under `folder`.

        Args:
            folder: of the checkpoints.
            monitor: the best checkpoint is the one with the lowest of this.
            keep: how many of the last ones are kept beside the best one.
            minutes: most time between two checkpoints, but for the step that runs out; 0: only after validations.
        """
        super().__init__(
            dirpath=folder,
            filename="{step}-{" + monitor + ":.6f}",
            monitor=monitor,
            save_top_k=1,
            save_last=True,
            save_optim_on_train_end=True,  # so that a finished run can go on with more steps
            save_context_on_train_end=False,  # settings.yaml says what the run was; NeMo's context needs nemo_run
            enable_version_counter=False,  # a step that is trained again after a crash overwrites what was saved of it
        )
        self.keep, self.minutes = keep, minutes
        self.is_wanted = False
        """save after this step, although no validation is due; alike on all ranks"""

    @property
    def is_due(self) -> bool:
        """The minutes are over; the ranks' clocks may differ."""
        return self.minutes > 0 and time.monotonic() - self.last_time >= 60 * self.minutes

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Remove what a resume went back behind; skip NeMo's part: moving files, git logs, error logs, pandas."""
        self.last_time = time.monotonic()
        if trainer.global_step > 0:
            if trainer.is_global_zero:
                for path in _after(trainer.global_step, Path(self.dirpath)):
                    _remove(path)
            trainer.strategy.barrier()
        loop = trainer.fit_loop.epoch_loop
        end_step = loop.on_advance_end

        def end_step_and_save(fetcher: Any) -> None:
            end_step(fetcher)
            self._save_if_wanted(trainer)

        loop.on_advance_end = end_step_and_save  # no hook comes after a step has been counted and logged

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Save the best and the last state."""
        with self._survived(trainer):
            super().on_validation_end(trainer, pl_module)
        self.is_wanted = False

    def _save_if_wanted(self, trainer: Any) -> None:
        if self.is_wanted and not self._should_skip_saving_checkpoint(trainer):
            with self._survived(trainer):
                self._save_last_checkpoint(trainer, self._monitor_candidates(trainer))
        self.is_wanted = False

    @contextmanager
    def _survived(self, trainer: Any) -> Iterator[None]:
        """Tell what could not be saved, and forget that it was tried; but raise it if no other step follows."""
        before = self.__dict__ | {"best_k_models": dict(self.best_k_models)}
        try:
            yield
        except DiskError as error:
            if trainer.should_stop or trainer.global_step >= trainer.max_steps:
                raise
            self.__dict__.update(before)
            tell(f"warning: step {trainer.global_step} was not saved: {error}; trying again at the next one")
        self.last_time = time.monotonic()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Know the best checkpoint also when the run folder has been moved since: it came along."""

        def here(path: str) -> str:
            return path and str(Path(self.dirpath) / Path(path).name)

        paths = ("best_model_path", "kth_best_model_path", "last_model_path")
        best = {here(path): score for path, score in state_dict["best_k_models"].items()}
        moved = {**{name: here(state_dict[name]) for name in paths}, "best_k_models": best, "dirpath": self.dirpath}
        super().load_state_dict(state_dict | moved)

    def _save_checkpoint(self, trainer: Any, filepath: str) -> None:
        """Save whole or not at all; DiskError on all ranks. Then the checkpoints go in whose place it comes."""
        checkpoint, is_first = Path(ckpt_to_dir(filepath)), trainer.is_global_zero
        self._last_global_step_saved = trainer.global_step
        try:
            together(lambda: _begin(checkpoint) if is_first else None, checkpoint.parent)
            trainer.save_checkpoint(filepath)
            together(lambda: _marker(checkpoint).unlink() if is_first else None, checkpoint.parent)
        except DiskError:
            if is_first:
                _remove(checkpoint)
            raise
        if is_first:
            for old in _superseded(checkpoint, self.keep):
                _remove(old)

    def _should_remove_checkpoint(self, trainer: Any, previous: str, current: str) -> bool:
        """Leave that to `_save_checkpoint`."""
        return False


def _begin(checkpoint: Path) -> None:
    """Look for room, mark the checkpoint as unfinished, and clear its place; DiskError or OSError if that fails."""
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    previous = max(_finished(checkpoint.parent), key=step_of, default=None)
    if previous:
        check_room(checkpoint.parent, sum(path.stat().st_size for path in previous.rglob("*")))
    _marker(checkpoint).touch()
    if checkpoint.exists():  # of a step that is trained again
        shutil.rmtree(checkpoint)


def _remove(checkpoint: Path) -> None:
    """Remove a checkpoint, marked while anything of it is there; what cannot be removed is left to the next start."""
    with suppress(OSError):
        _marker(checkpoint).touch()
        if checkpoint.exists():
            shutil.rmtree(checkpoint)
        _marker(checkpoint).unlink()


def _marker(checkpoint: Path) -> Path:
    return Path(f"{checkpoint}{_UNFINISHED}")


def _superseded(newest: Path, keep: int) -> list[Path]:
    """List the checkpoints in whose place a new one comes: all but the last ones, or the best ones before."""
    is_last = newest.name.endswith(_LAST)
    same = [path for path in _finished(newest.parent) if path.name.endswith(_LAST) == is_last]
    return sorted(same, key=step_of)[:-keep] if is_last else [path for path in same if path != newest]


def _after(step: int, folder: Path) -> list[Path]:
    """List the checkpoints of later steps; a resume takes the newest whole one, so they are damaged."""
    return [path for path in folder.glob("step=*") if path.is_dir() and step_of(path) > step]


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
    finished = sorted(_finished(folder), key=lambda path: (step_of(path), path.name.endswith(_LAST)), reverse=True)
    sealed, newest = [path for path in finished if is_sealed(path)], None
    for checkpoint in sealed:
        problem = damage(checkpoint)
        if problem is None:
            newest = checkpoint
            break
        tell(f"checkpoint {checkpoint} is damaged ({problem}): looking for one before it")
    if sealed and newest is None:
        raise UserError(f"every checkpoint in {folder} is damaged: restore one, or train anew in another --run_dir")
    _check_seals([path for path in reversed(finished) if path not in sealed], newest)
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
    """Return the checkpoint with the best validation; its distributed weights are in `weights/`.

    Raises:
        UserError: there is none, or it is damaged, or has lost its seal.
    """
    best = min((path for path in _finished(folder) if not path.name.endswith(_LAST)), key=score_of, default=None)
    if best is None:
        raise UserError(f"{folder} holds no finished checkpoint of a validation: train the run to one")
    if not is_sealed(best):
        raise UserError(
            f"checkpoint {best} lost {SEAL}, which tells whether it is whole: copy it again with that file, or "
            "train the run again"
        )
    if problem := damage(best):
        raise UserError(f"checkpoint {best} is damaged ({problem}): restore it, or train the run again")
    return best


def weights(checkpoint: Path) -> Path:
    """Return the folder of a checkpoint that holds the distributed weights."""
    return checkpoint / "weights"


def _finished(folder: Path) -> list[Path]:
    """List the checkpoints that were saved to the end, and of which NeMo has not begun to remove anything."""
    return [path for path in folder.glob("step=*") if path.is_dir() and not _marker(path).exists()]


def score_of(path: Path) -> float:
    """Return the monitored value in a name, `step=<n>-<monitor>=<value>`; infinite, the worst, without one."""
    match = re.search(r"=(-?[\d.]+)$", path.name.partition("-")[2])
    return float(match.group(1)) if match else float("inf")


def step_of(path: Path) -> int:
    """Return the number of finished optimizer steps of a checkpoint."""
    match = re.match(r"step=(\d+)", path.name)
    return int(match.group(1)) if match else -1
