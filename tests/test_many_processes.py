"""Eight processes on this machine, and two of its GPUs: the same model as in one process, however they are started."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import INHERITED_NOT, run
from machines import LIMIT, wait_for
from runs import is_saved, pretrain, same

pytestmark = pytest.mark.slow
SETTINGS = ("--training.warmup_steps", "5", "--training.val_check_interval", "20")
STEPS = ("--training.max_steps", "60")
SLOWLY = ("--training.max_steps", "100", "--training.micro_batch_size", "1")  # time to be killed before the end
CPU, GPU = ("--accelerator", "cpu"), ("--accelerator", "gpu")
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
SPLITS = ("", "--parallel.tensor 2", "--parallel.pipeline 2")


def gpus() -> int:
    if not shutil.which("nvidia-smi"):
        return 0
    return subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True).stdout.count("GPU ")


needs_two_gpus = pytest.mark.skipif(gpus() < 2, reason=f"this machine has {gpus()} GPUs, not 2")


def test_eight_processes_split_three_ways_train_the_model_of_one(installed, tmp_path):
    three_ways = ("--parallel.devices", "8", "--parallel.tensor", "2", "--parallel.pipeline", "2")
    eight = pretrain(installed, tmp_path, "eight", *SETTINGS, *CPU, *STEPS, *three_ways)
    same(eight, pretrain(installed, tmp_path, "one", *SETTINGS, *CPU, *STEPS))


def test_mpirun_starts_the_processes_of_a_run(installed, tmp_path):
    mpirun = (Path(sys.executable).with_name("mpirun"), "--allow-run-as-root", "--oversubscribe", "-n", "2")
    settings = (*SETTINGS, *CPU, *STEPS, "--parallel.devices", "2")
    words = (*mpirun, sys.executable, "-m", installed.project.package, "pretrain", "--run_dir", "launched", *settings)
    launched = run(*words, cwd=tmp_path, timeout=LIMIT, env=installed.env)
    assert launched.status == 0, launched.output
    assert "in 2 processes on cpu" in launched.output
    same(tmp_path / "launched", pretrain(installed, tmp_path, "two", *settings))


LATE = """
import sys
import torch
import {package}.__main__ as program
import {package}.runtime.strategy
from nemo.lightning.megatron_parallel import MegatronParallel

make = MegatronParallel.init_ddp


def make_late(self):
    torch.cuda._sleep(4_000_000_000)  # clock cycles, in the stream of the buffers
    make(self)


MegatronParallel.init_ddp = make_late
sys.exit(program.main())
"""


@pytest.mark.skipif(gpus() < 1, reason="this machine has no GPU")
def test_a_busy_gpu_starts_from_the_same_weights(installed, tmp_path):
    (tmp_path / "late.py").write_text(LATE.format(package=installed.project.package))
    words = ("pretrain", "--run_dir", "late", *GPU, *SETTINGS, *STEPS)
    answer = run(sys.executable, "late.py", *words, cwd=tmp_path, timeout=LIMIT, env=installed.env)
    assert answer.status == 0, answer.output
    same(tmp_path / "late", pretrain(installed, tmp_path, "one", *SETTINGS, *GPU, *STEPS))


@needs_two_gpus
@pytest.mark.parametrize("split", SPLITS)
def test_two_gpus_train_the_model_of_one_by_themselves_and_with_torchrun(split, installed, tmp_path):
    settings = (*GPU, *STEPS, "--parallel.devices", "2", *split.split())
    two = pretrain(installed, tmp_path, "two", *SETTINGS, *settings)
    words = (*TORCHRUN, "-m", installed.project.package, "pretrain", "--run_dir", "launched", *SETTINGS, *settings)
    launched = run(*words, cwd=tmp_path, timeout=LIMIT, env=installed.env)
    assert launched.status == 0, launched.output
    same(two, tmp_path / "launched")
    same(two, pretrain(installed, tmp_path, "one", *SETTINGS, *GPU, *STEPS))


@pytest.fixture
def start(installed, tmp_path) -> Iterator:
    """Starts a command that saves a checkpoint in a folder `two`, in a process group, which does not survive the test.

    Returns when there is one; the output goes to the file `log`.
    """
    env = {name: value for name, value in os.environ.items() if name not in INHERITED_NOT}
    saved, started = is_saved(tmp_path / "two"), []

    def start(*words: str | Path) -> subprocess.Popen:
        with (tmp_path / "log").open("w") as file:
            process = subprocess.Popen(
                list(map(str, words)),
                cwd=tmp_path,
                env={**env, **installed.env},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        started.append(process)
        wait_for(lambda: saved() or process.poll() is not None)
        assert process.poll() is None, (tmp_path / "log").read_text()
        return process

    yield start
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def rank_1(process: subprocess.Popen) -> int:
    """The process that is rank 1, of those that this one has started."""
    for child in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has ended since it was listed
            if b"LOCAL_RANK=1\0" in Path(f"/proc/{child}/environ").read_bytes():
                return int(child)
    raise AssertionError("it has not started a rank 1")


@needs_two_gpus
@pytest.mark.parametrize("split", SPLITS)
def test_a_rank_that_was_lost_changes_nothing(split, installed, start, tmp_path):
    settings = (*GPU, *SETTINGS, *SLOWLY, "--parallel.devices", "2", *split.split())
    command = (installed.site / "bin" / installed.project.slug, "pretrain", "--run_dir", "two", *settings)
    process = start(*command)
    os.kill(rank_1(process), signal.SIGKILL)
    assert process.wait(LIMIT) == 137
    told = (tmp_path / "log").read_text()
    assert "rank 1 was killed" in told
    assert "Traceback" not in told
    pretrain(installed, tmp_path, "two", *settings, "--resume", "true")
    same(tmp_path / "two", pretrain(installed, tmp_path, "one", *SETTINGS, *GPU, *SLOWLY))


@needs_two_gpus
def test_torchrun_goes_on_by_itself_after_a_worker_was_killed(installed, start, tmp_path):
    settings = (*GPU, *SETTINGS, *SLOWLY, "--parallel.devices", "2", "--resume", "true")
    torchrun = (*TORCHRUN, "--max-restarts", "3", "-m", installed.project.package)
    process = start(*torchrun, "pretrain", "--run_dir", "two", *settings)
    os.kill(rank_1(process), signal.SIGKILL)
    assert process.wait(LIMIT) == 0, (tmp_path / "log").read_text()
    assert "going on from step=" in (tmp_path / "log").read_text()
    same(tmp_path / "two", pretrain(installed, tmp_path, "one", *SETTINGS, *GPU, *SLOWLY))


@needs_two_gpus
def test_a_rank_that_stands_still_is_named_in_time(installed, start, tmp_path):
    settings = (*GPU, *SETTINGS, "--training.max_steps", "100000", "--parallel.devices", "2")
    command = (installed.site / "bin" / installed.project.slug, "pretrain", "--run_dir", "two", *settings)
    process = start(*command, "--parallel.timeout_minutes", "0.25")
    os.kill(rank_1(process), signal.SIGSTOP)
    assert process.wait(LIMIT) == 69
    told = (tmp_path / "log").read_text()
    assert "error: rank 1" in told and "not heard of for 0.25 minutes" in told
    assert "Traceback" not in told
