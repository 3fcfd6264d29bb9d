"""Saving: between validations too, as many as wished, and a save that fails takes nothing with it."""

import re
import resource
import shutil
from concurrent.futures import wait
from pathlib import Path
from threading import Event
from typing import Any

import in_ranks
import kills
import pytest
import torch
from conftest import TINY, change

from {{cookiecutter.__package_name}}.contracts import names
from {{cookiecutter.__package_name}}.model.settings import LAYOUTS, Settings
from {{cookiecutter.__package_name}}.proof.ranks import run_ranks
from {{cookiecutter.__package_name}}.runtime import background, saving
from {{cookiecutter.__package_name}}.runtime.checkpoint import last_checkpoint
from {{cookiecutter.__package_name}}.runtime.disk import DiskError
from {{cookiecutter.__package_name}}.runtime.seal import finished
from {{cookiecutter.__package_name}}.training import train as training

pytestmark = pytest.mark.slow

EVERY_FOUR = change(
    TINY,
    network=LAYOUTS.network,
    resume=True,
    model={"hidden_dropout": 0.1},
    training={"max_steps": 12, "val_check_interval": 4, "checkpoint_minutes": 0.0},
    parallel={"devices": 2},
)
AFTER_EACH_STEP = {"checkpoint_minutes": 1e-9}


def in_two_ranks(target: Any, settings: Settings) -> Any:
    return run_ranks(target, settings, processes=2, logs=Path(f"{settings.run_dir}-logs"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that saves after validations only."""
    run = tmp_path_factory.mktemp("whole") / "run"
    in_two_ranks(in_ranks.train, change(EVERY_FOUR, run_dir=str(run)))
    return run


def last_ones(run: Path) -> set[str]:
    return {path.name for path in run.glob(f"{names.CHECKPOINTS_FOLDER}/*-last")}


def by_the_clock_of_the_first(settings: Settings) -> None:
    """Train with ranks of which the others never think that it is time to save."""
    start = training.Checkpoint.on_train_start

    def on_train_start(self: Any, trainer: Any, module: Any) -> None:
        start(self, trainer, module)
        if trainer.global_rank > 0:
            self.minutes = 0.0

    training.Checkpoint.on_train_start = on_train_start  # type: ignore[method-assign]
    training.train(settings)


def test_a_checkpoint_between_validations_is_resumed_bit_for_bit(whole: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    settings = change(EVERY_FOUR, run_dir=str(run), training={**AFTER_EACH_STEP, "keep_checkpoints": 9})
    in_two_ranks(by_the_clock_of_the_first, settings)
    assert last_ones(run) == {f"step={step}-last" for step in range(4, 13)}
    assert kills.equal(run, whole)
    for path in run.glob(f"{names.CHECKPOINTS_FOLDER}/step=*"):
        if int(re.findall(r"\d+", path.name)[0]) > 6:
            shutil.rmtree(path)
    in_two_ranks(in_ranks.train, change(settings, training={"checkpoint_minutes": 0.0, "keep_checkpoints": 1}))
    assert kills.equal(run, whole) and last_ones(run) == {"step=12-last"}


def test_a_checkpoint_is_named_after_its_step_however_seldom_one_is_logged(tmp_path: Path) -> None:
    seldom = {**AFTER_EACH_STEP, "max_steps": 7, "val_check_interval": 7, "log_every_n_steps": 5, "keep_checkpoints": 9}
    settings = change(EVERY_FOUR, run_dir=str(tmp_path / "run"), parallel={"devices": 1}, training=seldom)
    run_ranks(in_ranks.train, settings, processes=1, logs=tmp_path)
    assert last_ones(tmp_path / "run") == {f"step={step}-last" for step in range(1, 8)}


def fail_in_step_8(settings: Settings) -> list[list[str]]:
    """Train, and let files of the last rank grow no longer than some bytes when step 8 is saved."""
    found: list[list[str]] = []
    folder = Path(settings.run_dir, names.CHECKPOINTS_FOLDER)

    def set_limit(trainer: Any, size: int) -> None:
        wait_for_thread(trainer)
        found.append(sorted(path.name for path in folder.iterdir()))
        if trainer.global_rank == trainer.world_size - 1:
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

    in_ranks.in_step(8, lambda trainer: set_limit(trainer, 10_000))
    in_ranks.in_step(9, lambda trainer: set_limit(trainer, resource.RLIM_INFINITY))
    training.train(settings)
    return found


def wait_for_thread(trainer: Any) -> None:
    """Wait until what is being written is written, whatever comes of it."""
    beside = trainer.checkpoint_callback.background
    wait([] if beside is None else beside._running)


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_save_that_fails_on_one_rank_is_told_and_takes_nothing_with_it(
    asynchronous: bool, whole: Path, tmp_path: Path
) -> None:
    """Not even the only checkpoint that is kept."""
    how = {"keep_checkpoints": 1, "async_checkpoints": asynchronous}
    settings = change(EVERY_FOUR, run_dir=str(tmp_path / "run"), training=how)
    before, after = in_two_ranks(fail_in_step_8, settings)[0]
    assert before == after and len(after) == 2 and "step=4-last" in after
    told = (tmp_path / "run-logs" / "rank0.log").read_text()
    assert told.count("warning: step 8 was not saved: File too large; trying again at the next one\n") == 1
    assert kills.equal(tmp_path / "run", whole) and last_ones(tmp_path / "run") == {"step=12-last"}


@pytest.mark.parametrize("asynchronous", [False, True])
def test_the_best_checkpoint_stays_the_best_when_the_last_one_of_its_step_fails(
    asynchronous: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """There was room for one and a half; every later validation is worse."""
    finish, monitored = saving._finish, saving.Checkpoint._monitor_candidates

    def finish_unless(checkpoint: Path, write: Any, *args: Any) -> None:
        def fail(group: Any) -> None:
            raise DiskError("it is full")

        finish(checkpoint, fail if checkpoint.name == "step=2-last" else write, *args)

    def worse(self: Any, trainer: Any) -> dict[str, Any]:
        return {**monitored(self, trainer), names.VAL_LOSS: torch.tensor(float(trainer.global_step))}

    monkeypatch.setattr(saving, "_finish", finish_unless)
    monkeypatch.setattr(saving.Checkpoint, "_monitor_candidates", worse)
    how = {"max_steps": 6, "val_check_interval": 2, "keep_checkpoints": 1, "async_checkpoints": asynchronous}
    settings = change(EVERY_FOUR, run_dir=str(tmp_path / "run"), parallel={"devices": 1}, training=how)
    training.train(settings)
    there = {path.name for path in finished(tmp_path / "run" / names.CHECKPOINTS_FOLDER)}
    assert there == {f"step=2-{names.VAL_LOSS}=2.000000", "step=6-last"}
    line = "warning: step 2 was saved as the best, but not as the last: it is full; trying again at the next one"
    assert [told for told in capfd.readouterr().err.splitlines() if "warning: step" in told] == [line]


def test_a_save_for_which_there_is_no_room_is_not_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The room is measured by the checkpoint before; that of the last step is an error."""
    settings = change(EVERY_FOUR, run_dir=str(tmp_path / "run"), parallel={"devices": 1}, training={"max_steps": 8})
    training.train(settings)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=3 * 2**10))
    line = r"it needs [\d.]+ MiB, and 0.0 MiB are free; "
    with pytest.raises(training.UserError, match=rf"run cannot be written any more: {line}mend that, and go on"):
        training.train(change(settings, training={"max_steps": 16}))
    assert re.search(f"warning: step 12 was not saved: {line}trying again", capfd.readouterr().err)
    last = last_checkpoint(tmp_path / "run" / names.CHECKPOINTS_FOLDER)
    assert last is not None and last.name == "step=8-last"


