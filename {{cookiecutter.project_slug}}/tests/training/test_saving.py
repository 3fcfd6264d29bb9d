"""Saving: between validations too, as many as wished, and a save that fails takes nothing with it."""

import re
import resource
import shutil
from pathlib import Path
from typing import Any

import in_ranks
import kills
import pytest
from conftest import TINY, change

from {{cookiecutter.__package_name}}.contracts import names
from {{cookiecutter.__package_name}}.model.settings import LAYOUTS, Settings
from {{cookiecutter.__package_name}}.proof.ranks import run_ranks
from {{cookiecutter.__package_name}}.runtime.checkpoint import last_checkpoint
from {{cookiecutter.__package_name}}.training import train as training

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

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


def fail_in_step_8(settings: Settings) -> list[list[str]]:
    """Train, and let files of the last rank grow no longer than some bytes when step 8 is saved."""
    found: list[list[str]] = []
    folder = Path(settings.run_dir, names.CHECKPOINTS_FOLDER)

    def set_limit(trainer: Any, size: int) -> None:
        found.append(sorted(path.name for path in folder.iterdir()))
        if trainer.global_rank == trainer.world_size - 1:
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

    in_ranks.in_step(8, lambda trainer: set_limit(trainer, 10_000))
    in_ranks.in_step(9, lambda trainer: set_limit(trainer, resource.RLIM_INFINITY))
    training.train(settings)
    return found


def test_a_save_that_fails_on_one_rank_is_told_and_takes_nothing_with_it(whole: Path, tmp_path: Path) -> None:
    """Not even the only checkpoint that is kept."""
    settings = change(EVERY_FOUR, run_dir=str(tmp_path / "run"), training={"keep_checkpoints": 1})
    before, after = in_two_ranks(fail_in_step_8, settings)[0]
    assert before == after and len(after) == 2 and "step=4-last" in after
    told = (tmp_path / "run-logs" / "rank0.log").read_text()
    assert "warning: step 8 was not saved: File too large; trying again at the next one\n" in told
    assert kills.equal(tmp_path / "run", whole) and last_ones(tmp_path / "run") == {"step=12-last"}


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
