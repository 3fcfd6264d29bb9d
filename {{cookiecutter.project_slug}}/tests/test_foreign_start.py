"""A start that another program wrote: what it brings along, what is made of it where, and what comes before it."""

from dataclasses import replace

import pytest
from conftest import change, run

from {{cookiecutter.__package_name}}.contracts.errors import UserError
from {{cookiecutter.__package_name}}.model import settings
from {{cookiecutter.__package_name}}.model.settings import FINETUNE, Settings
from {{cookiecutter.__package_name}}.training.run_settings import save_settings
from {{cookiecutter.__package_name}}.training.train import best_of

LAYERS = Settings().model.num_layers


@pytest.fixture
def foreign(monkeypatch):
    """Let every start be one that another program wrote, and bring along more layers and another network."""
    brings = {"model": replace(Settings().model, num_layers=2 * LAYERS), "network": FINETUNE.network}
    monkeypatch.setattr(Settings, "foreign_start", "there")
    monkeypatch.setattr(Settings, "from_start", lambda _: brings)
    monkeypatch.setattr(settings, "FROM_START", ("model",))
    return brings


@pytest.mark.parametrize(("command", "defaults"), [("pretrain", Settings()), ("finetune", FINETUNE)])
def test_training_takes_from_a_foreign_start_what_from_start_names(command, defaults, asked, run_dir, foreign):
    words = ["--model.hidden_dropout", 0.5]
    assert run(command, *run_dir, *words) == 0
    assert run(command, *run_dir, *words, "--model.num_layers", LAYERS) == 0
    sizes = {"num_layers": 2 * LAYERS, "hidden_dropout": 0.5}
    expected = change(replace(defaults, run_dir=run_dir[1], model=foreign["model"]), model=sizes)
    assert asked == [expected, change(expected, model={"num_layers": LAYERS})]


def test_a_resume_does_not_ask_a_foreign_start(asked, tmp_path, foreign, monkeypatch):
    monkeypatch.setattr(Settings, "from_start", lambda _: 1 / 0)
    saved = change(Settings(), run_dir=str(tmp_path), seed=7)
    save_settings(saved, tmp_path)
    assert run("finetune", "--run_dir", tmp_path, "--resume", "true") == 0
    assert asked == [replace(saved, resume=True)]


def test_prediction_takes_all_that_a_foreign_start_brings_along(asked, run_dir, foreign):
    assert run("predict", *run_dir, "--seed", 5) == 0
    assert asked == [replace(Settings(), run_dir=run_dir[1], seed=5, **foreign)]


@pytest.mark.parametrize("command", ["evaluate", "predict", "export"])
def test_what_is_made_of_a_foreign_start_needs_a_folder_of_no_run(command, refused, tmp_path, foreign):
    assert f"{command} needs --run_dir DIR, a folder for what it makes of there" in refused(command)
    save_settings(Settings(), tmp_path)
    answer = refused(command, "--from", tmp_path)
    assert f"{tmp_path} holds a run: name another --run_dir for what {command} makes of there" in answer


def test_a_run_has_a_best_checkpoint_and_a_foreign_start_has_none(tmp_path, foreign):
    given = Settings(run_dir=str(tmp_path))
    assert best_of(given) is None
    save_settings(given, tmp_path)
    with pytest.raises(UserError, match="holds no finished checkpoint"):
        best_of(given)
