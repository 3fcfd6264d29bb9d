"""The cellar, its processes: ranks start together, tell what went wrong once, and end together."""

import contextlib
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import ENVIRONMENT, TINY

import {{cookiecutter.__package_name}} as package
from {{cookiecutter.__package_name}}.errors import UserError
from {{cookiecutter.__package_name}}.runtime import backend, launch, orphans

PACKAGE = package.__name__

# --- launch

# The first rank never ends by itself; what rank 1 does is filled in.
LAUNCHES = """
import os, sys, time
from {package}.runtime import launch
launch.is_command, launch._GRACE = True, 0.1
launch.start_ranks(3)
names = ("LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT", "OMP_NUM_THREADS")
line = " ".join([*(os.environ[name] for name in names), str("torch" in sys.modules)])
os.write(1, (line + "\\n").encode())  # in one piece, beside those of the others
if os.environ["LOCAL_RANK"] == "1":
    time.sleep(2)  # the others have printed their line then
    {ends}
time.sleep(60)
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
        return command(script=script, limit=30)

    return run


@pytest.mark.parametrize(
    ("ends", "code", "told"),
    [
        ("sys.exit(2)", 2, ""),
        ("os.kill(os.getpid(), 9)", 128 + 9, "error: rank 1 was killed by signal 9\n"),
    ],
)
def test_ranks_start_before_torch_and_end_with_the_code_of_one_that_fails(
    ends: str, code: int, told: str, launched: Callable
) -> None:
    answer = launched(ends)
    assert (answer.returncode, answer.stderr) == (code, told)
    lines = [line.split() for line in answer.stdout.splitlines()]
    ranks, addresses, ports, threads, imported = zip(*lines, strict=True)
    assert sorted(ranks) == ["0", "1", "2"]
    assert set(addresses) == {"127.0.0.1"} and len(set(ports)) == 1
    assert set(threads) == {str(max((os.cpu_count() or 1) // 3, 1))}
    assert set(imported) == {"False"}


@pytest.mark.parametrize(
    ("environment", "starts"),
    [
        ({}, 2),
        ({"LOCAL_RANK": "0"}, 0),
        ({"RANK": "0"}, 0),
        ({"SLURM_NTASKS": "3", "SLURM_JOB_NAME": "train"}, 0),
        ({"SLURM_NTASKS": "1", "SLURM_JOB_NAME": "interactive"}, 2),
    ],
)
@pytest.mark.parametrize("is_command", [True, False])
def test_only_a_command_that_nothing_else_launched_starts_ranks(
    environment: dict[str, str], starts: int, is_command: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "is_command", is_command)
    here = {name: value for name, value in ENVIRONMENT.items() if name not in launch._LAUNCHERS}
    monkeypatch.setattr(os, "environ", here | environment)
    monkeypatch.setattr(launch, "_end_with", lambda ranks: None)
    started: list[str] = []
    monkeypatch.setattr(subprocess, "Popen", lambda words, env, **kwargs: started.append(env["LOCAL_RANK"]))
    launch.start_ranks(3)
    assert started == ["1", "2"][: starts if is_command else 0]


@pytest.mark.slow
def test_canary_lightning_kills_the_first_rank(command: Callable, tmp_path: Path) -> None:
    script = tmp_path / "observed.py"
    script.write_text(OBSERVED)
    if command(script=script, limit=60).returncode == 2:
        pytest.fail("upstream mended this: delete launch._end_with, its row in runtime/README.md and this test")


@pytest.mark.parametrize("fails", [False, True])
def test_a_rank_that_fails_leaves_without_waiting_for_the_others(fails: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    hook = sys.excepthook
    ways = {"destroy_process_group": torch.distributed, "_abort_process_group": torch.distributed.distributed_c10d}
    left = []
    for name, module in ways.items():
        way = getattr(module, name)
        monkeypatch.setattr(module, name, lambda name=name, way=way: (left.append(name), way()))
    with pytest.raises(UserError) if fails else contextlib.nullcontext(), backend.prepared("cpu", 1):
        torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
        if fails:
            raise UserError("no such luck")
    assert left == ["_abort_process_group" if fails else "destroy_process_group"]
    assert not torch.distributed.is_initialized() and sys.excepthook is hook


# --- orphans

# A process that starts another one, and is then killed.
PARENT = """
import os, sys, time
sys.path.insert(0, {folder!r})
import orphans
if os.fork() == 0:
    orphans.die_with_the_parent()
    print(os.getpid(), flush=True)
time.sleep(60)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux's")
def test_started_rank_dies_with_its_parent() -> None:
    script = PARENT.format(folder=str(Path(orphans.__file__).parent))
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    is_gone, _, _ = select.select([parent.stdout], [], [], 10)  # readable at its end
    with contextlib.suppress(ProcessLookupError):
        os.kill(child, signal.SIGKILL)
    parent.stdout.close()
    assert is_gone


@pytest.mark.parametrize(("rank", "dies"), [("0", False), ("1", True)])
def test_only_ranks_that_were_started_die_with_their_parent(
    rank: str, dies: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setenv("LOCAL_RANK", rank)
    monkeypatch.setattr(orphans, "die_with_the_parent", lambda: asked.append(rank))
    with backend.prepared("cpu", 1):
        assert bool(asked) == dies


# --- failures

FAILS = """
import sys
from {package}.runtime import noise
noise.quiet()
from {package} import cli, training
from {package}.errors import UserError

class Failing(training.Progress):
    def on_train_batch_end(self, trainer, *arguments):
        if trainer.global_rank == {rank}:
            raise {error}("no such luck")

training.Progress = Failing
sys.exit(cli.main())
"""


@pytest.fixture
def fail(command: Callable, tmp_path: Path) -> Callable:
    """Train in two processes, of which one fails after its first step."""

    def run(rank: int, error: str) -> subprocess.CompletedProcess:
        script = tmp_path / "train.py"
        script.write_text(FAILS.format(package=PACKAGE, rank=rank, error=error))
        words = ["--accelerator", "cpu", "--parallel.devices", "2", "--data.root", TINY.data.root]
        return command("pretrain", *words, "--run_dir", str(tmp_path / "run"), script=script)

    return run


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_mistake_that_one_rank_finds_is_told_once_and_in_words(rank: int, fail: Callable) -> None:
    answer = fail(rank, "UserError")
    assert answer.returncode == 2
    begins, *others = answer.stderr.splitlines()
    assert begins.startswith("training steps 1 to ")
    assert others == [f"error on rank {rank}: no such luck"]


@pytest.mark.slow
def test_a_defect_of_one_rank_keeps_its_traceback(fail: Callable) -> None:
    answer = fail(1, "ValueError")
    assert answer.returncode != 0
    assert "ValueError: no such luck" in answer.stderr
