"""Saving checkpoints with NeMo's ModelCheckpoint.

More than one `-last` checkpoint is kept, so that there is one to go back to when the newest is damaged. An old one goes
only when the new one is whole.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch
from nemo.lightning.ckpt_utils import ckpt_to_dir
from nemo.lightning.pytorch import callbacks as nemo

from ..contracts.names import SETTINGS_FILE
from .background import Background
from .checkpoint import weights
from .disk import VANISHED, DiskError, check_room
from .failures import tell
from .seal import LAST, finished, marker, step_of
from .writer import together


class Checkpoint(nemo.ModelCheckpoint):
    """NeMo's ModelCheckpoint: after each validation the best and the last state, and the last one every some minutes.

    A checkpoint is marked unfinished while it forms or goes. One that cannot be written is told, and the training goes
    on; unless it is that of the last step.
    """

    CHECKPOINT_NAME_LAST = "{step}" + LAST

    def __init__(
        self, folder: Path, monitor: str, keep: int = 2, minutes: float = 0, asynchronous: bool = False
    ) -> None:
        """Save under `folder`.

        Args:
            folder: of the checkpoints.
            monitor: the best checkpoint is the one with the lowest of this.
            keep: how many of the last ones are kept beside the best one.
            minutes: most time between two checkpoints, but for the step that runs out; 0: only after validations.
            asynchronous: write while training goes on; DiskErrors then come with the next one.
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
        self.asynchronous = asynchronous
        self.background: Background | None = None
        self.is_wanted = False
        """save after this step, although no validation is due; alike on all ranks"""
        self.known: dict[str, Any] = {}
        """this object as it was when the last save was done, or before the first of a step"""

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
        if self.asynchronous:
            self.background = Background(trainer.strategy.optimizers)
            trainer.strategy.checkpoint_io.copies = self.background.copies
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

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Save the last state, if that has not been done, and wait until it is written."""
        with self._survived(trainer):
            super().on_train_end(trainer, pl_module)
        self._close()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Let what is being written be finished."""
        self._close()

    def _close(self) -> None:
        if self.background:
            self.background.close()

    @contextmanager
    def _survived(self, trainer: Any) -> Iterator[None]:
        """Forget that it was tried to save what could not be; but raise it if no other step follows."""
        self._settle()
        self._remember()
        try:
            yield
            if self.background and _is_last(trainer):
                self.background.wait()
        except DiskError as error:
            if _has_vanished(Path(self.dirpath)):
                raise DiskError(VANISHED) from error
            if _is_last(trainer):
                raise
            self.__dict__.update(self.known)
            self._settle()  # to know what else is there of this step
            _tell(trainer.global_step, error, Path(self.dirpath))
        self.last_time = time.monotonic()

    def _remember(self) -> None:
        self.known = self.__dict__ | {"best_k_models": dict(self.best_k_models), "known": {}}

    def _settle(self) -> None:
        """Wait for what is still being written."""
        if self.background:
            try:
                self.background.wait()
            except DiskError:  # which has been told
                self.__dict__.update(self.background.before)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Know the best checkpoint also when the run folder has been moved since: it came along."""

        def here(path: str) -> str:
            return path and str(Path(self.dirpath) / Path(path).name)

        paths = ("best_model_path", "kth_best_model_path", "last_model_path")
        best = {here(path): score for path, score in state_dict["best_k_models"].items()}
        moved = {**{name: here(state_dict[name]) for name in paths}, "best_k_models": best, "dirpath": self.dirpath}
        super().load_state_dict(state_dict | moved)

    def _monitor_candidates(self, trainer: Any) -> dict[str, Any]:
        """Name a checkpoint after its own step: Lightning takes the step that was logged last."""
        return {**super()._monitor_candidates(trainer), "step": torch.tensor(trainer.global_step)}

    def _save_checkpoint(self, trainer: Any, filepath: str) -> None:
        """Save whole or not at all; DiskError on all ranks. Then the checkpoints go in whose place it comes."""
        checkpoint, is_first = Path(ckpt_to_dir(filepath)), trainer.is_global_zero
        self._last_global_step_saved = trainer.global_step
        if self.background:
            self.background.copies.begin(trainer.global_step)
        together(lambda: _begin(checkpoint) if is_first else None, checkpoint.parent)
        trainer.save_checkpoint(filepath)
        write = trainer.strategy.checkpoint_io.planned
        finish = partial(_finish, checkpoint, write, self.keep if is_first else None)
        if self.background:
            step = None if _is_last(trainer) else trainer.global_step
            self.background.start(partial(finish, self.background.group, step), self.known)
        else:
            finish()
        self._remember()  # the best one, although the last one may fail

    def _should_remove_checkpoint(self, trainer: Any, previous: str, current: str) -> bool:
        """Leave that to `_save_checkpoint`."""
        return False


def _is_last(trainer: Any) -> bool:
    return bool(trainer.should_stop or trainer.global_step >= trainer.max_steps)


def _has_vanished(checkpoints: Path) -> bool:
    """Tell whether the run folder is gone. What is there without settings was made by a save that was under way."""
    return not (checkpoints.parent / SETTINGS_FILE).exists()


def _tell(step: int, error: DiskError, folder: Path) -> None:
    is_best = any(step_of(path) == step for path in finished(folder))  # which is saved first
    how = "saved as the best, but not as the last" if is_best else "not saved"
    tell(f"warning: step {step} was {how}: {error}; trying again at the next one")


def _begin(checkpoint: Path) -> None:
    """Look for room, mark the checkpoint as unfinished, and make it anew; DiskError or OSError if that fails."""
    if _has_vanished(checkpoint.parent):
        raise DiskError(VANISHED)
    checkpoint.parent.mkdir(exist_ok=True)
    previous = max(finished(checkpoint.parent), key=step_of, default=None)
    if previous:
        check_room(checkpoint.parent, sum(path.stat().st_size for path in previous.rglob("*")))
    try:
        marker(checkpoint).touch()
        if checkpoint.exists():  # of a step that is trained again
            shutil.rmtree(checkpoint)
        weights(checkpoint).mkdir(parents=True)  # else each rank does while the others wait for it
    except OSError:
        _remove(checkpoint)
        raise


def _finish(
    checkpoint: Path,
    write: Callable[[Any], None],
    keep: int | None,
    group: Any = None,
    step: int | None = None,
    problem: str | None = None,
) -> None:
    """Write a checkpoint, then remove the marker, and those in whose place it comes; DiskError on all ranks.

    Args:
        checkpoint: its folder.
        write: writes and seals it.
        keep: how many of the last ones are kept; None on ranks that write only what is theirs.
        group: of all ranks.
        step: the one to tell that it was not saved; None: whoever waits for it does.
        problem: why another checkpoint of this step could not be written, and this one is not tried.
    """
    try:
        if problem:
            raise DiskError(problem)
        write(group)
        together(lambda: marker(checkpoint).unlink() if keep else None, checkpoint.parent, group)
    except DiskError as error:
        if keep:
            _remove(checkpoint)
            if _has_vanished(checkpoint.parent):
                with suppress(OSError):  # something else may be in it by now
                    checkpoint.parent.rmdir()
                    checkpoint.parent.parent.rmdir()
        if step and not problem and not _has_vanished(checkpoint.parent):  # else the next step ends the run
            _tell(step, error, checkpoint.parent)
        raise
    for old in _superseded(checkpoint, keep) if keep else ():
        _remove(old)


def _remove(checkpoint: Path) -> None:
    """Remove a checkpoint, marked while anything of it is there; what cannot be removed is left to the next start."""
    with suppress(OSError):
        marker(checkpoint).touch()
        if checkpoint.exists():
            shutil.rmtree(checkpoint)
        marker(checkpoint).unlink()


def _superseded(newest: Path, keep: int) -> list[Path]:
    """List the checkpoints in whose place a new one comes: all but the last ones, or the best ones before."""
    is_last = newest.name.endswith(LAST)
    same = [path for path in finished(newest.parent) if path.name.endswith(LAST) == is_last]
    return sorted(same, key=step_of)[:-keep] if is_last else [path for path in same if path != newest]


def _after(step: int, folder: Path) -> list[Path]:
    """List the checkpoints of later steps; a resume takes the newest whole one, so they are damaged."""
    return [path for path in folder.glob("step=*") if path.is_dir() and step_of(path) > step]
