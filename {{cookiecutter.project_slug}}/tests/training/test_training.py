"""Training: what is logged where, what a run folder holds, and a stopped run that ends as if it had not been."""

import os
import shutil
import sys
from pathlib import Path

import in_ranks
import pytest
import torch
from conftest import TINY, change, read_rows
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from {{cookiecutter.__package_name}}.contracts import names
from {{cookiecutter.__package_name}}.contracts.errors import UserError
from {{cookiecutter.__package_name}}.contracts.loss import LossReduction
from {{cookiecutter.__package_name}}.model.config import NETWORKS
from {{cookiecutter.__package_name}}.model.settings import FINETUNE
from {{cookiecutter.__package_name}}.proof.ranks import run_ranks
from {{cookiecutter.__package_name}}.results.evaluate import evaluate
from {{cookiecutter.__package_name}}.training import logs
from {{cookiecutter.__package_name}}.training import train as training
from {{cookiecutter.__package_name}}.training.run_settings import load_settings

pytestmark = pytest.mark.slow


def column(rows, name):
    return [float(row[name]) for row in rows if row[name]]


def test_every_step_is_one_row_and_every_validation_one_more(pretrained):
    assert column(pretrained.rows, names.STEP) == [*range(1, 11), 10, *range(11, 21), 20]
    assert [bool(row[names.VAL_LOSS]) for row in pretrained.rows] == [*[False] * 10, True, *[False] * 10, True]


def test_bar_and_tensorboard_show_each_figure_at_its_step(tiny, train, monkeypatch):
    shown = {}

    class Bar:
        def __init__(self, *, total, initial, **_):
            self.step = initial

        def update(self, steps):
            self.step += steps

        def set_postfix_str(self, text, refresh):
            shown[self.step] = text

        def write(self, line, file):
            assert f"step {self.step}/4" in line

        def close(self):
            assert self.step == 4

    monkeypatch.setattr(logs, "tqdm", Bar)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    steps = {"max_steps": 4, "warmup_steps": 0, "val_check_interval": 2, "micro_batch_size": 8}
    trained = train(tiny(network=FINETUNE.network, training=steps))
    losses = enumerate(column(trained.rows, names.TRAIN_LOSS), start=1)
    assert {step: text.split("  ")[0] for step, text in shown.items()} == {
        step: f"{names.TRAIN_LOSS} {loss:.4g}" for step, loss in losses
    }
    assert [step for step, text in shown.items() if "/s" in text] == [3, 4]  # the first two are not measured
    board = EventAccumulator(str(trained.folder / names.TENSORBOARD_FOLDER)).Reload()
    for name in trained.rows[0].keys() - {names.STEP}:
        logged = [(int(row[names.STEP]), float(row[name])) for row in trained.rows if row[name]]
        assert [(event.step, pytest.approx(event.value)) for event in board.Scalars(name)] == logged


class Stopped(Exception):
    """What stands in for a power cut."""


@pytest.fixture
def stopped(tiny, train, monkeypatch):
    """A run of the pretrained run's settings that was stopped three steps after its checkpoint of step 10."""

    def stop(self, trainer, *args):
        if trainer.global_step == 13:
            raise Stopped

    settings = tiny()
    with monkeypatch.context() as patch:
        patch.setattr(training.Progress, "on_train_batch_end", stop)
        with pytest.raises(Stopped):
            train(settings)
    return settings


def test_a_stopped_and_resumed_run_ends_as_the_uninterrupted_one(stopped, pretrained, train):
    assert column(read_rows(Path(stopped.run_dir)), names.STEP)[-1] > 10
    resumed = train(change(stopped, resume=True))
    assert resumed.rows == pretrained.rows  # the same figures to the last bit, and no row twice
    assert all(torch.equal(resumed.end[name], pretrained.end[name]) for name in pretrained.end)
    assert resumed.result.steps == 20
    assert not all(torch.equal(resumed.start[name], pretrained.start[name]) for name in pretrained.start)
    board = EventAccumulator(str(resumed.folder / names.TENSORBOARD_FOLDER)).Reload()
    assert [event.step for event in board.Scalars(names.TRAIN_LOSS)] == list(range(1, 21))


def test_resuming_where_there_is_no_run_starts_it(tiny, train, pretrained):
    started = train(tiny(resume=True, training={"max_steps": 3, "warmup_steps": 0}))
    assert started.result.steps == 3
    assert all(torch.equal(started.start[name], pretrained.start[name]) for name in pretrained.start)


def test_a_finished_run_goes_on_only_to_more_steps(pretrained, train, tmp_path):
    shutil.copytree(pretrained.folder, tmp_path / "run")
    settings = change(pretrained.settings, run_dir=str(tmp_path / "run"), resume=True)
    with pytest.raises(UserError, match=r"trained to step 20: raise --training\.max_steps 20 above it"):
        train(settings)
    longer = train(change(settings, training={"max_steps": 24, "val_check_interval": 2}))
    assert longer.result.steps == 24
    assert column(longer.rows, names.STEP)[22:] == [21, 22, 22, 23, 24, 24]
    assert all(torch.equal(longer.start[name], pretrained.end[name]) for name in pretrained.end)


def test_a_run_is_not_overwritten(pretrained, train):
    before = {path: path.stat().st_mtime_ns for path in pretrained.folder.rglob("*")}
    with pytest.raises(UserError, match="already holds a run"):
        train(pretrained.settings)
    assert {path: path.stat().st_mtime_ns for path in pretrained.folder.rglob("*")} == before


