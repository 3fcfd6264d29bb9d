"""cluster.py and loader.py: Lightning is told who started a process; and the canaries of that."""

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from canaries import fresh, mended
from conftest import PACKAGE, TINY, change
from lightning.fabric.plugins.environments import (
    LightningEnvironment,
    MPIEnvironment,
    SLURMEnvironment,
    TorchElasticEnvironment,
)

from {{cookiecutter.__package_name}}.contracts.names import SETTINGS_FILE
from {{cookiecutter.__package_name}}.runtime import cluster, launch, loader
from {{cookiecutter.__package_name}}.training.run_settings import save_settings

SLURM = {"SLURM_JOB_ID": "7", "SLURM_JOB_NAME": "train", "SLURM_NTASKS": "1", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}

# What a person writes who does not know that several processes are several programs.
TRAINS = """
import os
from pathlib import Path
from {package}.runtime import noise
noise.quiet()
from {package}.results.evaluate import evaluate
from {package}.training.run_settings import load_settings
from {package}.training.train import train
from dataclasses import replace
if __name__ == "__main__":
    settings = load_settings(Path(__file__).parent)
    steps = [train(replace(settings, run_dir=settings.run_dir + name)).steps for name in "ab"]
    items = evaluate(replace(settings, run_dir=settings.run_dir + "b"))["num_items"]
    Path(settings.run_dir + "b", "ended-" + os.environ["LOCAL_RANK"]).write_text(str((steps, items)))
"""


@pytest.mark.parametrize(
    ("who", "kind"),
    [("torchrun", TorchElasticEnvironment), ("srun", SLURMEnvironment), ("nobody", LightningEnvironment)],
)
def test_lightning_is_told_who_started_the_process(who: str, kind: type, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "launcher", lambda: who)
    for name, value in SLURM.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("SLURM_NTASKS_PER_NODE", "1")
    cluster.leave_slurm_to_us()
    monkeypatch.setattr(MPIEnvironment, "detect", staticmethod(pytest.fail))  # it starts MPI in this process
    environment = cluster.environment()
    assert type(environment) is kind
    assert not getattr(environment, "auto_requeue", False)
    assert not SLURMEnvironment.detect()


@pytest.mark.parametrize(("machines", "address"), [("node[12-13]", "node12"), ("node12", "127.0.0.1")])
def test_rank_0_is_on_the_first_machine_of_the_step(
    machines: str, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "launcher", lambda: "srun")
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    step = {"STEP_NUM_NODES": str(machines.count("-") + 1), "NTASKS": "2", "NODELIST": "node[1-20]"}
    for name, value in {**step, "STEP_NODELIST": machines}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    assert cluster.environment().main_address == address
    monkeypatch.delenv("MASTER_ADDR")


@pytest.mark.slow
def test_a_script_trains_in_two_processes_again_and_again(command: Callable, tmp_path: Path) -> None:
    (script := tmp_path / "train.py").write_text(TRAINS.format(package=PACKAGE))
    save_settings(change(TINY, run_dir=str(tmp_path / "run-"), parallel={"devices": 2}), tmp_path)
    assert (tmp_path / SETTINGS_FILE).exists()
    answer = command(script=script)
    assert answer.returncode == 0, answer.stderr
    told = {(tmp_path / "run-b" / f"ended-{rank}").read_text() for rank in range(2)}
    assert len(told) == 1 and told.pop().startswith("([20, 20], ")


def _ends_by(number: int, prepare: Callable, ready: multiprocessing.Event) -> None:
    signal.signal(number, signal.SIG_DFL)
    prepare()
    os.kill(os.getpid(), number)
    ready.set()


@pytest.mark.parametrize(("prepare", "survives"), [(partial(loader._begin, 0), True), (int, False)])
def test_a_worker_outlives_the_signal_of_a_scheduler(prepare: Callable, survives: bool) -> None:
    ready = multiprocessing.get_context("fork").Event()
    worker = multiprocessing.get_context("fork").Process(target=_ends_by, args=(signal.SIGTERM, prepare, ready))
    worker.start()
    worker.join(60)
    assert ready.is_set() is survives


# --- canaries


def test_canary_lightning_takes_a_shell_of_slurm_for_a_task(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SLURM.items():
        monkeypatch.setenv(name, value)
    theirs = fresh("lightning.fabric.plugins.environments.slurm").SLURMEnvironment
    if not theirs.detect() or not theirs().auto_requeue:
        mended("cluster.leave_slurm_to_us and cluster.environment")


def test_canary_lightning_starts_mpi_to_ask_who_started_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = fresh("lightning.fabric.plugins.environments.mpi")
    asked = SimpleNamespace(COMM_WORLD=SimpleNamespace(Get_size=lambda: 2))
    monkeypatch.setattr(theirs, "_MPI4PY_AVAILABLE", True)
    monkeypatch.setitem(sys.modules, "mpi4py", SimpleNamespace(MPI=asked))
    if not theirs.MPIEnvironment.detect():
        mended("the part of cluster.environment that asks MPI only where mpirun started the process")


def test_canary_nemo_forgets_what_workers_do_first() -> None:
    from nemo.lightning.data import add_megatron_sampler

    given = torch.utils.data.DataLoader(list(range(8)), worker_init_fn=loader._begin)
    sizes = {"micro_batch_size": 2, "global_batch_size": 2}
    if add_megatron_sampler(given, **sizes, rank=0, world_size=1).worker_init_fn is not None:
        mended("loader.Sampler")
