"""The Slurm job in a Slurm cluster of this machine: stopped, killed, its time over, it goes on to the same figures."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from pathlib import Path

import pytest
from machines import LIMIT, free_port, wait_for
from runs import is_saved, same

NEEDED = ("slurmctld", "slurmd", "munged", "sbatch", "setpriv")
MISSING = [program for program in NEEDED if not shutil.which(program)] or (["root"] if os.geteuid() else [])
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(bool(MISSING), reason=f"no Slurm cluster can be made here without {', '.join(MISSING)}"),
]
SETTINGS = ("--accelerator", "cpu", "--training.warmup_steps", "5", "--training.val_check_interval", "20")
CONF = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
ReturnToService=2
SlurmctldPort={port}
StateSaveLocation={folder}/state
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmdSpoolDir={folder}/spool
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
SlurmdParameters=config_overrides
MpiDefault=none
KillWait=60
MinJobAge=3600
JobRequeue=1
SchedulerParameters=batch_sched_delay=1,sched_interval=1,requeue_delay=0
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={node_port} CPUs=8 RealMemory=2000 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """The environment in which Slurm's commands find a cluster of one machine."""
    folder = tmp_path_factory.mktemp("slurm")
    for part in ("state", "spool"):
        (folder / part).mkdir()
    places = {"port": free_port(), "node_port": free_port(), "host": socket.gethostname().split(".")[0]}
    (folder / "slurm.conf").write_text(CONF.format(folder=folder, **places))
    env = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}
    munge = ["--key-file=/etc/munge/munge.key", f"--socket={folder}/munge.socket", "--force", "--foreground"]
    munge += [f"--{file}-file={folder}/munge.{file}" for file in ("pid", "log", "seed")]
    daemons = [["munged", *munge], ["slurmctld", "-D"], ["slurmd", "-D", "-N", "n1"]]
    started = []
    try:
        for words in daemons:
            with (folder / f"{words[0]}.out").open("w") as log:
                started.append(subprocess.Popen(words, env=env, stdout=log, stderr=log))
            if words[0] == "munged":
                wait_for((folder / "munge.socket").exists)
        wait_for(lambda: "idle" in subprocess.run(["sinfo", "-h"], env=env, capture_output=True, text=True).stdout)
        yield env
    finally:
        for daemon in reversed(started):
            daemon.terminate()
            daemon.wait(60)


@pytest.fixture
def job(cluster, everything, installed, tmp_path):
    """Queue a job of two tasks; returns its number."""
    project = everything[0]
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "bin").symlink_to(installed.site / "bin")
    jobs = []

    def submit(steps: int, *options: str) -> str:
        words = ["sbatch", "--parsable", "--gpus-per-node=0", "--cpus-per-task=1", *options]
        words += [project.path / "slurm" / "train.sbatch", "pretrain", *SETTINGS, "--training.max_steps", str(steps)]
        answer = subprocess.run(words, cwd=tmp_path, env={**cluster, **installed.env}, capture_output=True, text=True)
        assert answer.returncode == 0, answer.stderr
        jobs.append(answer.stdout.strip())
        return jobs[-1]

    yield submit
    subprocess.run(["scancel", *jobs], env=cluster)


def state(number: str, env: dict[str, str]) -> str:
    words = ["scontrol", "show", "job", number]
    answer = subprocess.run(words, env=env, capture_output=True, text=True).stdout
    return answer.split("JobState=")[-1].split()[0] if "JobState=" in answer else ""


def tasks(run: Path) -> list[int]:
    """The processes that train in a run folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            is_python = Path(os.readlink(process / "exe")).name.startswith("python")
            if is_python and run.name.encode() in (process / "cmdline").read_bytes():
                found.append(int(process.name))
        except OSError:  # it has ended
            continue
    return sorted(found)


def test_a_job_that_lost_a_task_or_was_told_to_stop_goes_on_by_itself(job, cluster, installed, tmp_path):
    alone = installed.cli(
        "pretrain", "--run_dir", "alone", *SETTINGS, "--training.max_steps", "100", cwd=tmp_path, timeout=LIMIT
    )
    assert alone.status == 0, alone.output
    number = job(100)
    run, log = tmp_path / "runs" / f"pretrain-{number}", tmp_path / f"slurm-{number}.log"
    wait_for(lambda: len(tasks(run)) >= 2)
    for task in tasks(run):
        os.kill(task, signal.SIGTERM)  # while it starts, whatever it is doing then
    wait_for(is_saved(run))
    wait_for(lambda: len(tasks(run)) >= 2)
    os.kill(tasks(run)[-1], signal.SIGKILL)
    wait_for(lambda: state(number, cluster) == "COMPLETED")
    assert "Traceback" not in log.read_text()
    same(run, tmp_path / "alone")


def test_a_job_whose_time_is_up_is_queued_again(job, cluster, tmp_path):
    number = job(100_000, "--time=1", "--signal=TERM@30")
    log = tmp_path / f"slurm-{number}.log"
    wait_for(lambda: log.exists() and "going on from step=" in log.read_text())
    assert "SIGTERM: saving step" in log.read_text()
    assert "Traceback" not in log.read_text()


def test_a_mistake_is_told_once_and_ends_the_job(job, cluster, tmp_path):
    number = job(0)
    wait_for(lambda: state(number, cluster) == "FAILED")
    told = (tmp_path / f"slurm-{number}.log").read_text()
    assert told.count("--training.max_steps 0 must be at least 1") == 1
