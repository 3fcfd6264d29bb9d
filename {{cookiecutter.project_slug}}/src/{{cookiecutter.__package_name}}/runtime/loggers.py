"""Where figures go beside metrics.csv: TensorBoard, Weights & Biases, MLflow, each through Lightning's own logger.

The last two talk to servers. What goes wrong in any of them is told, and never ends or holds up a training; and what
they keep on disk lies in the run folder. Variables of theirs in the environment (WANDB_PROJECT, MLFLOW_TRACKING_URI)
have the last word.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.loggers import Logger, MLFlowLogger, TensorBoardLogger, WandbLogger

from ..contracts.errors import UserError
from ..contracts.files import write_whole
from ..contracts.names import LOGGERS_FILE, TENSORBOARD_FOLDER
from ..contracts.reading import mapping
from .failures import tell

PROJECT = (__package__ or "").partition(".")[0].replace("_", "-")

_WANDB = {
    "WANDB_SILENT": "true",  # else it talks, and asks at a terminal for a key
    "WANDB_CONSOLE": "off",  # else it takes what is printed, also the progress bar
    "WANDB_ERROR_REPORTING": "false",  # else it sends its tracebacks away, offline too
    "WANDB_INIT_TIMEOUT": "30",
    "WANDB_FINISH_TIMEOUT": "60",  # else the end of a run waits for a server for ever
}
_WANDB_STEP = "trainer/global_step"
"""Lightning's name for the step there"""
_MLFLOW = {
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",  # else seven, for many minutes, in which the training waits
}


def open_loggers(names: tuple[str, ...], run: Path, settings: Mapping[str, Any], step: int) -> list[Logger]:
    """Open what a training logs to, on the first rank; a run that is resumed goes on where it logged before.

    Args:
        names: of the tools.
        run: the run folder.
        settings: of the run, for those who show them.
        step: finished optimizer steps.

    Raises:
        UserError: one of them refuses, and no server is to blame; or nobody can say which runs of theirs these were.
    """
    loggers: list[Logger] = []
    if "tensorboard" in names:
        board = TensorBoardLogger(run, name=TENSORBOARD_FOLDER, version="", purge_step=step + 1)
        loggers.append(Guarded("tensorboard", run, board, lambda is_well: None))
        threading.excepthook = _silent_for_tensorboard
    for name in [name for name in names if name in _OPEN and torch.distributed.get_rank() == 0]:
        known = _ids(run)
        if logger := _open(name, run):
            if name != "mlflow" or name not in known:  # it refuses settings that have changed
                logger.log_hyperparams(settings)
            loggers.append(logger)
    return loggers


def log_to_run(names: tuple[str, ...], run: Path, figures: dict[str, float], step: int) -> None:
    """Add figures of a run to what it logged to, where it is known there; for the first rank only."""
    for name in filter(_OPEN.__contains__, names):
        try:
            logger = _open(name, run) if name in _ids(run) else None
        except (ImportError, UserError) as error:  # perhaps on another machine than that of the training
            tell(f"warning: {name} is not given the test figures ({_reason(error)})")
            continue
        if logger:
            logger.log_metrics(figures, step)
            logger.finalize("success")


class Guarded(Logger):
    """A logger that is given up, once and in one line, when it fails; without a word if the run folder is gone."""

    def __init__(self, tool: str, run: Path, logger: Logger, close: Callable[[bool], None]) -> None:
        """Guard a tool's logger.

        Args:
            tool: its name.
            run: the run folder; that it has vanished ends the run, and is told then.
            logger: Lightning's.
            close: lets go of the tool, and is told whether all went well.
        """
        super().__init__()
        self.tool, self.run, self.logger, self.close = tool, run, logger, close
        self.is_open = True

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Hand over figures; `step` counts finished optimizer steps."""
        self._try(self.logger.log_metrics, metrics, step)

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Hand over settings."""
        self._try(self.logger.log_hyperparams, params)

    def finalize(self, status: str) -> None:
        """Say how it ended, and let go."""
        self._try(self.logger.finalize, status)
        self._try(self.close, status == "success")
        self.is_open = False

    def _try(self, action: Callable[..., Any], *arguments: Any) -> None:
        if not self.is_open:
            return
        try:
            action(*arguments)
        except Exception as error:
            self.is_open = False
            if self.run.exists():
                why = _reason(error.__cause__ or error)  # Lightning says of any that the figure is to blame
                tell(f"warning: {self.tool} takes no more figures ({why}); metrics.csv has all of them")
            with suppress(Exception):
                self.close(False)

    @property
    def name(self) -> str:
        """Name of the tool."""
        return self.tool

    @property
    def version(self) -> str:
        """There is one version, the run's."""
        return ""


