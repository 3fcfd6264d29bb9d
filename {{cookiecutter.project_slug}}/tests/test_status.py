"""status: what it says of a run that lives, has ended in any way, or is being written at that moment."""

import os
import shutil
import subprocess
import sys
from types import SimpleNamespace

import pytest
from conftest import ENVIRONMENT, PACKAGE, TINY, run

from {{cookiecutter.__package_name}} import status
from {{cookiecutter.__package_name}}.cli import PROG
from {{cookiecutter.__package_name}}.contracts import names
from {{cookiecutter.__package_name}}.runtime.lock import LOCK_FILE, fcntl
from {{cookiecutter.__package_name}}.runtime.seal import SEAL, UNFINISHED

STEPS = TINY.training.max_steps
TRAINS = f"""
import sys, pathlib
from {PACKAGE}.runtime.lock import locked
with locked(pathlib.Path(sys.argv[1])):
    input("held\\n")
"""
GO_ON = f"Go on with {PROG} pretrain --run_dir "


@pytest.fixture
def said(folder, capsys):
    """Return what `status` says of the run in `folder`, by the words that its lines begin with."""

    def ask(*words):
        capsys.readouterr()
        assert run("status", *(words or [folder])) == 0
        head, *lines = capsys.readouterr().out.splitlines()
        told = {"": head.removeprefix(f"{folder}: ")}
        for line in lines:
            word, text = ("go on", line) if line.startswith(GO_ON) else (line[:12].strip(), line[12:])
            told[word] = f"{told[word]}\n{text}" if word in told else text
        return told

    return ask


