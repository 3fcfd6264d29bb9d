"""Stopping: a signal saves the step that it comes in, and ends the command with a code of its own."""

import signal
import subprocess
import sys
import time

import pytest
from conftest import ENVIRONMENT, PACKAGE, TINY, change, read_rows

from {{cookiecutter.__package_name}} import cli
from {{cookiecutter.__package_name}}.contracts import names
from {{cookiecutter.__package_name}}.runtime.checkpoint import last_checkpoint
from {{cookiecutter.__package_name}}.training import train as training
from {{cookiecutter.__package_name}}.training.run_settings import save_settings

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def signalled(number, run, devices, settings):
    """Start the command, signal it after the third step, and return it when it has ended."""
    save_settings(change(settings, run_dir=str(run), parallel={"devices": devices}), run.parent)
    words = [sys.executable, "-m", PACKAGE, "pretrain", "--config", str(run.parent / names.SETTINGS_FILE)]
    process = subprocess.Popen(
        words, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        deadline = time.monotonic() + 120
        while not (run / names.METRICS_FILE).exists() or len(read_rows(run)) < 3:
            assert process.poll() is None and time.monotonic() < deadline, process.communicate()
            time.sleep(0.02)
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    return subprocess.CompletedProcess(words, process.returncode, out, err)


@pytest.mark.parametrize(("number", "devices"), [(signal.SIGTERM, 2), (signal.SIGINT, 1)])
def test_a_signal_saves_the_step_and_ends_with_its_own_code(number, devices, tmp_path):
    long = change(TINY, training={"max_steps": 5_000, "val_check_interval": 1_000, "log_every_n_steps": 1})
    answer = signalled(number, tmp_path / "run", devices, long)
    step = int(read_rows(tmp_path / "run")[-1][names.STEP])
    assert answer.returncode == cli.STOPPED == 75, answer.stderr
    start = "training steps 1 to 5000 in {} on cpu, validation every 1000 steps\n"
    begins = start.format("1 process" if devices == 1 else f"{devices} processes")
    assert answer.stderr == f"{begins}{number.name}: saving step {step}, then stopping\n"
    resume = f"{cli.PROG} pretrain --run_dir {tmp_path / 'run'} --resume true"
    assert answer.stdout == f"stopped after step {step} of 5000; go on with {resume}\n"
    assert last_checkpoint(tmp_path / "run" / names.CHECKPOINTS_FOLDER).name == f"step={step}-last"


def test_a_signal_before_the_first_step_leaves_nothing(tmp_path, monkeypatch):
    def interrupted(settings):
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "train", interrupted)
    assert cli.main(["pretrain", "--accelerator", "cpu", "--run_dir", str(tmp_path / "run")]) == cli.INTERRUPTED
    assert not (tmp_path / "run").exists()