def _silent_for_tensorboard(error: Any, others: Callable[[Any], Any] = threading.excepthook) -> None:
    """Print no error of the thread in which TensorBoard writes: it keeps it, and raises it where one logs next."""
    if not type(error.thread).__module__.startswith("tensorboard."):
        others(error)


def _open(name: str, run: Path) -> Guarded | None:
    """Open a tool's run, the one that it has for this run folder already if there is one; None if it cannot be."""
    ids = _ids(run)
    try:
        logger, number = _OPEN[name](run, ids.get(name))
    except (ImportError, UserError):
        raise
    except Exception as error:
        tell(f"warning: {name} is left out ({_reason(error)}); metrics.csv has all figures")
        return None
    with write_whole(run / LOGGERS_FILE) as file:
        json.dump({**ids, name: number}, file)
    return logger


def _open_wandb(run: Path, known: str | None) -> tuple[Guarded, str]:
    import wandb

    for variable, value in {**_WANDB, "WANDB_CACHE_DIR": str(run.resolve() / "wandb" / "cache")}.items():
        os.environ.setdefault(variable, value)
    said, hooks = os.environ.get, (sys.excepthook, sys.exit)
    begin = partial(
        wandb.init,
        dir=run,
        id=known or said("WANDB_RUN_ID"),
        name=said("WANDB_NAME", run.resolve().name),
        project=said("WANDB_PROJECT", PROJECT),
        resume="allow",
    )
    try:
        begun = begin()
    except wandb.errors.UsageError as error:
        raise UserError(f"--loggers wandb: {_reason(error)} Or set WANDB_MODE=offline, and send it later") from error
    except wandb.errors.CommError as error:
        tell(f"warning: wandb cannot be reached ({_reason(error)}): `wandb sync` can send what is in {run}/wandb")
        begun = begin(mode="offline")
    finally:
        sys.excepthook, sys.exit = hooks  # else it prints tracebacks too
    begun.define_metric(_WANDB_STEP)
    begun.define_metric("*", step_metric=_WANDB_STEP, step_sync=True)
    kept = run / "wandb" / Path(begun.sync_dir).name if begun.offline else None
    return Guarded("wandb", run, WandbLogger(experiment=begun), partial(_close_wandb, kept)), str(begun.id)


def _close_wandb(kept: Path | None, is_well: bool) -> None:
    """End wandb's run, and say how to send one that it has kept on the disk."""
    import wandb

    try:
        wandb.finish(int(not is_well))
    finally:
        wandb.teardown()  # else a process of it that has died ends this one in a traceback
    if kept and kept.exists():
        tell(f"wandb was offline: {shlex.join(['wandb', 'sync', str(kept)])} sends what it has of this run")


def _open_mlflow(run: Path, known: str | None) -> tuple[Guarded, str]:
    for variable, value in _MLFLOW.items():
        os.environ.setdefault(variable, value)
    here, said = run.resolve() / "mlflow", os.environ.get
    server = said("MLFLOW_TRACKING_URI")
    if not server:
        here.mkdir(parents=True, exist_ok=True)
    logger = MLFlowLogger(
        experiment_name=said("MLFLOW_EXPERIMENT_NAME", PROJECT),
        run_name=said("MLFLOW_RUN_NAME", run.resolve().name),
        tracking_uri=server or f"sqlite:///{here}/mlflow.db",
        artifact_location=None if server else str(here / "artifacts"),
        run_id=known or said("MLFLOW_RUN_ID"),
    )
    return Guarded("mlflow", run, logger, lambda is_well: None), str(logger.run_id)


_OPEN = {"wandb": _open_wandb, "mlflow": _open_mlflow}


def _ids(run: Path) -> dict[str, str]:
    """Return by the tool's name what it calls this run; UserError if the file that says so cannot be used."""
    path = run / LOGGERS_FILE
    try:
        return {name: str(number) for name, number in mapping(json.loads(path.read_text(encoding="utf-8"))).items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        mend = "restore it, or remove it to begin new runs of wandb and mlflow"
        raise UserError(f"{path} cannot be used ({_reason(error)}): {mend}") from error


def _reason(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
