"""A run on two machines: the same model as on one; and what is told when they cannot be, or are no longer, two."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from machines import LIMIT, Machines, two_machines, wait_for, wait_until, why_not
from pages import commands
from runs import is_saved, pretrain, same

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(why_not() is not None, reason=f"two machines cannot be made here: {why_not()}"),
]
SETTINGS = ("--accelerator", "cpu", "--training.warmup_steps", "5", "--training.val_check_interval", "20")
STEPS = ("--training.max_steps", "60")
FOR_EVER = ("--training.max_steps", "100000")
SOON = ("--parallel.timeout_minutes", "0.25")
AGAIN = "a training can go on from its last checkpoint, with --resume true"


@pytest.fixture
def machines(installed, tmp_path):
    env = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "MAKE"))}
    with two_machines(tmp_path, {**env, **installed.env}) as both:
        both.command = installed.site / "bin" / installed.project.slug
        yield both


@pytest.fixture(scope="module")
def alone(installed, tmp_path_factory) -> Path:
    """The same training in one process."""
    return pretrain(installed, tmp_path_factory.mktemp("alone"), "alone", *SETTINGS, *STEPS)


def start(machines: Machines, *settings: str, where: str = "ab", debian: bool = False, local: Path | None = None):
    """Starts `pretrain` on the machines, without a launcher."""
    place = {"MASTER_ADDR": "machine-a", "MASTER_PORT": "29500"}
    words = (machines.command, "pretrain", "--parallel.num_nodes", "2", *SETTINGS, *settings)
    return [
        machines.start(machine, *words, debian=debian, local=local, NODE_RANK=str("ab".index(machine)), **place)
        for machine in where
    ]


def start_impatient(machines: Machines) -> list[subprocess.Popen]:
    """Starts a training that gives up a rank soon; returns the two commands when there is a checkpoint.

    On a busy machine one may begin so much later than the other that this one gives it up: then both get more time.
    """
    saved = is_saved(machines.folder / "two")

    def all_live() -> bool:
        return all(process.poll() is None for process in machines.started[-2:])

    for minutes in ("0.25", "1", "4"):
        words = ("--run_dir", "two", "--resume", "true", "--parallel.timeout_minutes", minutes)
        both = start(machines, *words, *FOR_EVER)
        wait_for(lambda: saved() or not all_live())
        if all_live():
            return both
        ends(both)
    raise AssertionError(machines.logs())


def ends(processes) -> list[int]:
    return [process.wait(timeout=LIMIT) for process in processes]


@pytest.mark.parametrize("how", ["With torchrun", "Without a launcher"])
def test_the_commands_of_the_page_train_the_model_of_one(how, machines, alone, installed, tmp_path):
    script = commands(installed.project.path / "docs" / "machines.md", how).replace("FIRST", "machine-a")
    settings = " ".join(("--run_dir", "two", *SETTINGS, *STEPS))
    path = os.pathsep.join((str(Path(sys.executable).parent), machines.env["PATH"]))  # where torchrun is
    for number, machine in enumerate("ab"):
        # where a name leads to 127.0.1.1, torchrun wants to be told who and where it is: the page says so
        where = f"torchrun --rdzv-conf is_host={1 - number} --local-addr 10.77.0.{1 + number} "
        lines = [line.replace("torchrun ", where) for line in script.splitlines() if f"RANK={1 - number}" not in line]
        told = "\n".join(["set -e", *lines[:-1], f"{lines[-1]} {settings}"])
        machines.start(machine, "bash", "-c", told, debian=True, PATH=path)
    assert ends(machines.started) == [0, 0], machines.logs()
    same(tmp_path / "two", alone)
    assert "trained to step 60" in machines.log("a")
    assert how == "With torchrun" or machines.told("b") == ""


def test_torchrun_trains_the_same_and_goes_on_when_a_worker_was_killed(machines, alone, tmp_path):
    torchrun = (sys.executable, "-m", "torch.distributed.run")
    words = ("--nnodes", "2", "--nproc-per-node", "1", "--rdzv-backend", "c10d", "--rdzv-endpoint", "machine-a:29501")
    program = ("--max-restarts", "3", "-m", machines.command.name.replace("-", "_"))
    run = ("pretrain", "--run_dir", "two", "--resume", "true", "--parallel.num_nodes", "2", *SETTINGS, *STEPS)
    agents = [machines.start(machine, *torchrun, *words, *program, *run) for machine in "ab"]
    wait_until(is_saved(tmp_path / "two"), machines)
    (worker,) = Path(f"/proc/{agents[1].pid}/task/{agents[1].pid}/children").read_text().split()
    os.kill(int(worker), signal.SIGKILL)
    assert ends(agents) == [0, 0], machines.log("a") + machines.log("b")
    same(tmp_path / "two", alone)
    assert "going on from step=" in machines.log("a")


def test_a_machine_that_was_lost_and_came_back_changes_nothing(machines, alone, tmp_path):
    first, second = start(machines, "--run_dir", "two", *STEPS)
    wait_until(is_saved(tmp_path / "two"), machines)
    os.killpg(second.pid, signal.SIGKILL)
    assert first.wait(timeout=LIMIT) == 69, machines.log("a")
    assert machines.log("a").endswith(f"error on rank 0 on machine-a: another rank has ended; {AGAIN}\n")
    assert "Traceback" not in machines.log("a")
    assert ends(start(machines, "--run_dir", "two", "--resume", "true", *STEPS)) == [0, 0]
    same(tmp_path / "two", alone)


@pytest.mark.parametrize("lost", ["a", "b", "cable"])
def test_who_is_not_heard_of_any_more_is_named(lost, machines, tmp_path):
    both = dict(zip("ab", start_impatient(machines), strict=True))
    if lost == "cable":
        machines.cut()
    else:
        os.kill(both[lost].pid, signal.SIGSTOP)
    for number, machine in enumerate("ab"):
        if machine != lost:
            assert both[machine].wait(timeout=LIMIT) == 69, machines.log(machine)
            missing = f"rank {1 - number} on machine-{'ba'[number]}"
            told = rf"error: {missing} not heard of for [\d.]+ minutes \(--parallel.timeout_minutes\); {AGAIN}"
            assert re.fullmatch(told, machines.log(machine).splitlines()[-1])
            assert "Traceback" not in machines.log(machine)


def test_who_does_not_come_is_named_on_each_machine(machines, tmp_path):
    (process,) = start(machines, "--run_dir", "two", *FOR_EVER, *SOON, where="a")
    assert process.wait(timeout=LIMIT) == 2
    word, error = machines.log("a").splitlines()
    assert word == "waiting for rank 1 of 2 at machine-a:29500"
    assert "error on machine-a: rank 1 of 2 did not come to machine-a:29500 for 0.25 minutes" in error
    (process,) = start(machines, "--run_dir", "two", *FOR_EVER, *SOON, where="b")
    assert process.wait(timeout=LIMIT) == 2
    word, error = machines.log("b").splitlines()
    assert word.startswith("waiting for rank 0 at machine-a:29500 (")
    assert "error on machine-b: rank 0 could not be reached at machine-a:29500: " in error
    assert not (tmp_path / "two").exists()


def test_a_mistake_is_told_on_both_before_anything_is_written(machines, tmp_path):
    local = tmp_path / "local"
    told = "local/run on machine-b is not that of machine-a: --run_dir must lie on a file system that all machines"
    assert ends(start(machines, "--run_dir", "local/run", *FOR_EVER, local=local)) == [2, 2]
    for machine in "ab":
        assert machines.told(machine) == f"error on rank 1 on machine-b: {told} share\n"
        assert list((tmp_path / f"local.{machine}").iterdir()) == []
    assert ends(start(machines, "--run_dir", "/proc/nowhere", *FOR_EVER)) == [2, 2]
    for machine in "ab":
        assert f"error on machine-{machine}: /proc/nowhere cannot be written" in machines.log(machine)


def test_other_settings_on_one_of_them_are_refused(machines, tmp_path):
    both = [*start(machines, "--run_dir", "two", *FOR_EVER, where="a")]
    both += start(machines, "--run_dir", "two", *FOR_EVER, "--seed", "7", where="b")
    assert ends(both) == [2, 2]
    told = "error on rank 1 on machine-b: seed 7, not 1234: give this machine what machine-a has\n"
    assert [machines.told(machine) for machine in "ab"] == [told, told]
    assert not (tmp_path / "two").exists()
