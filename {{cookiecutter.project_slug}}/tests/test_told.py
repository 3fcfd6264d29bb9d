"""What the command line says to people: commands that can be pasted, and by its type what a setting takes."""

import shlex
import subprocess
import sys
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import NoneType
from typing import Literal, get_args, get_type_hints

import pytest
import yaml
from conftest import ENVIRONMENT, PACKAGE, TINY, change, run

from {{cookiecutter.__package_name}}.cli import PROG
from {{cookiecutter.__package_name}}.contracts import names
from {{cookiecutter.__package_name}}.contracts.settings import RunSettings
from {{cookiecutter.__package_name}}.model.settings import FINETUNE, Settings
from {{cookiecutter.__package_name}}.parsing import _in_words
from {{cookiecutter.__package_name}}.results import evaluate
from {{cookiecutter.__package_name}}.training import train
from {{cookiecutter.__package_name}}.training.run_settings import save_settings

ODD = "it's; a*b [1] 100% #"


def told(capfd):
    """Return the words of each command in what was printed, as a shell takes them."""
    lines = capfd.readouterr().out.replace("go on with ", "Next: ").splitlines()
    return [shlex.split(part) for line in lines for part in line.partition("Next: ")[2].split(", or ") if part]


def test_what_an_evaluation_still_needs_is_told_after_the_training(capfd, tmp_path, monkeypatch):
    monkeypatch.setattr(Settings, "to_test", ("--data.test", "FILE"))
    monkeypatch.setattr(train, "train", lambda settings: train.TrainingResult(tmp_path, 3, {}, 1.0, False))
    assert run("pretrain", "--run_dir", tmp_path) == 0
    assert told(capfd)[0] == [PROG, "evaluate", "--from", str(tmp_path), "--data.test", "FILE"]


@pytest.mark.parametrize("has_stopped", [False, True])
@pytest.mark.parametrize("command", ["pretrain", "finetune"])
def test_what_follows_a_training_can_be_pasted(command, has_stopped, capfd, tmp_path, monkeypatch):
    folder = str(tmp_path / ODD)
    monkeypatch.setattr(train, "train", lambda settings: train.TrainingResult(Path(folder), 3, {}, 1.0, has_stopped))
    save_settings(change(FINETUNE, accelerator="cpu", from_run="there"), tmp_path)
    run(command, "--config", tmp_path / names.SETTINGS_FILE, "--from_run", tmp_path, "--run_dir", folder)
    start = [[PROG, "finetune", "--from", folder]] if command == "pretrain" else []
    resume = [[PROG, command, "--run_dir", folder, "--resume", "true"]]
    assert told(capfd) == (resume if has_stopped else [[PROG, "evaluate", "--from", folder], *start])


def test_what_follows_an_evaluation_can_be_pasted(capfd, tmp_path, monkeypatch):
    result = {names.REFERENCES: {}, names.COUNTED: "items", names.COUNTS: {}, names.NUM_ITEMS: 3}
    monkeypatch.setattr(evaluate, "evaluate", lambda settings: result)
    folder = tmp_path / ODD
    folder.mkdir()
    save_settings(TINY, folder)
    assert run("evaluate", "--from", folder) == 0
    assert told(capfd) == [[PROG, "report", "--from", str(folder)]]


def kinds(group, prefix=""):
    """Return the type of every setting that all projects have, by its name on the command line."""
    hints, found = get_type_hints(group), {}
    for name in (each.name for each in fields(group)):
        nested = is_dataclass(hints[name])
        found |= kinds(hints[name], f"{prefix}{name}.") if nested else {f"{prefix}{name}": hints[name]}
    return found


OPTIONAL = {name for name, kind in kinds(RunSettings).items() if NoneType in get_args(kind)}


def written(name, value):
    """Return a file of settings with this one."""
    for part in reversed(name.split(".")):
        value = {part: value}
    return yaml.safe_dump(value)


@pytest.mark.parametrize("name", kinds(RunSettings))
def test_a_value_of_another_type_is_answered_with_what_the_setting_takes(name, refused, run_dir, tmp_path):
    wrong = tmp_path / "wrong.yaml"
    takes = _in_words(kinds(Settings)[name])
    for value in ({"a": 1}, [[1]]):
        wrong.write_text(written(name, value))
        answer = refused("pretrain", *run_dir, "--config", wrong)
        assert f"error: --{name}: expected " in answer
        assert f"{takes}, got {value}" in answer or f" in its list, got {value[0]}" in answer
    if name not in OPTIONAL:
        wrong.write_text(written(name, None))
        assert f"error: --{name}: expected {takes}, got null" in refused("pretrain", *run_dir, "--config", wrong)


