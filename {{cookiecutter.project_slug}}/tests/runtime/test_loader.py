"""loader.py: what becomes of processes that load data, and that nobody waits for them without end."""

import errno
import multiprocessing
import os
import signal
import time
from multiprocessing import synchronize
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import TINY, change, run
from torch.utils.data import DataLoader

from {{cookiecutter.__package_name}}.contracts.errors import LOST, LostError
from {{cookiecutter.__package_name}}.contracts.names import SETTINGS_FILE
from {{cookiecutter.__package_name}}.runtime import loader
from {{cookiecutter.__package_name}}.runtime.disk import writing
from {{cookiecutter.__package_name}}.runtime.failures import told_once
from {{cookiecutter.__package_name}}.runtime.launch import GO_ON
from {{cookiecutter.__package_name}}.training import train
from {{cookiecutter.__package_name}}.training.datamodule import DataModule
from {{cookiecutter.__package_name}}.training.run_settings import save_settings


class TooLarge:
    """A batch for which there is no room in shared memory."""

    def __reduce__(self) -> Any:
        raise RuntimeError("unable to allocate shared memory(shm) for file </torch_1_2>: No space left on device (28)")


def is_killed(batch: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


MEMORY = "perhaps because memory ran out: fewer --data.num_workers need less"
LATE = "brought no batch for 0.005 minutes (--parallel.timeout_minutes): try --data.num_workers 0, which needs none of"
WORKERS = {
    "killed": (is_killed, 300, f'was ended by the signal "Killed", {MEMORY}'),
    "ended": (lambda batch: os._exit(3), 300, "has ended"),
    "no room": (lambda batch: TooLarge(), 300, "found no room for a batch in /dev/shm (it has 0.06 MiB): give it more"),
    "stands still": (lambda batch: time.sleep(600), 0.3, f"{LATE} /dev/shm (it has 0.06 MiB)"),
}


@pytest.mark.parametrize("what", WORKERS)
def test_what_became_of_workers_is_one_line(
    what: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(loader.shutil, "disk_usage", lambda path: SimpleNamespace(total=2**16))
    collate, limit, words = WORKERS[what]
    workers = DataLoader([0] * 8, num_workers=2, collate_fn=collate, timeout=limit, worker_init_fn=loader._begin)
    with pytest.raises(LostError), told_once():
        next(iter(workers))
    [line] = capfd.readouterr().err.splitlines()
    assert line.startswith("error: ") and words in line and line.endswith(f"; {GO_ON}")
    assert not multiprocessing.active_children()


def test_workers_that_find_no_room_for_a_semaphore_are_one_line(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture, tmp_path: Path
) -> None:
    monkeypatch.setattr(loader.shutil, "disk_usage", lambda path: SimpleNamespace(total=2**16))

    def is_full(*arguments: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(synchronize, "_multiprocessing", SimpleNamespace(SemLock=is_full))
    with pytest.raises(LostError), told_once(), writing(tmp_path):
        next(iter(DataLoader([0] * 8, num_workers=2)))
    [line] = capfd.readouterr().err.splitlines()
    assert "in /dev/shm (it has 0.06 MiB): give it more" in line and str(tmp_path) not in line


def test_workers_of_every_loader_are_waited_for_as_long_as_the_settings_say(
    megatron: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def of_megatron(**changes: Any) -> DataLoader:
        data = DataModule(None, change(TINY, **changes))  # type: ignore[arg-type]
        data.validation, data.keys = range(100), {}  # type: ignore[assignment]
        return data.data_sampler.transform_dataloader(data.val_dataloader())

    assert of_megatron(data={"num_workers": 2}, parallel={"timeout_minutes": 3.0}).timeout == 180
    assert of_megatron().timeout == 0


@pytest.mark.slow
def test_a_training_of_which_a_loaders_process_is_killed_may_be_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    class Killing(train.Progress):
        def on_train_batch_end(self, *arguments: Any) -> None:
            os.kill(multiprocessing.active_children()[0].pid or 0, signal.SIGKILL)
            time.sleep(60)  # which the end of the process interrupts

    monkeypatch.setattr(train, "Progress", Killing)
    save_settings(change(TINY, run_dir=str(tmp_path / "run"), data={"num_workers": 2}), tmp_path)
    assert run("pretrain", "--config", tmp_path / SETTINGS_FILE) == LOST
    line = capfd.readouterr().err.splitlines()[-1]
    assert line == f'error: a process that loads data was ended by the signal "Killed", {MEMORY}; {GO_ON}'
