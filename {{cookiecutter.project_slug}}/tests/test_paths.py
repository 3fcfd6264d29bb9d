"""Paths: `~/` is the home folder wherever a path comes from, and one that cannot be is told before any work."""

import errno
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import run

from {{cookiecutter.__package_name}}.contracts.errors import UserError
from {{cookiecutter.__package_name}}.model.settings import FINETUNE, Settings
from {{cookiecutter.__package_name}}.results.evaluate import evaluate, predict
from {{cookiecutter.__package_name}}.training.run_settings import save_settings


@pytest.fixture
def home(tmp_path, monkeypatch):
    """The home folder of this test, which is not where it stands."""
    (tmp_path / "home").mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "home"


def test_a_home_folder_is_meant_in_flags_files_and_code_alike(home, asked):
    (home / "run.yaml").write_text("run_dir: ~/run\n")
    for words in (["--run_dir=~/run"], ["--config=~/run.yaml"], ["--config", home / "run.yaml"]):
        assert run("pretrain", *words) == 0
    assert asked == [replace(Settings(), run_dir="~/run")] * 3
    assert asked[0].run_dir == str(home / "run")


def test_a_home_folder_is_meant_by_every_command(home, asked, monkeypatch):
    save_settings(FINETUNE, home / "run")
    for command in ("predict", "finetune"):
        assert run(command, "--from=~/run") == 0
    assert (asked[0].run_dir, asked[1].from_run) == (str(home / "run"), str(home / "run"))
    given = []
    monkeypatch.setattr("{{cookiecutter.__package_name}}.results.report.make_report", given.append)
    monkeypatch.setattr(
        "{{cookiecutter.__package_name}}.results.export.export_run",
        lambda settings, output: given.extend([Path(settings.run_dir), output]),
    )
    assert run("report", "--from=~/run") == run("export", "--from=~/run", "--output=~/out") == 0
    assert given == [home / "run", home / "run", home / "out"]


@pytest.mark.parametrize("command", ["finetune", "evaluate", "predict", "export"])
@pytest.mark.parametrize("name", ["file", "x" * 300], ids=["file", "long"])
def test_a_run_that_is_no_folder_is_one_line(name, command, refused, tmp_path):
    (tmp_path / "file").touch()
    assert f"{tmp_path / name}/settings.yaml cannot be read (" in refused(command, "--from", tmp_path / name)


@pytest.mark.parametrize("work", [evaluate, predict])
def test_results_that_cannot_be_written_are_told_before_the_work(work, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setattr(Settings, "to_predict", lambda settings: settings)
    with pytest.raises(UserError, match=r"file cannot be written: .*file: Not a directory"):
        work(Settings(run_dir=str(tmp_path / "file")))


def test_a_folder_that_may_not_be_looked_into_is_one_line(refused, tmp_path, monkeypatch):
    exists = Path.exists

    def looked_into(path):
        if path.is_relative_to(tmp_path / "run"):
            raise PermissionError(errno.EACCES, "Permission denied")  # as it is for anybody but root
        return exists(path)

    monkeypatch.setattr(Path, "exists", looked_into)
    for words in ([], ["--resume", "true"]):
        answer = refused("pretrain", "--run_dir", tmp_path / "run", *words)
        assert f"{tmp_path / 'run'} cannot be read (Permission denied): name another folder" in answer
