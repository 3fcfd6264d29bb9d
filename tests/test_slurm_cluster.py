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
from pages import commands
from runs import figures, is_saved, pretrain, same

NEEDED = ("slurmctld", "slurmd", "munged", "sbatch", "setpriv")
MISSING = [program for program in NEEDED if not shutil.which(program)] or (["root"] if os.geteuid() else [])
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(MISSING), reason=f"no Slurm cluster can be made here without {', '.join(MISSING)}"),
]
SETTINGS = ("--accelerator", "cpu", "--training.warmup_steps", "5", "--training.val_check_interval", "20")
STEPS = ("--training.max_steps", "100")
LONG = 2 * LIMIT
"""seconds; Slurm takes two minutes to queue a job again"""
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
SlurmdPidFile={folder}/%n.pid
SlurmdSpoolDir={folder}/%n
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/%n.log
SlurmdParameters=config_overrides
MpiDefault=none
KillWait=60
MinJobAge=3600
JobRequeue=1
SchedulerParameters=batch_sched_delay=1,sched_interval=1,requeue_delay=0
SlurmdTimeout=10
{nodes}
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
NODE = "NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=8 RealMemory=2000 State=UNKNOWN"
NODES = ("n1", "n2", "n3")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """The environment in which Slurm's commands find a cluster of three nodes, all of them this machine."""
    folder = tmp_path_factory.mktemp("slurm")
    for part in ("state", *NODES):
        (folder / part).mkdir()
    host = socket.gethostname().split(".")[0]
    nodes = "\n".join(NODE.format(name=name, host=host, port=free_port()) for name in NODES)
    (folder / "slurm.conf").write_text(CONF.format(folder=folder, host=host, port=free_port(), nodes=nodes))
    # the names of these nodes lead nowhere, as they would in a cluster
    env = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf"), "MASTER_ADDR": "127.0.0.1"}
    munge = ["--key-file=/etc/munge/munge.key", f"--socket={folder}/munge.socket", "--force", "--foreground"]
    munge += [f"--{file}-file={folder}/munge.{file}" for file in ("pid", "log", "seed")]
    daemons = [["munged", *munge], ["slurmctld", "-D"], *(["slurmd", "-D", "-N", name] for name in NODES)]
    started = []
    try:
        for words in daemons:
            with (folder / f"{words[0]}.out").open("a") as log:
                started.append(subprocess.Popen(words, env=env, stdout=log, stderr=log))
            if words[0] == "munged":
                wait_for((folder / "munge.socket").exists)
        wait_for(lambda: said("sinfo", "-h", "-o%D %t", env=env) == f"{len(NODES)} idle")
        yield env
    finally:
        for daemon in reversed(started):
            daemon.terminate()
            daemon.wait(60)


def said(*words: str | Path, env: dict[str, str]) -> str:
    return subprocess.run(list(map(str, words)), env=env, capture_output=True, text=True).stdout.strip()


@pytest.fixture(scope="module")
def alone(installed, tmp_path_factory) -> Path:
    """The same training in one process, undisturbed."""
    return pretrain(installed, tmp_path_factory.mktemp("alone"), "alone", *SETTINGS, *STEPS)


@pytest.fixture
def job(cluster, everything, installed, tmp_path):
    """Queue a job; returns its number."""
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "bin").symlink_to(installed.site / "bin")
    (tmp_path / "slurm").symlink_to(everything[0].path / "slurm")
    jobs = []

    def submit(*settings: str, script: str = "sbatch slurm/train.sbatch pretrain", options: str = "") -> str:
        program, *rest = script.split()
        words = [program, "--parsable", *rest, *SETTINGS, *settings]
        words[2:2] = ["--gpus-per-node=0", "--cpus-per-task=1", *options.split()]
        jobs.append(subprocess.check_output(words, cwd=tmp_path, env={**cluster, **installed.env}, text=True).strip())
        return jobs[-1]

    yield submit
    subprocess.run(["scancel", *jobs], env=cluster)


def state(number: str, env: dict[str, str]) -> str:
    answer = said("scontrol", "show", "job", number, env=env)
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


