"""Stopping: a signal saves the step that it comes in, and ends the command with a code of its own."""

import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from conftest import ENVIRONMENT, PACKAGE, read_rows, run

from {{cookiecutter.__package_name}} import cli
from {{cookiecutter.__package_name}}.contracts import names
from {{cookiecutter.__package_name}}.runtime.checkpoint import last_checkpoint
from {{cookiecutter.__package_name}}.training import datamodule, logs
from {{cookiecutter.__package_name}}.training import train as training
from {{cookiecutter.__package_name}}.training.run_settings import save_settings

pytestmark = pytest.mark.slow


LONG = {"max_steps": 5_000, "val_check_interval": 1_000, "log_every_n_steps": 1}


def signalled(number, settings, is_time, environment=None, cwd=None):
    """Start the command, signal its whole process group when it is time, and return it when it has ended."""
    run = Path(settings.run_dir)
    save_settings(settings, run.parent)
    words = [sys.executable, "-m", PACKAGE, "pretrain", "--config", str(run.parent / names.SETTINGS_FILE)]
    # a shell that starts pytest in the background lets it ignore Ctrl-C
    with subprocess.Popen(
        words,
        cwd=cwd,
        env={**ENVIRONMENT, **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),
    ) as process:
        try:
            deadline = time.monotonic() + 900
            while not is_time(run, process):
                assert process.poll() is None and time.monotonic() < deadline, process.communicate()
                time.sleep(0.02)
            os.killpg(process.pid, number)
            out, err = process.communicate(timeout=900)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    return subprocess.CompletedProcess(words, process.returncode, out, err)


def has_three_steps(run, process):
    return (run / names.METRICS_FILE).exists() and len(read_rows(run)) >= 3


def has_three_steps_and_no_reader(run, process):
    """Tell the same, and close the terminal: what is said about the end goes nowhere."""
    if is_time := has_three_steps(run, process):
        process.stderr.close()
        process.stderr = None
    return is_time


def has_begun_to_listen(run, process):
    """Tell by what Linux knows of its signals."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(re.search(r"SigCgt:\s*(\w+)", status)[1], 16) >> (signal.SIGTERM - 1) & 1


def test_a_step_is_saved_for_whom_nobody_listens_to(tiny):
    settings = tiny(training=LONG)
    answer = signalled(signal.SIGHUP, settings, has_three_steps_and_no_reader)
    assert answer.returncode == cli.STOPPED
    step = read_rows(Path(settings.run_dir))[-1][names.STEP]
    assert last_checkpoint(Path(settings.run_dir) / names.CHECKPOINTS_FOLDER).name == f"step={step}-last"


@pytest.mark.parametrize(
    ("number", "devices", "workers"),
    [(signal.SIGTERM, 2, 0), (signal.SIGTERM, 1, 2), (signal.SIGINT, 1, 1)],
)
def test_a_signal_saves_the_step_and_ends_with_its_own_code(number, devices, workers, tiny):
    settings = tiny(training=LONG, parallel={"devices": devices}, data={"num_workers": workers})
    answer = signalled(number, settings, has_three_steps)
    run = Path(settings.run_dir)
    step = int(read_rows(run)[-1][names.STEP])
    assert answer.returncode == cli.STOPPED == 75, answer.stderr
    start = "training steps 1 to 5000 in {} on cpu, validation every 1000 steps\n"
    begins = start.format("1 process" if devices == 1 else f"{devices} processes")
    items, said = answer.stderr.split("\n", 1)
    assert re.fullmatch(r"training on [\d,]+ items, validation with [\d,]+", items)
    assert said == f"{begins}{number.name}: saving step {step}, then stopping\n"
    resume = f"{cli.PROG} pretrain --run_dir {run} --resume true"
    assert answer.stdout == f"stopped after step {step} of 5000; go on with {resume}\n"
    assert last_checkpoint(run / names.CHECKPOINTS_FOLDER).name == f"step={step}-last"


def test_what_a_scheduler_sends_writes_nothing_outside_the_run(tiny):
    """Lightning's handler for Slurm would write its own checkpoint into the current folder, and train on."""
    slurm = {"SLURM_JOB_ID": "7", "SLURM_JOB_NAME": "train", "SLURM_NTASKS": "1", "SLURM_NTASKS_PER_NODE": "1"}
    task = {"SLURM_STEP_ID": "0", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0"}
    paths = ENVIRONMENT.get("PYTHONPATH", "").split(os.pathsep)
    here = {"PYTHONPATH": os.pathsep.join(map(os.path.abspath, filter(None, paths)))}
    settings = tiny(training=LONG)
    run = Path(settings.run_dir)
    environment = {**slurm, **task, **here, "SLURM_NODELIST": "localhost"}
    answer = signalled(signal.SIGUSR1, settings, has_three_steps, environment, cwd=run.parent)
    assert answer.returncode == cli.STOPPED, answer.stderr
    assert sorted(path.name for path in run.parent.iterdir()) == [run.name, names.SETTINGS_FILE]


@pytest.mark.skipif(sys.platform != "linux", reason="Linux says what a process listens to")
def test_a_signal_while_everything_is_imported_waits_for_the_first_step(tiny):
    answer = signalled(signal.SIGTERM, settings := tiny(training=LONG), has_begun_to_listen)
    assert answer.returncode == cli.STOPPED, answer.stderr
    assert last_checkpoint(Path(settings.run_dir, names.CHECKPOINTS_FOLDER)).name == "step=1-last"


@pytest.fixture
def ctrl_c(tiny, monkeypatch):
    """Train in this process, and interrupt it where something is called."""

    def train(owner, name):
        def interrupted(*arguments, **named):
            signal.raise_signal(signal.SIGINT)
            return []

        monkeypatch.setattr(owner, name, interrupted)
        save_settings(settings := tiny(training={**LONG, "max_steps": 3}), Path(tiny().run_dir).parent)
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            return run("pretrain", "--config", Path(settings.run_dir).parent / names.SETTINGS_FILE)
        finally:
            signal.signal(signal.SIGINT, before)

    return train


@pytest.mark.parametrize(("owner", "name"), [(training, "train"), (datamodule.DataModule, "setup")])
def test_ctrl_c_before_a_run_is_opened_leaves_nothing(owner, name, ctrl_c, tmp_path):
    assert ctrl_c(owner, name) == cli.INTERRUPTED
    assert not (tmp_path / "run").exists()


def test_ctrl_c_while_a_run_is_opened_waits_for_the_first_step(ctrl_c, tmp_path):
    assert ctrl_c(logs, "open_loggers") == cli.STOPPED
    assert last_checkpoint(tmp_path / "run" / names.CHECKPOINTS_FOLDER).name == "step=1-last"