@pytest.fixture
def trainer(folder):
    """A process that trains in that run, as far as others can see."""
    words = [sys.executable, "-c", TRAINS, str(folder)]
    with subprocess.Popen(words, env=ENVIRONMENT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_reader_who_has_seen_enough_is_no_mistake(folder):
    words = [sys.executable, "-m", PACKAGE, "status", str(folder)]
    reads, writes = os.pipe()
    os.close(reads)
    answer = subprocess.run(words, env=ENVIRONMENT, stdout=writes, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writes)
    assert (answer.returncode, answer.stderr) == (0, "")


def rows_of(folder):
    return (folder / names.METRICS_FILE).read_text().splitlines(keepends=True)


def leave(folder, steps):
    """Let the run have been killed after its first validation, when so many steps were logged."""
    kept = [row for row in rows_of(folder)[1:] if int(row.split(",")[0]) <= steps]
    (folder / names.METRICS_FILE).write_text("".join([rows_of(folder)[0], *kept]))
    for path in (folder / names.CHECKPOINTS_FOLDER).glob(f"step={STEPS}*"):
        shutil.rmtree(path)


def test_a_run_that_has_finished(said, folder, monkeypatch):
    logged = (folder / names.METRICS_FILE).stat().st_mtime
    monkeypatch.setattr(status, "time", SimpleNamespace(time=lambda: logged + 90))
    told = said()
    assert told[""] == "finished"
    assert told["step"] == f"{STEPS} of {STEPS} (100.0%), logged 1 min 30 s ago"
    assert " steps/s " in told["speed"] and " items/s" in told["speed"]
    assert told["training"].startswith(f"step {STEPS}  {names.TRAIN_LOSS} ") and "val_" not in told["training"]
    assert told["validation"].startswith(f"step {STEPS}  {names.VAL_LOSS} ")
    assert names.TRAIN_LOSS not in told["validation"]
    assert f"{names.VAL_LOSS} " in told["best"]
    whole = told["checkpoint"].splitlines()
    assert f"step={STEPS}-last  whole" in whole and all(line.endswith("  whole") for line in whole)
    assert "go on" not in told and "to go" not in told and "command" not in told
    assert said("--from", folder) == told
    (folder / LOCK_FILE).write_text("process 1 on here")  # it was killed behind its last checkpoint
    assert said()[""] == "finished"


def test_a_run_that_lives_says_who_trains_it_and_how_long_that_will_take(said, folder, trainer, monkeypatch):
    leave(folder, steps=15)
    monkeypatch.delattr(fcntl, "lockf")  # who asks with a lock of its own would refuse a start of this moment
    told = said()
    assert told[""].startswith(f"running, process {trainer.pid} on ")
    assert told["step"].startswith(f"15 of {STEPS} (75.0%)")
    assert told["to go"].startswith("about ")
    assert "go on" not in told


def test_a_run_that_ended_early_says_how_and_the_command_that_goes_on(said, folder):
    leave(folder, steps=15)
    assert said()[""] == "stopped after step 10"
    assert said()["go on"] == f"{GO_ON}{folder} --resume true"
    (folder / LOCK_FILE).write_text("process 12 on another machine")
    assert said()[""] == "died; its lock was left by process 12 on another machine"
    shutil.rmtree(folder / names.CHECKPOINTS_FOLDER)
    (folder / names.METRICS_FILE).unlink()
    assert said()["step"] == f"0 of {STEPS} (0.0%), nothing is logged yet"
    (folder / LOCK_FILE).unlink()
    assert said()[""] == "stopped without a checkpoint: it starts anew"
    (folder / names.CHECKPOINTS_FOLDER / "step=10-last").mkdir(parents=True)
    assert said()[""] == "stopped, and no checkpoint is whole"


def test_what_is_half_written_or_damaged_is_told_from_what_is_whole(said, folder):
    last, before = (folder / names.CHECKPOINTS_FOLDER / f"step={step}-last" for step in (STEPS, STEPS // 2))
    with (folder / names.METRICS_FILE).open("a") as file:
        file.write(f"{STEPS + 1},0.1")
    (last / SEAL).unlink()
    last.with_name(last.name + UNFINISHED).touch()
    with next(path for path in (before / "weights").iterdir() if path.is_file()).open("ab") as file:
        file.write(b"more")
    told = said()
    assert told["step"].startswith(f"{STEPS} of {STEPS}")
    assert f"{last.name}  unfinished: " in told["checkpoint"]
    assert f"{before.name}  DAMAGED: weights/" in told["checkpoint"]
    last.with_name(last.name + UNFINISHED).unlink()
    assert f"{last.name}  DAMAGED: it lost {SEAL}" in said()["checkpoint"]


def test_the_command_and_the_test_figures_are_there_if_they_are_known(said, folder):
    settings = folder / names.SETTINGS_FILE
    settings.write_text(f"# {PROG} pretrain --seed 7\n{settings.read_text()}")
    (folder / names.EVALUATION_FILE).write_text('{"test_loss": 0.25, "step": 20, "num_items": 3}')
    told = said()
    assert told["command"] == f"{PROG} pretrain --seed 7"
    assert told["test"] == "step 20  test_loss 0.2500"
    (folder / names.EVALUATION_FILE).write_text('{"test_loss": 0.25, "step": null}')
    assert said()["test"] == "test_loss 0.2500"


def test_a_folder_that_is_no_run_is_told_in_one_line(refused, folder, tmp_path):
    assert f"{tmp_path} holds no run (settings.yaml is missing): give one of {folder}" in refused("status", tmp_path)
    assert f"{tmp_path}/none is no folder" in refused("status", tmp_path / "none")
    assert "status needs RUN, the folder of one run" in refused("status")
    assert "status needs RUN, the folder of one run" in refused("status", folder, "--from", folder)
    assert "unrecognized arguments: b; see " in refused("status", folder, "b")
    assert "a path on the command line is empty" in refused("status", "")
    infinite = "training: {max_steps: .inf, global_batch_size: 1}\n"
    for text in (infinite, "training: {max_steps: 0, global_batch_size: 1}\n", "training: [\n", "seed: 1\n"):
        (folder / names.SETTINGS_FILE).write_text(text)
        assert "settings.yaml cannot be used (" in refused("status", folder)


def test_a_file_system_without_locks_is_told(said, folder, monkeypatch):
    def refuse(run):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(status, "holder", refuse)
    told = "running, or died: locks cannot be asked for here (Operation not supported); see another process"
    assert said()[""] == told


def test_a_run_that_is_starting_has_no_settings_yet(said, folder, trainer):
    (folder / names.SETTINGS_FILE).unlink()
    assert said()[""] == f"{(folder / LOCK_FILE).read_text()} is starting; nothing has been trained yet"


def test_it_answers_without_torch(folder):
    asks = f"from {PACKAGE}.__main__ import main; main(['status', sys.argv[1]])"
    counts = "print([name for name in ('torch', 'numpy', 'lightning') if name in sys.modules])"
    answer = subprocess.run(
        [sys.executable, "-c", f"import sys; {asks}; {counts}", str(folder)],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
    )
    assert answer.stdout.endswith("\n[]\n"), answer.stderr


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.2, "0 s"), (61, "1 min 1 s"), (7_190, "1 h 59 min"), (200_000, "2 d 7 h")]
)
def test_times_have_their_two_largest_units(seconds, words):
    assert status._duration(seconds) == words
