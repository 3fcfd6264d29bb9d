"""launch.py: the ranks of a command start together and end together; and the canary of that."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from canaries import mended
from conftest import ENVIRONMENT, PACKAGE

from {{cookiecutter.__package_name}}.runtime import launch

# The first rank never ends by itself; what rank 1 does is filled in.
LAUNCHES = """
import os, pathlib, sys, time
from {package}.runtime import launch
launch.is_command, launch._GRACE = True, 0.1
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
    ends: str, code: int, told: str, launched: Callable, tmp_path: Path
) -> None:
    answer = launched(ends)
    assert (answer.returncode, answer.stderr) == (code, told)
    lines = [(tmp_path / str(rank)).read_text().split() for rank in range(3)]
    ranks, addresses, ports, threads, imported = zip(*lines, strict=True)
    assert ranks == ("0", "1", "2")
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
        mended("launch._end_with")