def test_a_program_is_told_of_wrong_settings_as_a_command_is(tiny, train):
    wrong = tiny(training={"warmup_steps": -1}, data={"num_workers": -1})
    with pytest.raises(UserError, match=r"--training.warmup_steps -1 must be .*; --data.num_workers -1 must be at"):
        train(wrong)
    assert not Path(wrong.run_dir).exists()


def test_a_run_of_another_network_is_not_resumed(pretrained, train):
    layers = TINY.model.num_layers
    with pytest.raises(UserError, match=f"--model.num_layers {layers}, not {2 * layers}, and keeps what it has"):
        train(change(pretrained.settings, resume=True, model={"num_layers": 2 * layers}))


def test_a_run_folder_says_what_the_run_was(finetuned):
    assert load_settings(finetuned.folder) == finetuned.settings
    content = {path.name for path in finetuned.folder.iterdir()}
    assert content == {
        names.SETTINGS_FILE,
        names.METRICS_FILE,
        names.CHECKPOINTS_FOLDER,
        names.TENSORBOARD_FOLDER,
    }


def test_a_finetuning_says_where_it_starts_and_a_resumed_one_where_it_goes_on(tiny, train, pretrained, capfd):
    first = {"max_steps": 2, "warmup_steps": 0, "val_check_interval": 2}
    settings = tiny(from_run=pretrained.settings.run_dir, training=first)
    train(settings)
    start, goes_on = f"starting from the best weights of {settings.from_run}", "going on from step=2-last"
    said = "".join(capfd.readouterr()).splitlines()
    assert start in said and goes_on not in said
    sizes = [len(items) for items in NETWORKS[settings.network].read_training(settings)]
    assert "training on {:,} items, validation with {:,}".format(*sizes) in said
    train(change(settings, resume=True, training={"max_steps": 4}))
    said = "".join(capfd.readouterr()).splitlines()
    assert start not in said and goes_on in said


def test_in_bf16_the_network_is_bfloat16_and_the_optimizer_steps_float32(tiny, train, pretrained):
    trained = train(tiny(training={"precision": "bf16"}))
    assert {weight.dtype for weight in trained.end.values()} == {torch.bfloat16}
    assert trained.main_dtypes == {torch.float32}
    assert column(trained.rows, names.TRAIN_LOSS) == pytest.approx(column(pretrained.rows, names.TRAIN_LOSS), rel=0.05)
    assert pretrained.main_dtypes == {weight.dtype for weight in pretrained.end.values()} == {torch.float32}


@pytest.mark.parametrize("clip_grad", [0.0, 1.0])
def test_a_training_that_diverges_ends_in_words(clip_grad, tiny, train):
    settings = tiny(training={"lr": 1e30, "clip_grad": clip_grad})
    with pytest.raises(UserError, match=r"diverged: in step 2 the gradients were not finite.*lower --training\.lr"):
        train(settings)
    assert not (Path(settings.run_dir) / names.CHECKPOINTS_FOLDER).exists()


def test_an_evaluation_that_is_no_number_ends_in_words(tiny, train, pretrained, monkeypatch):
    """Or else the first of many validations that are no number would be the best one for ever."""
    of_totals = LossReduction.of_totals

    def spoilt(self, totals):
        return of_totals(self, totals if torch.is_grad_enabled() else totals * float("nan"))

    monkeypatch.setattr(LossReduction, "of_totals", spoilt)
    settings = tiny()
    with pytest.raises(UserError, match=r"val_loss of global batch 1 is nan: look for NaN in its items"):
        train(settings)
    assert not (Path(settings.run_dir) / names.CHECKPOINTS_FOLDER).exists()
    with pytest.raises(UserError, match="test_loss of global batch 1 is nan"):
        evaluate(pretrained.settings)


@pytest.mark.parametrize(
    ("sizes", "steps"),
    [({}, {}), ({"hidden_dropout": 0.1}, {"micro_batch_size": 8}), ({}, {"precision": "bf16", "micro_batch_size": 16})],
)
def test_a_recorded_step_equals_a_computed_one_to_the_last_bit(sizes, steps, tiny, tmp_path):
    """On a GPU; where there is none, that nothing is recorded and a training is the same twice."""
    accelerator = "gpu" if torch.cuda.device_count() else "cpu"

    def run(name, **graph):
        run_dir = str(tmp_path / name)
        settings = tiny(accelerator=accelerator, model=sizes, run_dir=run_dir, training={**steps, **graph})
        logs = tmp_path / f"{name}-logs"
        [ended] = run_ranks(in_ranks.replayed, settings, processes=1, logs=logs, accelerator=accelerator)
        return *ended, read_rows(Path(run_dir))

    replays, weights, rows = run("recorded")
    assert replays == (TINY.training.max_steps - 1 if accelerator == "gpu" else 0)  # all but the first
    assert run("computed", cuda_graph=False) == (0, weights, rows)
    assert len(rows) == 22


def test_loader_processes_change_nothing(tiny, train):
    short = {"max_steps": 4, "val_check_interval": 2}
    alone = train(tiny(run_dir=tiny().run_dir + "-alone", training=short))
    helped = train(tiny(training=short, data={"num_workers": 2}))
    assert helped.rows == alone.rows


def test_a_machine_with_many_cores_changes_nothing(tiny, train, pretrained, monkeypatch):
    """Lightning then warns that more processes could load, and warnings are errors here."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(64)))
    trained = train(tiny())
    assert trained.rows == pretrained.rows
    evaluate(trained.settings)
