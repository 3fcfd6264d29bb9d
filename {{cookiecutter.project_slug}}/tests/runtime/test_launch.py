"""launch.py: the ranks of a command start together and end together; and the canary of that."""

import contextlib
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest
from canaries import mended
from conftest import ENVIRONMENT, PACKAGE

from {{cookiecutter.__package_name}}.contracts.errors import UserError
from {{cookiecutter.__package_name}}.contracts.settings import ParallelSettings
from {{cookiecutter.__package_name}}.importing import import_room
from {{cookiecutter.__package_name}}.model.settings import Settings
from {{cookiecutter.__package_name}}.runtime import launch

# The first rank never ends by itself; what rank 1 does is filled in.
LAUNCHES = """
import os, pathlib, sys, time
from {package}.runtime import launch
launch._GRACE = 0.1
os.sched_getaffinity = lambda process: range(12)  # as a job has that was given 12 cores of a larger machine
launch.start_ranks(3)
names = ("LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT", "OMP_NUM_THREADS")
words = [*(os.environ[name] for name in names), str("torch" in sys.modules)]
files = [pathlib.Path(__file__).with_name(str(rank)) for rank in range(3)]
mine = files[int(os.environ["LOCAL_RANK"])]
mine.with_suffix(".part").write_text(" ".join(words))
mine.with_suffix(".part").rename(mine)  # now it is whole
if os.environ["LOCAL_RANK"] == "1":
    while not all(file.exists() for file in files):
        time.sleep(0.01)
    {ends}
time.sleep(60)
"""


COUNTS = """import torch; from {package}.runtime import launch
print(launch._gpus() in (torch.cuda.device_count(), None))
"""

OBSERVED = """
import os, subprocess, sys, time
from lightning.fabric.strategies.launchers.subprocess_script import _ChildProcessObserver
failing = subprocess.Popen([sys.executable, "-c", "import sys; sys.exit(2)"])
_ChildProcessObserver(main_pid=os.getpid(), child_processes=[failing], sleep_period=1).start()
time.sleep(30)
"""


@pytest.fixture
def launched(command: Callable, tmp_path: Path) -> Callable:
    """Start three ranks, of which the second ends in a way of its own."""

    def run(ends: str) -> subprocess.CompletedProcess:
        script = tmp_path / "ranks.py"
        script.write_text(LAUNCHES.format(package=PACKAGE, ends=ends))
        return command(script=script)

    return run


@pytest.mark.parametrize(
    ("ends", "code", "told"),
    [
        ("sys.exit(2)", 2, ""),
        (
            "os.kill(os.getpid(), 9)",
            128 + 9,
            "error: rank 1 was killed by signal 9 (Killed), perhaps because memory ran out; a training can go on from "
            "its last checkpoint, with --resume true\n",
        ),
    ],
)
def test_ranks_start_before_torch_and_end_with_the_code_of_one_that_fails(
    ends: str, code: int, told: str, launched: Callable, tmp_path: Path
) -> None:
    answer = launched(ends)
    assert (answer.returncode, answer.stderr) == (code, told)
    lines = [(tmp_path / str(rank)).read_text().split() for rank in range(3)]
    ranks, addresses, ports, threads, imported = zip(*lines, strict=True)
    assert ranks == ("0", "1", "2")
    assert set(addresses) == {"127.0.0.1"} and len(set(ports)) == 1
    assert set(threads) == {"4"}
    assert set(imported) == {"False"}