def test_a_setting_that_may_be_null_says_how_null_is_written(refused, run_dir):
    assert {"training.micro_batch_size", "from_run"} <= OPTIONAL
    for value in ("None", "many", "1e3", "true", ""):
        answer = refused("pretrain", *run_dir, "--training.micro_batch_size", value)
        assert answer.endswith(f"micro_batch_size: expected null or a whole number, got {value or 'nothing'}")


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (int, "a whole number"),
        (float | None, "null or a number"),
        (bool, "true or false"),
        (Literal["a", "b"] | None, "null or one of 'a', 'b'"),
        (str | int, "text in quotes or a whole number"),
        (tuple[str, ...], "a list, such as '[a, b]'"),
        (list[int] | None, "null or a list, such as '[1, 2]'"),
        (Path, "Path"),
    ],
    ids=str,
)
def test_every_type_has_its_words(kind, words):
    assert _in_words(kind) == words


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["--new_heads", "[1]"], "--new_heads: expected text in quotes in its list, got 1"),
        (["--new_heads"], "--new_heads needs a value: a list, such as '[a, b]'"),
        (["--training.micro_batch_size"], "--training.micro_batch_size needs a value: null or a whole number"),
        (["--training"], "--training is a group of settings: give one of them, such as --training.max_steps"),
        (["--training", "many"], "--training is a group of settings, and cannot be many: give them by name"),
        (["--training", "[1"], "--training is a group of settings, and cannot be [1: give them by name"),
        (["--training", "{lr: x}"], "--training.lr: expected a number, got x"),
        (["--seed.x", "3"], "there is no setting --seed.x (did you mean --seed?)"),
        (["--help=3"], "--help takes no value"),
        (["--config", ""], "'' is empty"),
    ],
    ids=" ".join,
)
def test_a_flag_of_another_form_is_one_line(words, answer, refused, run_dir):
    assert refused("pretrain", *run_dir, *words).endswith(answer)


@pytest.mark.parametrize(
    ("content", "answer"),
    [
        (b"1: 2", "has 1 where the name of a setting should be"),
        (b"training: {null: 2}", "has None where the name of a setting should be"),
        (b"help: true", "there is no setting --help"),
        (b"\xff\xfe\x00", "cannot be read: it is not text in UTF-8"),
        (b"training: null", "--training is a group of settings, and cannot be null: give them by name"),
    ],
    ids=str,
)
def test_a_file_of_another_form_is_one_line(content, answer, refused, run_dir, tmp_path):
    (tmp_path / "wrong.yaml").write_bytes(content)
    assert refused("pretrain", *run_dir, "--config", tmp_path / "wrong.yaml").endswith(answer)


@pytest.mark.parametrize(
    ("words", "code", "out", "err"),
    [
        ("--help >/dev/full", 2, "", f"{PROG}: error: the answer cannot be written: No space left on device\n"),
        ("--help 2>&-", 0, "usage: ", ""),
        ("status nowhere 2>/dev/full", 2, "", ""),
        ("status nowhere 2>&-", 2, "", ""),
        ("status nowhere >&- <&-", 2, "", f"{PROG}: error: nowhere"),
    ],
)
def test_nothing_that_is_said_ends_a_command_and_an_answer_that_is_lost_is_a_mistake(words, code, out, err, tmp_path):
    line = f"exec {shlex.quote(sys.executable)} -m {PACKAGE} {words}"
    answer = subprocess.run(line, shell=True, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True)
    assert answer.returncode == code
    assert answer.stdout.startswith(out) and bool(answer.stdout) is bool(out)
    assert answer.stderr.startswith(err) and bool(answer.stderr) is bool(err)


def test_characters_that_a_screen_does_not_have_are_escaped(tmp_path):
    words, env = [sys.executable, "-m", PACKAGE, "status", "Läufe"], {**ENVIRONMENT, "PYTHONIOENCODING": "ascii:strict"}
    answer = subprocess.run(words, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert answer.returncode == 2 and "L\\xe4ufe" in answer.stderr and "Traceback" not in answer.stderr