def what_is_whole(settings: Settings) -> tuple[set[str], set[str]]:
    """Train, and let the thread wait in the save of step 4 until step 6; return what is whole then, and after it."""
    found: list[set[str]] = []
    folder, go_on = Path(settings.run_dir, names.CHECKPOINTS_FOLDER), Event()
    gather = background.Copies.gather

    def late(self: Any) -> None:
        go_on.wait(900)
        gather(self)

    def look(trainer: Any) -> None:
        found.append({path.name for path in finished(folder)})
        go_on.set()
        wait_for_thread(trainer)
        found.append({path.name for path in finished(folder)})

    background.Copies.gather = late  # type: ignore[method-assign]
    in_ranks.in_step(6, look)
    training.train(settings)
    return found[0], found[1]


def test_a_checkpoint_is_of_its_step_although_training_goes_on_while_it_is_written(whole: Path, tmp_path: Path) -> None:
    """And it is none until it is whole."""
    run = tmp_path / "run"
    settings = change(EVERY_FOUR, run_dir=str(run), training={"async_checkpoints": True, "keep_checkpoints": 9})
    before, after = in_two_ranks(what_is_whole, settings)[0]
    assert not before and len(after) == 2 and "step=4-last" in after
    assert kills.equal(run, whole)
    for path in run.glob(f"{names.CHECKPOINTS_FOLDER}/step=*"):
        if not path.name.startswith("step=4-"):
            shutil.rmtree(path)
    in_two_ranks(in_ranks.train, settings)
    assert kills.equal(run, whole)
