"""lock.py: two processes never train in one run folder."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ENVIRONMENT, PACKAGE

from {{cookiecutter.__package_name}}.contracts import names
from {{cookiecutter.__package_name}}.contracts.errors import UserError
from {{cookiecutter.__package_name}}.runtime import lock
from {{cookiecutter.__package_name}}.training import train as training
from {{cookiecutter.__package_name}}.training.run_settings import holds_run

HOLDS = """
import sys
from pathlib import Path
from {package}.runtime.lock import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that trains in a run folder."""
    words = [sys.executable, "-c", HOLDS.format(package=PACKAGE), str(tmp_path / "run")]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(words, env=ENVIRONMENT, **pipes) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


@pytest.mark.parametrize("resume", [False, True])
def test_a_folder_in_which_another_process_trains_is_refused(resume, holder, tiny, tmp_path):
    settings = tiny(resume=resume)
    told = rf"run is being trained by process {holder.pid} on .+: stop it"
    with pytest.raises(UserError, match=told):
        training.train(settings)
    with pytest.raises(UserError, match=told):  # before everything is imported
        lock.check_unlocked(tmp_path / "run")
    assert os.listdir(tmp_path / "run") == [lock.LOCK_FILE]


@pytest.mark.parametrize("resume", [False, True])
def test_a_training_holds_its_folder_until_it_ends(resume, tiny, tmp_path, monkeypatch):
    def tries_too(*arguments):
        words = [sys.executable, "-c", HOLDS.format(package=PACKAGE), str(tmp_path / "run")]
        answer = subprocess.run(words, env=ENVIRONMENT, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        assert f"is being trained by process {os.getpid()} on " in answer.stderr
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "_fit", tries_too)
    with pytest.raises(KeyboardInterrupt):
        training.train(tiny(resume=resume))


@pytest.mark.parametrize("number", [signal.SIGKILL, None])
def test_the_lock_goes_with_its_process_however_that_ends(number, holder, tiny, tmp_path):
    if number:
        holder.send_signal(number)
        holder.wait(900)
    else:
        holder.communicate(timeout=900)
        assert not (tmp_path / "run").exists()
    assert not holds_run(tiny())
    with lock.locked(tmp_path / "run"):
        assert (tmp_path / "run" / lock.LOCK_FILE).read_text().startswith(f"process {os.getpid()} on ")
    assert (tmp_path / "run").exists() is (number is not None)


@pytest.mark.parametrize("trains", [False, True])
def test_what_a_process_that_died_has_left_stays_until_another_one_trains(trains, tmp_path):
    settings, left = tmp_path / names.SETTINGS_FILE, tmp_path / lock.LOCK_FILE
    settings.touch()
    left.write_text("process 1 on a machine far away")
    with pytest.raises(UserError), lock.locked(tmp_path):
        if trains:
            os.utime(settings, (1, 1))
        raise UserError("refused")
    assert (left.exists() and left.read_text()) == (False if trains else "process 1 on a machine far away")


def test_a_lock_that_its_holder_has_just_removed_does_not_count(tmp_path, monkeypatch):
    path, opens = tmp_path / lock.LOCK_FILE, os.open

    def is_removed(*arguments):
        monkeypatch.setattr(os, "open", opens)
        file = opens(*arguments)
        path.unlink()
        return file

    monkeypatch.setattr(os, "open", is_removed)
    file = lock._lock(path)
    assert os.path.samestat(os.fstat(file), path.stat())
    os.close(file)


def test_other_ranks_leave_the_lock_to_the_first(holder, tmp_path, monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "1")
    lock.check_unlocked(tmp_path / "run")
    with lock.locked(tmp_path / "run"):
        pass
    assert Path(tmp_path / "run" / lock.LOCK_FILE).read_text().startswith(f"process {holder.pid} on ")


def test_a_file_system_without_locks_is_told(tmp_path, monkeypatch, capsys):
    def refuse(*arguments):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(lock.fcntl, "lockf", refuse)
    with lock.locked(tmp_path / "run"):
        pass
    assert "cannot be locked (Operation not supported): train in one process only" in capsys.readouterr().err