TORCHRUN = {"RANK": "0", "LOCAL_RANK": "0", "GROUP_RANK": "0", "LOCAL_WORLD_SIZE": "2", "WORLD_SIZE": "2"}
SHELL = {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "2", "SLURM_PROCID": "0", "SLURM_JOB_NAME": "train"}
OPEN_MPI = {f"OMPI_COMM_WORLD_{name}": value for name, value in zip(("RANK", "LOCAL_RANK"), "00", strict=True)}
OPEN_MPI |= {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_LOCAL_SIZE": "2"}
MPICH = {"PMI_RANK": "0", "PMI_SIZE": "2", "MPI_LOCALRANKID": "0", "MPI_LOCALNRANKS": "2"}
SRUN = {**SHELL, "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_NODES": "1"}


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """This process's variables, to which tests add what launchers and clusters say."""
    here = dict(ENVIRONMENT)
    monkeypatch.setattr(os, "environ", here)
    monkeypatch.setattr(launch, "_num_nodes", 1)
    return here


@pytest.mark.parametrize(
    ("given", "who", "starts"),
    [
        ({}, "nobody", 2),
        ({"RANK": "0"}, "nobody", 2),
        ({"LOCAL_RANK": "0"}, "another", 0),
        (TORCHRUN, "torchrun", 0),
        (TORCHRUN | SHELL, "torchrun", 0),
        (SRUN, "srun", 0),
        (SHELL, "nobody", 2),
        ({"SLURM_NTASKS": "1", "SLURM_JOB_NAME": "interactive"}, "nobody", 2),
        (SRUN | {"SLURM_NTASKS": "1"}, "nobody", 2),
        (SRUN | {"SLURM_NTASKS": "1", "PMI_RANK": "0", "PMI_SIZE": "1"}, "nobody", 2),  # as `srun --mpi=pmi2` sets it
        (SRUN | {"SLURM_JOB_NAME": "bash"}, "srun", 0),
        (OPEN_MPI, "Open MPI", 0),
        (MPICH, "MPI", 0),
        (OPEN_MPI | {"OMPI_COMM_WORLD_SIZE": "1"}, "nobody", 2),  # a shell that mpirun started
        (OPEN_MPI | TORCHRUN, "torchrun", 0),
    ],
)
def test_only_what_nothing_else_launched_starts_ranks(
    given: dict, who: str, starts: int, environment: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment.update(given)
    monkeypatch.setattr(launch, "check", lambda devices, num_nodes: None)
    monkeypatch.setattr(launch, "_end_with", lambda ranks: None)
    started: list[str] = []
    monkeypatch.setattr(subprocess, "Popen", lambda words, env, **kwargs: started.append(env["LOCAL_RANK"]))
    assert launch.launcher() == who
    assert launch.start_ranks(3) is bool(starts)
    assert started == ["1", "2"][:starts]
    assert not launch.start_ranks(3)  # not again, whatever this process does next


@pytest.mark.parametrize(
    ("num_nodes", "number", "address"), [(1, "0", "127.0.0.1"), (2, "0", "first"), (2, "1", "first")]
)
def test_ranks_inherit_neither_a_rank_nor_an_address_that_was_left(
    num_nodes: int, number: str, address: str, environment: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment.update({"RANK": "1", "NODE_RANK": number, "MASTER_ADDR": "first"})
    monkeypatch.setattr(launch, "_check_script", lambda devices: None)
    monkeypatch.setattr(launch, "_end_with", lambda ranks: None)
    started: list[dict[str, str]] = []
    monkeypatch.setattr(subprocess, "Popen", lambda words, env, **kwargs: started.append(env))
    assert launch.start_ranks(2, num_nodes)
    assert launch.is_first_rank() is (number == "0")
    assert [(env["MASTER_ADDR"], env.get("RANK")) for env in (*started, environment)] == [(address, None)] * 2


@pytest.mark.parametrize(
    ("given", "name"),
    [
        (TORCHRUN | {"WORLD_SIZE": "abc"}, "WORLD_SIZE"),
        (TORCHRUN | {"LOCAL_WORLD_SIZE": ""}, "LOCAL_WORLD_SIZE"),
        (SRUN | {"SLURM_NTASKS": "2(x3)"}, "SLURM_NTASKS"),
        (OPEN_MPI | {"OMPI_COMM_WORLD_SIZE": "two"}, "OMPI_COMM_WORLD_SIZE"),
        ({"NODE_RANK": "first"}, "NODE_RANK"),
        ({"LOCAL_RANK": "first"}, "LOCAL_RANK"),
    ],
)
def test_what_is_no_number_is_one_line(given: dict, name: str, environment: dict) -> None:
    environment.update(given)
    assert launch.nodes() > 0  # which an error's line asks for
    with pytest.raises(UserError, match=re.escape(f"{name} is {given[name]!r} in the environment, which is no number")):
        launch.check(1, 1)


@pytest.mark.parametrize(
    ("given", "devices", "num_nodes", "told"),
    [
        ({}, 2, 1, None),
        ({}, 1, 2, "--parallel.num_nodes 2: nothing says which of them this machine is"),
        ({"NODE_RANK": "1"}, 1, 2, None),
        ({"NODE_RANK": "1"}, 2, 1, "NODE_RANK is 1 in the environment, and there is one machine: set"),
        ({"NODE_RANK": "0", "RANK": "1"}, 2, 1, None),
        (SHELL, 2, 1, None),
        (SHELL, 1, 2, "--parallel.num_nodes 2: nothing says which of them this machine is"),
        (TORCHRUN, 2, 1, None),
        (TORCHRUN, 1, 1, "torchrun started 2 processes, and the settings want 1: give --parallel.devices 2"),
        (TORCHRUN, 1, 2, "give --parallel.devices 2 --parallel.num_nodes 1"),
        (
            TORCHRUN | {"WORLD_SIZE": "4"},
            4,
            1,
            "torchrun started 4 processes, on 2 machines, and the settings want 4: give --parallel.devices 2 "
            "--parallel.num_nodes 2",
        ),
        (SRUN, 2, 1, None),
        (SRUN, 4, 1, "srun started 2 processes, and the settings want 4: give --parallel.devices 2"),
        (SRUN | {"SLURM_STEP_NUM_NODES": "2"}, 1, 2, None),
        (SRUN | {"SLURM_STEP_NUM_NODES": "2"}, 2, 1, "give --parallel.devices 1 --parallel.num_nodes 2"),
        (OPEN_MPI, 1, 1, "Open MPI started 2 processes, and the settings want 1: give --parallel.devices 2"),
        (OPEN_MPI | {"OMPI_COMM_WORLD_LOCAL_SIZE": "1"}, 2, 1, "give --parallel.devices 1 --parallel.num_nodes 2"),
        (MPICH, 3, 1, "MPI started 2 processes, and the settings want 3: give --parallel.devices 2"),
        (MPICH, 2, 1, "MPI started this process, and mpi4py tells ranks apart: install it"),
    ],
)
def test_what_started_the_process_is_held_against_the_layout(
    given: dict, devices: int, num_nodes: int, told: str | None, environment: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment.update(given)
    monkeypatch.setattr(launch, "_check_script", lambda devices: None)
    monkeypatch.setattr(launch, "find_spec", lambda name: None)
    with contextlib.nullcontext() if told is None else pytest.raises(UserError, match=re.escape(told)):
        launch.check(devices, num_nodes)


@pytest.mark.parametrize(
    ("given", "speaks", "complains"),
    [
        ({}, True, True),
        ({"RANK": "1", "NODE_RANK": "1"}, True, True),  # left there, and nobody started this as a rank
        (OPEN_MPI, True, True),
        (OPEN_MPI | {"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_LOCAL_RANK": "1"}, False, False),
        (MPICH | {"PMI_RANK": "1"}, False, True),
        (TORCHRUN, True, True),
        (TORCHRUN | {"RANK": "3", "LOCAL_RANK": "1"}, False, False),
        (TORCHRUN | {"RANK": "2", "WORLD_SIZE": "4"}, False, True),
        ({"NODE_RANK": "1", "LOCAL_RANK": "0"}, False, True),
        (SRUN, True, True),
        (SRUN | {"SLURM_PROCID": "1", "SLURM_LOCALID": "1"}, False, False),
        (SRUN | {"SLURM_PROCID": "1", "SLURM_LOCALID": "0", "SLURM_STEP_NUM_NODES": "2"}, False, True),
    ],
)
def test_one_rank_speaks_for_all_and_one_of_each_machine_complains(
    given: dict[str, str], speaks: bool, complains: bool, environment: dict
) -> None:
    environment.update(given)
    assert (launch.is_first_rank(), launch.is_first_of_machine()) == (speaks, complains)


@pytest.mark.parametrize("number", [0, 1])
def test_of_several_machines_that_nobody_started_the_first_speaks(number: int, environment: dict) -> None:
    environment["NODE_RANK"] = str(number)
    launch.check(devices=1, num_nodes=2)
    assert launch.is_first_rank() is (number == 0)


def test_a_port_that_was_left_in_the_environment_is_tried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "launcher", lambda: "nobody")
    with socket.socket() as server:
        server.bind(("", 0))
        server.listen()
        port = str(server.getsockname()[1])
        for given, told in ((port, "and cannot be used"), ("x", "which is no port"), ("70000", "which is no port")):
            monkeypatch.setattr(launch, "_port", given)
            with pytest.raises(UserError, match=f"MASTER_PORT is {given} in the environment, {told}"):
                launch.check(1, 1)
    monkeypatch.setattr(launch, "_port", port)
    launch.check(1, 1)
    assert launch._port is None  # what stands there from now on is our own


@pytest.mark.parametrize("words", [["-"], ["-c", "{program}"]])
def test_a_program_that_is_no_file_cannot_be_run_again(words: list[str]) -> None:
    program = f"from {PACKAGE}.runtime import launch; launch.check(2, 1)"
    command = [sys.executable, *(word.format(program=program) for word in words)]
    answer = subprocess.run(command, input=program, capture_output=True, text=True, env=ENVIRONMENT, timeout=900)
    assert "UserError: --parallel.devices 2 runs this program again for each process" in answer.stderr


@pytest.mark.slow
def test_canary_lightning_kills_the_first_rank(command: Callable, tmp_path: Path) -> None:
    script = tmp_path / "observed.py"
    script.write_text(OBSERVED)
    if command(script=script).returncode == 2:
        mended("launch._end_with")


def test_more_ranks_than_gpus_are_refused_before_one_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "_gpus", lambda: 2)
    monkeypatch.setattr(subprocess, "Popen", lambda *args, **kwargs: pytest.fail("a rank was started"))
    with pytest.raises(UserError, match=r"--parallel\.devices 8 needs 8 GPUs, but this machine has 2: "):
        import_room("training.train", Settings(parallel=ParallelSettings(devices=8)))


@pytest.mark.parametrize(("gpus", "accelerator"), [(2, "auto"), (0, "auto"), (None, "gpu"), (0, "cpu")])
def test_ranks_that_fit_are_not_refused(
    gpus: int | None, accelerator: Literal["auto", "cpu", "gpu"], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "_gpus", lambda: gpus)
    launch.check_gpus(accelerator, 2)


@pytest.mark.slow
def test_the_driver_counts_the_gpus_that_torch_sees(command: Callable, tmp_path: Path) -> None:
    """In a process of its own: a training on the CPU has hidden them from this one."""
    (script := tmp_path / "count.py").write_text(COUNTS.format(package=PACKAGE))
    answer = command(script=script)
    assert answer.stdout == "True\n", answer.stderr
