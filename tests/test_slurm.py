"""The Slurm job, under a stand-in for srun: it is stopped, queued again, and goes on."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

SRUN = """#!/usr/bin/env python3
# Starts the tasks of one node as Slurm's srun does, passes SIGTERM on, and ends with the highest exit code.
import os, signal, subprocess, sys
words = [word for word in sys.argv[1:] if not word.startswith(("--kill-on-bad-exit", "--wait"))]
count = int(os.environ["SLURM_NTASKS_PER_NODE"])
node = {"SLURM_NTASKS": str(count), "SLURM_NODEID": "0", "SLURM_NODELIST": "localhost"}
step = {"SLURM_STEP_ID": "0", "SLURM_STEP_NUM_NODES": "1"}
tasks = [
    subprocess.Popen(words, env={**os.environ, **node, **step, "SLURM_PROCID": str(i), "SLURM_LOCALID": str(i)})
    for i in range(count)
]
signal.signal(signal.SIGTERM, lambda *_: [task.send_signal(signal.SIGTERM) for task in tasks])
sys.exit(max(task.wait() for task in tasks))
"""
SCONTROL = '#!/bin/sh\necho "$@" >> queued\n'
JOB = str(10_000 + os.getpid())  # Lightning makes a port of its last four digits, where two suites must not meet
STEPS = ("--training.max_steps", "100", "--training.warmup_steps", "5", "--training.val_check_interval", "20")


@pytest.fixture
def job(everything, installed, tmp_path) -> tuple[list[str], dict[str, str]]:
    """The job of a node with two tasks, and the environment that Slurm gives it."""
    project, fake = everything[0], tmp_path / "bin"
    fake.mkdir()
    for name, program in {"srun": SRUN, "scontrol": SCONTROL}.items():
        (fake / name).write_text(program)
        (fake / name).chmod(0o755)
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "bin").symlink_to(installed.site / "bin")
    slurm = {"SLURM_JOB_ID": JOB, "SLURM_JOB_NUM_NODES": "1", "SLURM_NTASKS_PER_NODE": "2"}
    env = {**os.environ, **installed.env, **slurm, "SLURM_JOB_NAME": project.slug}
    env["PATH"] = f"{fake}{os.pathsep}{env['PATH']}"
    script = str(project.path / "slurm" / "train.sbatch")
    return ["bash", script, "pretrain", "--accelerator", "cpu", *STEPS], env


@pytest.mark.slow
def test_a_job_that_is_stopped_is_queued_again_and_goes_on(job, tmp_path: Path):
    command, env = job
    run = tmp_path / "runs" / f"pretrain-{JOB}"
    with subprocess.Popen(command, cwd=tmp_path, env=env) as first:
        while first.poll() is None and not list(run.glob("checkpoints/*-last")):
            time.sleep(0.1)
        assert first.poll() is None, "it has ended before it saved a step"
        children = Path(f"/proc/{first.pid}/task/{first.pid}/children").read_text().split()
        os.kill(int(children[-1]), signal.SIGTERM)  # Slurm sends it to the tasks, not to the script
        assert first.wait(timeout=1800) == 75
    assert (tmp_path / "queued").read_text() == f"requeue {JOB}\n"
    assert 20 <= last_step(run) < 100
    again = subprocess.run(command, cwd=tmp_path, env=env, timeout=1800)
    assert again.returncode == 0
    assert last_step(run) == 100
    assert (tmp_path / "queued").read_text() == f"requeue {JOB}\n"


def last_step(run: Path) -> int:
    with (run / "metrics.csv").open(newline="") as file:
        return int(float(list(csv.DictReader(file))[-1]["step"]))


@pytest.mark.parametrize(
    ("code", "saves", "again"),
    [
        (0, "new/files.json", False),  # trained to its last step
        (2, "new/files.json", False),  # a mistake, which would be there again
        (75, "", True),  # stopped by a signal, before its first step
        (143, "", True),  # by one that came before Python did
        (137, "new/files.json", True),  # killed, after a step was saved
        (137, "half/weights", False),  # killed while it saved, each time perhaps: not for ever
        (69, "new/files.json", True),  # with a task that was lost
        (69, "", False),  # with one that ends each time
        (1, "", False),
    ],
)
def test_a_job_is_queued_again_where_that_leads_on(code, saves, again, everything, tmp_path: Path):
    (fake := tmp_path / "bin").mkdir()
    checkpoints = tmp_path / "runs" / "pretrain-7" / "checkpoints"
    (checkpoints / "old").mkdir(parents=True)
    (checkpoints / "old" / "files.json").touch()
    place = checkpoints / saves
    srun = f"#!/bin/sh\nmkdir -p {place.parent} && touch {place}\nexit {code}\n"
    for name, program in {"srun": srun, "scontrol": SCONTROL}.items():
        (fake / name).write_text(program)
        (fake / name).chmod(0o755)
    slurm = {"SLURM_JOB_ID": "7", "SLURM_JOB_NUM_NODES": "1", "SLURM_NTASKS_PER_NODE": "1"}
    env = {**os.environ, **slurm, "PATH": f"{fake}{os.pathsep}{os.environ['PATH']}"}
    script = everything[0].path / "slurm" / "train.sbatch"
    assert subprocess.run(["bash", script, "pretrain"], cwd=tmp_path, env=env).returncode == code
    assert (tmp_path / "queued").exists() == again


def test_the_job_has_the_last_word_on_its_place_and_size(everything, tmp_path: Path):
    (fake := tmp_path / "bin").mkdir()
    (fake / "srun").write_text('#!/bin/sh\necho "$@" > words\n')
    (fake / "srun").chmod(0o755)
    slurm = {"SLURM_JOB_ID": "7", "SLURM_JOB_NUM_NODES": "2", "SLURM_NTASKS_PER_NODE": "4"}
    env = {**os.environ, **slurm, "PATH": f"{fake}{os.pathsep}{os.environ['PATH']}"}
    command = ["bash", everything[0].path / "slurm" / "train.sbatch", "pretrain"]
    subprocess.run([*command, "--config", "my.yaml"], cwd=tmp_path, env=env, check=True)
    mine, theirs = (tmp_path / "words").read_text().split(" --config my.yaml ")
    assert mine.endswith("pretrain")
    assert theirs == "--run_dir runs/pretrain-7 --resume true --parallel.num_nodes 2 --parallel.devices 4\n"
    for words in (["--run_dir", "elsewhere"], ["--run_dir=elsewhere"]):
        answer = subprocess.run([*command, *words], cwd=tmp_path, env=env, capture_output=True, text=True)
        assert (answer.returncode, answer.stdout) == (2, "")
        assert answer.stderr == "leave out --run_dir: a job's run is in runs/COMMAND-JOB\n"
