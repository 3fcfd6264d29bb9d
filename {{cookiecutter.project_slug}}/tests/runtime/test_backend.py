"""backend.py: the device, and what is made ready before a run and cleaned up behind it; and the canaries of that."""

import contextlib
import gc
import os
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from canaries import fails_without, mended, train_shortly
from nemo.utils.get_rank import is_global_rank_zero

from {{cookiecutter.__package_name}}.contracts.errors import UserError
from {{cookiecutter.__package_name}}.contracts.settings import ParallelSettings
from {{cookiecutter.__package_name}}.results.evaluate import evaluate, predict
from {{cookiecutter.__package_name}}.results.export import export_run
from {{cookiecutter.__package_name}}.runtime import backend, cluster, launch
from {{cookiecutter.__package_name}}.runtime.strategy import Strategy
from {{cookiecutter.__package_name}}.training.run_settings import load_settings


@pytest.mark.parametrize(
    ("accelerator", "gpus", "chosen"),
    [("auto", 0, "cpu"), ("auto", 2, "gpu"), ("cpu", 2, "cpu"), ("gpu", 2, "gpu")],
)
def test_device_is_chosen(accelerator: str, gpus: int, chosen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(backend.cpu, "hidden", 0)
    assert backend.choose(accelerator, devices=2) == chosen


@pytest.mark.parametrize("accelerator", ["auto", "gpu"])
def test_a_process_that_has_used_the_cpu_does_not_take_its_gpu_for_missing(
    accelerator: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backend.cpu, "hidden", 0)  # put back afterwards
    monkeypatch.setattr(backend.cpu, "os", SimpleNamespace(environ={}))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    backend.cpu.use_cpu()
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)  # as they are hidden now
    backend.cpu.use_cpu()
    assert backend.choose("cpu", devices=2) == "cpu"
    with pytest.raises(UserError, match=f"--accelerator {accelerator}: a process that has used the CPU keeps to it"):
        backend.choose(accelerator, devices=1)


def test_missing_gpu_is_the_users_to_mend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(backend.cpu, "hidden", 0)
    with (
        pytest.raises(UserError, match="--accelerator gpu: PyTorch sees no GPU on this machine"),
        backend.prepared("gpu"),
    ):
        pytest.fail("nothing may run")


def test_a_run_leaves_no_port_that_other_processes_would_inherit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.delenv("MASTER_PORT", raising=False)
    with backend.prepared("cpu"):
        os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"] = "elsewhere", "1"
    assert (os.environ["MASTER_ADDR"], os.environ.get("MASTER_PORT")) == ("127.0.0.1", None)


def test_runs_send_no_telemetry() -> None:
    from nemo.lightning.callback_group import CallbackGroup

    CallbackGroup.get_instance().register(object())
    with backend.prepared("cpu"):
        assert not CallbackGroup.get_instance().callbacks


def test_what_another_run_left_in_the_environment_makes_no_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    left = {"MASTER_ADDR": "elsewhere", "RANK": "1"}
    for name, value in left.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    with backend.prepared("cpu"):
        assert cluster.environment().main_address == "127.0.0.1"
        os.environ["LOCAL_RANK"] = "0"  # as Lightning does
        assert launch.is_first_rank() and is_global_rank_zero()
    assert {name: os.environ[name] for name in left} == left


def test_nemo_takes_only_the_first_rank_of_a_shells_command_for_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend.meeting, "meet", lambda *arguments: None)
    monkeypatch.setattr(backend.network, "choose_interface", lambda met: None)
    monkeypatch.setattr(backend.heartbeat, "heard", contextlib.nullcontext)
    for name, value in {"LOCAL_RANK": "1", "SLURM_PROCID": "0", "RANK": "0"}.items():  # RANK, to be put back
        monkeypatch.setenv(name, value)
    del os.environ["RANK"]
    assert is_global_rank_zero()
    with backend._met(ParallelSettings(devices=2)):
        assert not is_global_rank_zero()


@pytest.mark.parametrize("fails", [False, True])
def test_a_rank_that_fails_leaves_without_waiting_for_the_others(fails: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    hook = sys.excepthook
    ways = {"destroy_process_group": torch.distributed, "_abort_process_group": torch.distributed.distributed_c10d}
    left = []
    for name, module in ways.items():
        way = getattr(module, name)
        monkeypatch.setattr(module, name, lambda name=name, way=way: (left.append(name), way()))
    with pytest.raises(UserError) if fails else contextlib.nullcontext(), backend.prepared("cpu"):
        torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
        if fails:
            raise UserError("no such luck")
    assert left == ["_abort_process_group" if fails else "destroy_process_group"]
    assert not torch.distributed.is_initialized() and sys.excepthook is hook


def test_nemos_telemetry_is_off_in_a_run() -> None:
    group = backend.CallbackGroup.get_instance()
    group.register(object())
    with backend.prepared("cpu"):
        assert group.callbacks == []


def threads_of_groups() -> int:
    """Count the threads of gloo in this process."""
    count = 0
    for thread in Path("/proc/self/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has ended since it was listed
            count += "gloo" in (thread / "comm").read_text()
    return count


def threads_left(before: int) -> int:
    """Count them once those that end have ended: Linux shows a thread for a moment after it was joined."""
    deadline = time.monotonic() + 60
    while (count := threads_of_groups()) > before and time.monotonic() < deadline:
        time.sleep(0.01)
    return count


@pytest.mark.slow
@pytest.mark.usefixtures("few_items")
def test_runs_leave_no_threads_behind(tmp_path: Path, pair: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise UserError("no such luck")

    pair(predictions=lambda kept: {"number": kept["idx"] + 1})
    gc.collect()  # what other tests left
    before = threads_of_groups()
    left: list[int] = []
    gc.disable()  # Python looks for garbage by itself, but nobody knows when
    try:
        run = train_shortly(tmp_path)
        left.append(threads_left(before))
        for work in (evaluate, predict, export_run):
            work(load_settings(run))
            left.append(threads_left(before))
        with monkeypatch.context() as patch, pytest.raises(UserError, match="no such luck"):
            patch.setattr(Strategy, "optimizer_step", fail)
            train_shortly(tmp_path)
        train_shortly(tmp_path)
        left.append(threads_left(before))
    finally:
        gc.enable()
    assert max(left) <= before, left  # after train, evaluate, predict, export, and one run that failed and one not


# --- canaries


@pytest.mark.slow
def test_canary_run_is_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from megatron.core import parallel_state

    forget = backend._forget_the_run
    monkeypatch.setattr(backend, "_forget_the_run", lambda leave_groups: None)
    try:
        train_shortly(tmp_path)
        with fails_without("backend._forget_the_run", AssertionError, "^$"):
            train_shortly(tmp_path, training={"global_batch_size": 64})
    finally:
        forget(torch.distributed.destroy_process_group)
    monkeypatch.setattr(backend, "_forget_the_run", forget)
    train_shortly(tmp_path, training={"global_batch_size": 64})
    assert not parallel_state.model_parallel_is_initialized() and not torch.distributed.is_initialized()


@pytest.mark.slow
def test_canary_megatron_collects_garbage_in_each_save(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from megatron.core.optimizer import distrib_optimizer

    frozen: list[int] = []
    collector = SimpleNamespace(collect=lambda: frozen.append(gc.get_freeze_count()))
    monkeypatch.setattr(distrib_optimizer, "gc", collector)
    train_shortly(tmp_path)
    if not frozen:
        mended("gc.freeze in backend._set_apart and gc.unfreeze in backend.prepared")
    assert min(frozen) > 100_000 and gc.get_freeze_count() == 0