def processes_of(node: str) -> set[int]:
    """Slurm's processes on a node, and those that they have started there."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if f"slurmd\0-D\0-N\0{node}\0".encode() in (process / "cmdline").read_bytes():
                found.add(int(process.name))
            elif f"SLURMD_NODENAME={node}\0".encode() in (process / "environ").read_bytes():
                parent = (process / "stat").read_text().rpartition(")")[2].split()[1]
                found |= {int(process.name), int(parent)}
        except OSError:  # it has ended
            continue
    return found


def test_a_job_that_lost_a_task_or_was_told_to_stop_goes_on_by_itself(job, cluster, alone, tmp_path):
    number = job(*STEPS)
    run, log = tmp_path / "runs" / f"pretrain-{number}", tmp_path / f"slurm-{number}.log"
    wait_for(lambda: len(tasks(run)) >= 2)
    for task in tasks(run):
        os.kill(task, signal.SIGTERM)  # while it starts, whatever it is doing then
    wait_for(is_saved(run))
    wait_for(lambda: len(tasks(run)) >= 2)
    os.kill(tasks(run)[-1], signal.SIGKILL)
    wait_for(lambda: state(number, cluster) == "COMPLETED", LONG)
    assert "Traceback" not in log.read_text()
    same(run, alone)


def test_a_job_whose_time_is_up_is_queued_again_and_goes_on_to_the_same_end(job, cluster, installed, tmp_path):
    steps = ("--training.max_steps", "1500")
    number = job(*steps, options="--time=1 --signal=TERM@30")
    run, log = tmp_path / "runs" / f"pretrain-{number}", tmp_path / f"slurm-{number}.log"
    wait_for(lambda: log.exists() and "SIGTERM: saving step" in log.read_text())
    whole = pretrain(installed, tmp_path, "whole", *SETTINGS, *steps, "--parallel.devices", "2")
    wait_for(lambda: state(number, cluster) == "PENDING" or "going on from step=" in log.read_text())
    subprocess.run(["scontrol", "update", f"JobId={number}", "TimeLimit=60"], env=cluster, check=True)
    wait_for(lambda: state(number, cluster) == "COMPLETED", LONG)
    assert "going on from step=" in log.read_text()
    assert "Traceback" not in log.read_text()
    stops = figures(run).keys() - figures(whole).keys()  # a row more for each step where it stopped
    assert len(stops) <= log.read_text().count("stopped after step")
    assert {step: row for step, row in figures(run).items() if step not in stops} == figures(whole)


def test_a_mistake_is_told_once_and_ends_the_job(job, cluster, tmp_path):
    number = job("--training.max_steps", "0")
    wait_for(lambda: state(number, cluster) == "FAILED")
    told = (tmp_path / f"slurm-{number}.log").read_text()
    assert told.count("--training.max_steps 0 must be at least 1") == 1


def test_the_commands_of_the_page_train_the_model_of_one(job, cluster, alone, installed, everything, tmp_path):
    pages = [project.path / "docs" / "machines.md" for project in (everything[0], installed.project)]
    batch, plain = (commands(page, "With Slurm").replace("--gpus-per-node=2", "--gpus-per-node=0") for page in pages)
    number = job(*STEPS, script=batch)
    srun = plain.replace(installed.project.slug, f".venv/bin/{installed.project.slug}").split()
    allocation = ["salloc", "--quiet", "--nodes=2", "--ntasks-per-node=2", "--cpus-per-task=1", *srun]
    words = [*allocation, "--run_dir", "plain", *SETTINGS, *STEPS]
    answer = subprocess.run(words, cwd=tmp_path, env={**cluster, **installed.env}, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    same(tmp_path / "plain", alone)
    wait_for(lambda: state(number, cluster) == "COMPLETED", LONG)
    same(tmp_path / "runs" / f"pretrain-{number}", alone)


def test_a_job_that_lost_a_node_goes_on_with_another(job, cluster, alone, tmp_path):
    number = job(*STEPS, options="--nodes=2 --ntasks-per-node=1")
    run, log = tmp_path / "runs" / f"pretrain-{number}", tmp_path / f"slurm-{number}.log"
    wait_for(is_saved(run))
    hosts = said("squeue", "-h", "-o%N", "-j", number, env=cluster)
    for process in processes_of(said("scontrol", "show", "hostnames", hosts, env=cluster).split()[1]):
        os.kill(process, signal.SIGKILL)
    wait_for(lambda: state(number, cluster) == "COMPLETED", LONG)
    assert "Traceback" not in log.read_text()
    same(run, alone)
