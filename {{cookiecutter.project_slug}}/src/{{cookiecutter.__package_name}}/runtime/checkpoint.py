"""Saving checkpoints with NeMo's ModelCheckpoint, and finding whole ones again.

A checkpoint is whole if it is sealed (`seal.py`) and as it was then. While one is written or removed, NeMo's marker
lies beside it, at whatever moment the process is killed; so one with neither seal nor marker has lost its seal since,
in a copy that left it out. Two `-last` checkpoints are kept, so that there is one to go back to when the newest is
damaged.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from nemo.lightning.ckpt_utils import ckpt_to_dir
from nemo.lightning.pytorch import callbacks as nemo

from ..contracts.errors import UserError
from .failures import tell
from .seal import SEAL, damage, finished, is_sealed, seal, step_of

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
            enable_version_counter=False,  # a step that is trained again after a crash overwrites what was saved of it
        )

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Remove what a resume went back behind; skip NeMo's part: moving files, git logs, error logs, pandas."""
        super(nemo.ModelCheckpoint, self).on_train_start(trainer, pl_module)
        if trainer.global_step > 0:
            for path in trainer.strategy.broadcast(_after(trainer.global_step, Path(self.dirpath))):
                self._remove_checkpoint(trainer, path)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Know the best checkpoint also when the run folder has been moved since: it came along."""

        def here(path: str) -> str:
            return path and str(Path(self.dirpath) / Path(path).name)

        paths = ("best_model_path", "kth_best_model_path", "last_model_path")
        best = {here(path): score for path, score in state_dict["best_k_models"].items()}
        moved = {**{name: here(state_dict[name]) for name in paths}, "best_k_models": best, "dirpath": self.dirpath}
        super().load_state_dict(state_dict | moved)

    def _save_checkpoint(self, trainer: Any, filepath: str) -> None:
        """Save, and remove the `-last` checkpoints before the previous one."""
        checkpoint = Path(ckpt_to_dir(filepath))
        if trainer.is_global_zero and checkpoint.exists():  # of a step that is trained again
            self.set_checkpoint_unfinished_marker(filepath)
            shutil.rmtree(checkpoint, ignore_errors=True)  # NeMo's barrier follows before anything is written
        super()._save_checkpoint(trainer, filepath)
        if checkpoint.name.endswith(_LAST):
            for old in trainer.strategy.broadcast(_superseded(checkpoint.parent)):
                self._remove_checkpoint(trainer, old)

    def _get_finalize_save_checkpoint_callback(self, trainer: Any, filepath: str, step: int) -> Callable[[], None]:
        """Seal what all ranks have written, before NeMo removes its marker."""
        finish = super()._get_finalize_save_checkpoint_callback(trainer, filepath, step)

        def seal_and_finish() -> None:
            seal(Path(ckpt_to_dir(filepath)))
            finish()

        return seal_and_finish

    def _should_remove_checkpoint(self, trainer: Any, previous: str, current: str) -> bool:
        """Leave the previous `-last` checkpoint to `_save_checkpoint`."""
        if Path(ckpt_to_dir(previous)).name.endswith(_LAST):
            return False
        return super()._should_remove_checkpoint(trainer, previous, current)


def _superseded(folder: Path) -> list[str]:
    """List all `-last` checkpoints but the newest and the one before it."""
    return [str(path) for path in sorted(folder.glob(f"step=*{_LAST}"), key=step_of)[:-2]]


def _after(step: int, folder: Path) -> list[str]:
    """List the checkpoints of later steps; a resume takes the newest whole one, so they are damaged."""
    return [str(path) for path in folder.glob("step=*") if path.is_dir() and step_of(path) > step]


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
    found = sorted(finished(folder), key=lambda path: (step_of(path), path.name.endswith(_LAST)), reverse=True)
    sealed, newest = [path for path in found if is_sealed(path)], None
    for checkpoint in sealed:
        problem = damage(checkpoint)
        if problem is None:
            newest = checkpoint
            break
        tell(f"checkpoint {checkpoint} is damaged ({problem}): looking for one before it")
    if sealed and newest is None:
        raise UserError(f"every checkpoint in {folder} is damaged: restore one, or train anew in another --run_dir")
    _check_seals([path for path in reversed(found) if path not in sealed], newest)
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
    best = min((path for path in finished(folder) if not path.name.endswith(_LAST)), key=score_of, default=None)
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


def score_of(path: Path) -> float:
    """Return the monitored value in a name, `step=<n>-<monitor>=<value>`; infinite, the worst, without one."""
    match = re.search(r"=(-?[\d.]+)$", path.name.partition("-")[2])
    return float(match.group(1)) if match else float("inf")
