"""The canaries of checkpoint.py and saving.py."""

import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from canaries import fails_without, mended, train_shortly, with_argument, without
from conftest import read_rows

from {{cookiecutter.__package_name}}.contracts.names import CHECKPOINTS_FOLDER, GRAD_NORM, STEP, VAL_LOSS
from {{cookiecutter.__package_name}}.runtime import checkpoint
from {{cookiecutter.__package_name}}.runtime.checkpoint import ValidationSchedule
from {{cookiecutter.__package_name}}.runtime.saving import Checkpoint

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.slow
def test_canary_model_checkpoint_wants_the_experiment_manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without("on_train_start", Checkpoint, monkeypatch)
    errors = (ModuleNotFoundError, TypeError)  # without pandas; with it
    with fails_without("Checkpoint.on_train_start", errors, "'pandas'|unsupported operand .*'NoneType' and 'str'"):
        train_shortly(tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(find_spec("nemo_run") is not None, reason="with nemo_run the context is whole")
def test_canary_context_needs_nemo_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    argument = "save_context_on_train_end"
    with_argument(Checkpoint.__mro__[1], "always_save_context", False, monkeypatch)
    with_argument(Checkpoint.__mro__[1], argument, True, monkeypatch)
    folder = train_shortly(tmp_path) / CHECKPOINTS_FOLDER
    assert list(folder.glob("*/context/io.json"))
    if list(folder.glob("*/context/model.yaml")):
        mended(argument)


def test_canary_every_rank_in_a_shell_of_slurm_takes_itself_for_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nemo.lightning.pytorch.callbacks import ModelCheckpoint

    (tmp_path / "step=2-unfinished").touch()
    for name, value in {"SLURM_PROCID": "0", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    trainer = SimpleNamespace(is_global_zero=False, strategy=SimpleNamespace(broadcast=lambda value: value))
    ModelCheckpoint(dirpath=tmp_path, monitor=VAL_LOSS).setup(trainer, None, "validate")
    if list(tmp_path.iterdir()):
        mended("Checkpoint.setup")


def test_canary_a_step_saved_again_gets_a_version(tmp_path: Path) -> None:
    from nemo.lightning.pytorch.callbacks import ModelCheckpoint

    (tmp_path / "step=2").mkdir()
    trainer = SimpleNamespace(strategy=SimpleNamespace(broadcast=lambda value: value))
    figures = {"step": torch.tensor(2), "epoch": torch.tensor(0)}
    upstream = ModelCheckpoint(dirpath=tmp_path, filename="{step}", monitor=None, save_top_k=1)
    if not upstream._get_metric_interpolated_filepath_name(figures, trainer).endswith("step=2-v1.ckpt"):
        mended("enable_version_counter=False")


def steps_with(name: str, run: Path) -> list[str]:
    """List the steps at which a run has logged something."""
    return [row[STEP] for row in read_rows(run) if row[name]]


@pytest.mark.slow
def test_canary_second_validation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = train_shortly(tmp_path)
    mine = steps_with(VAL_LOSS, train_shortly(tmp_path, resumed=run))
    assert mine == ["2", "4"]
    monkeypatch.setattr(ValidationSchedule, "on_train_start", lambda self, trainer, module: None)
    monkeypatch.setattr(ValidationSchedule, "on_train_batch_start", lambda self, *args: None)
    steps = steps_with(VAL_LOSS, train_shortly(tmp_path, resumed=run))
    if steps == mine:
        mended("ValidationSchedule")
    assert steps == ["2", "2", "4"]


@pytest.mark.slow
def test_canary_last_validation_of_a_resumed_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def start_with_the_length(self: Any, trainer: Any, module: Any) -> None:
        loop = trainer.fit_loop
        length = loop._data_fetcher.length
        start(self, trainer, module)
        loop.max_batches = loop._data_fetcher.length = length

    larger = {"max_steps": 5, "global_batch_size": 64}
    run = train_shortly(tmp_path)
    mine = steps_with(VAL_LOSS, train_shortly(tmp_path, resumed=run, training=larger))
    assert mine == ["2", "4", "5"]
    start = ValidationSchedule.on_train_start
    monkeypatch.setattr(ValidationSchedule, "on_train_start", start_with_the_length)
    monkeypatch.setattr(ValidationSchedule, "on_train_batch_end", lambda *args: None)
    steps = steps_with(VAL_LOSS, train_shortly(tmp_path, resumed=run, training=larger))
    if steps == mine:
        mended("ValidationSchedule.on_train_batch_end")
    assert steps == ["2", "4"]


@pytest.mark.slow
def test_canary_steps_of_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop

    every_second = {"log_every_n_steps": 2, "max_steps": 6, "val_check_interval": 4}
    run = train_shortly(tmp_path, training={**every_second, "max_steps": 4})
    logged = steps_with(GRAD_NORM, train_shortly(tmp_path, resumed=run, training=every_second))
    assert logged == ["2", "4", "6"]
    keep = property(lambda self: self.__dict__["kept"], lambda self, value: keep_unless_ours(self, value))

    def keep_unless_ours(self: Any, value: int) -> None:
        if sys._getframe(2).f_code.co_filename != checkpoint.__file__:
            self.__dict__["kept"] = value

    monkeypatch.setattr(_TrainingEpochLoop, "_batches_that_stepped", keep, raising=False)
    without_it = steps_with(GRAD_NORM, train_shortly(tmp_path, resumed=run, training=every_second))
    if without_it == logged:
        mended("ValidationSchedule's line on _batches_that_stepped")
    assert without_it == ["2", "4"]
