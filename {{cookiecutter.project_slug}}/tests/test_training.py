"""Training: what is reported is what plain torch computes, and a run that was stopped ends as if it had not been."""

import csv
import json
import math
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import TINY, change, read_rows
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from {{cookiecutter.__package_name}} import logs, names, training
from {{cookiecutter.__package_name}}.data.dataset import EmbeddedMNIST
from {{cookiecutter.__package_name}}.data.resampling import resample, split_validation
from {{cookiecutter.__package_name}}.errors import UserError
from {{cookiecutter.__package_name}}.run_settings import load_settings
from {{cookiecutter.__package_name}}.runtime.checkpoint import best_checkpoint, step_of

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def digits():
    """The embedded digits by split: what training, validation and test see of them."""
    train, val = split_validation(EmbeddedMNIST(train=True), TINY.data.validation_size)
    return {"train": train, "val": val, "test": EmbeddedMNIST(train=False)}


def column(rows, name):
    return [float(row[name]) for row in rows if row[name]]


def plain_loss(output, batch):
    loss = torch.zeros(())
    if "reconstruction" in output:
        loss = loss + F.mse_loss(output["reconstruction"], batch["data"])
    if "logits" in output:
        loss = loss + F.cross_entropy(output["logits"], batch["label"])
    return loss


def plain_accuracy(output, batch):
    return float((output["logits"].argmax(1) == batch["label"]).float().mean())


def plain_figures(network, items):
    """Return (loss, output) over all items of a dataset at once."""
    batch = items.__getitems__(list(range(len(items))))
    with torch.no_grad():
        output = network(batch["data"])
    return float(plain_loss(output, batch)), output, batch


def plain_rate(step, training):
    """Return the learning rate of a step, counted from 0: linear warm-up, then half a cosine."""
    if step <= training.warmup_steps:
        return training.lr * (step + 1) / (training.warmup_steps + 1)
    way = (step - training.warmup_steps) / (training.max_steps - training.warmup_steps)
    return training.min_lr + (training.lr - training.min_lr) * (1 + math.cos(math.pi * way)) / 2


def plain_training(network, settings, items):
    """Train as the textbook says, with no micro batches and no parts of ours; return the rows of a metrics.csv."""
    training = settings.training
    matrices = [weight for weight in network.parameters() if weight.dim() > 1]
    others = [weight for weight in network.parameters() if weight.dim() == 1]
    groups = [{"params": matrices, "weight_decay": training.weight_decay}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.999), eps=1e-8)
    samples = resample(items, training.max_steps * training.global_batch_size, settings.seed, settings.data.resampling)
    rows = []
    for step in range(training.max_steps):
        for group in optimizer.param_groups:
            group["lr"] = plain_rate(step, training)
        start = step * training.global_batch_size
        batch = torch.utils.data.default_collate([samples[start + i] for i in range(training.global_batch_size)])
        output = network(batch["data"])
        loss = plain_loss(output, batch)
        optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(network.parameters(), training.clip_grad)
        optimizer.step()
        row = {names.TRAIN_LOSS: float(loss.detach()), names.GRAD_NORM: float(norm)}
        row[names.LEARNING_RATE] = plain_rate(step, training)
        if "logits" in output:
            row[names.TRAIN_ACCURACY] = plain_accuracy(output, batch)
        rows.append(row)
    return rows


@pytest.mark.parametrize(
    ("network", "micro_batch_size"),
    [("autoencoder", 32), ("autoencoder", 16), ("autoencoder", 8), ("autoencoder_classifier", 8), ("classifier", 16)],
)
def test_reported_figures_are_those_of_plain_torch(network, micro_batch_size, tiny, train, digits, plain_network):
    steps = {"max_steps": 8, "val_check_interval": 8, "micro_batch_size": micro_batch_size}
    trained = train(tiny(network=network, training=steps))
    plain = plain_network(trained.start)
    expected = plain_training(plain, trained.settings, digits["train"])
    for name in expected[0]:
        values = [row[name] for row in expected]
        assert column(trained.rows, name) == pytest.approx(values, rel=1e-5, abs=1e-5), name
    for name, weight in plain.named_parameters():
        # wider than for the figures: of a gradient near zero, Adam makes a step of up to lr, and so of its rounding too
        torch.testing.assert_close(trained.end[name], weight.detach(), rtol=0, atol=5e-5)
    loss, output, batch = plain_figures(plain_network(trained.end), digits["val"])
    assert column(trained.rows, names.VAL_LOSS) == pytest.approx([loss], abs=1e-6)
    if "logits" in output:
        assert column(trained.rows, names.VAL_ACCURACY) == pytest.approx([plain_accuracy(output, batch)], abs=1e-6)


def test_every_step_is_one_row_and_every_validation_one_more(pretrained):
    assert column(pretrained.rows, names.STEP) == [*range(1, 11), 10, *range(11, 21), 20]
    assert [bool(row[names.VAL_LOSS]) for row in pretrained.rows] == [*[False] * 10, True, *[False] * 10, True]


def test_validation_is_the_plain_mean_over_all_items(pretrained, finetuned, digits, plain_network):
    assert len(digits["val"]) % TINY.training.global_batch_size != 0
    loss, *_ = plain_figures(plain_network(pretrained.end), digits["val"])
    assert column(pretrained.rows, names.VAL_LOSS)[-1] == pytest.approx(loss, abs=1e-6)
    loss, *result = plain_figures(plain_network(finetuned.end), digits["val"])
    assert column(finetuned.rows, names.VAL_LOSS)[-1] == pytest.approx(loss, abs=1e-6)
    assert column(finetuned.rows, names.VAL_ACCURACY)[-1] == pytest.approx(plain_accuracy(*result), abs=1e-6)


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
    trained = train(tiny(network="classifier", training=steps))
    losses = column(trained.rows, names.TRAIN_LOSS)
    assert shown == {step: f"{names.TRAIN_LOSS} {loss:.4g}" for step, loss in enumerate(losses, start=1)}
    board = EventAccumulator(str(trained.folder / names.TENSORBOARD_FOLDER)).Reload()
    for name in (names.TRAIN_LOSS, names.TRAIN_ACCURACY, names.VAL_LOSS, names.VAL_ACCURACY):
        logged = [(int(row[names.STEP]), float(row[name])) for row in trained.rows if row[name]]
        assert [(event.step, pytest.approx(event.value)) for event in board.Scalars(name)] == logged


@pytest.fixture(scope="module")
def scored(finetuned, tmp_path_factory):
    """A copy of the finetuned run after `evaluate` and `predict`, with four micro batches a step and an uneven tail."""
    folder = tmp_path_factory.mktemp("scored") / "run"
    shutil.copytree(finetuned.folder, folder)
    assert step_of(best_checkpoint(folder / names.CHECKPOINTS_FOLDER)) == 20
    batches = {"global_batch_size": 256, "micro_batch_size": 64}
    settings = change(finetuned.settings, run_dir=str(folder), training=batches)
    result = training.evaluate(settings)
    assert training.predict(settings) == folder / names.PREDICTIONS_FILE
    return folder, result


def test_test_figures_are_the_plain_means_over_all_items(scored, finetuned, digits, plain_network):
    folder, result = scored
    loss, *rest = plain_figures(plain_network(finetuned.end), digits["test"])
    expected = {names.TEST_LOSS: loss, names.TEST_ACCURACY: plain_accuracy(*rest), names.NUM_ITEMS: 10_000}
    assert result == pytest.approx(expected, abs=1e-6)
    assert json.loads((folder / names.EVALUATION_FILE).read_text()) == result


def test_the_saved_outputs_are_those_of_the_network_item_by_item(scored, finetuned, digits, plain_network):
    _, output, batch = plain_figures(plain_network(finetuned.end), digits["test"])
    with np.load(scored[0] / names.OUTPUTS_FILE) as arrays:
        assert set(arrays) == {names.IDX, names.LABEL, names.IMAGE, names.LATENT, names.PROBABILITY}
        assert np.array_equal(arrays[names.IDX], np.arange(10_000))
        assert np.array_equal(arrays[names.LABEL], batch["label"].numpy())
        assert np.array_equal(arrays[names.IMAGE], digits["test"].data.numpy())
        np.testing.assert_allclose(arrays[names.LATENT], output["latent"].numpy(), rtol=0, atol=1e-5)
        probability = output["logits"].softmax(1).numpy()
        np.testing.assert_allclose(arrays[names.PROBABILITY], probability, rtol=0, atol=1e-6)


def test_predictions_have_every_item_once_in_order_as_a_plain_forward_says(scored, finetuned, digits, plain_network):
    _, output, batch = plain_figures(plain_network(finetuned.end), digits["test"])
    probability, guess = output["logits"].softmax(1).max(1)
    with (scored[0] / names.PREDICTIONS_FILE).open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["idx", "label", "prediction", "probability"]
    assert [int(row["idx"]) for row in rows] == list(range(10_000))
    assert [int(row["label"]) for row in rows] == batch["label"].tolist()
    assert [float(row["probability"]) for row in rows] == pytest.approx(probability.tolist(), abs=2e-6)
    assert np.mean([int(row["prediction"]) == int(g) for row, g in zip(rows, guess, strict=True)]) > 0.9995  # ties


def test_an_evaluated_autoencoder_saves_its_reconstructions(pretrained, digits, plain_network, tmp_path):
    shutil.copytree(pretrained.folder, tmp_path / "run")
    batches = {"global_batch_size": 512}
    result = training.evaluate(change(pretrained.settings, run_dir=str(tmp_path / "run"), training=batches))
    loss, output, _ = plain_figures(plain_network(pretrained.end), digits["test"])
    assert result == pytest.approx({names.TEST_LOSS: loss, names.NUM_ITEMS: 10_000}, abs=1e-6)
    with np.load(tmp_path / "run" / names.OUTPUTS_FILE) as arrays:
        assert names.PROBABILITY not in arrays
        expected = output["reconstruction"].squeeze(1).clamp(0, 1).mul(255).round().numpy()
        assert np.abs(arrays[names.RECONSTRUCTION].astype(float) - expected).max() <= 1


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
    assert resumed.rows == pretrained.rows  # the same figures to the last digit, and no row twice
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


def test_a_run_of_another_network_is_not_resumed(pretrained, train):
    with pytest.raises(UserError, match=r"--model.latent_size 8, not 4, and keeps what it has"):
        train(change(pretrained.settings, resume=True, model={"latent_size": 4}))


def test_a_start_that_fails_leaves_no_folder(tiny, train, pretrained):
    settings = tiny(from_run=pretrained.settings.run_dir, network="classifier")  # the new head is not named
    with pytest.raises(UserError, match=r"classifier.scores.weight is missing"):
        train(settings)
    assert not Path(settings.run_dir).exists()


def test_a_run_folder_says_what_the_run_was(finetuned):
    assert load_settings(finetuned.folder) == finetuned.settings
    content = {path.name for path in finetuned.folder.iterdir()}
    assert content == {
        names.SETTINGS_FILE,
        names.METRICS_FILE,
        names.CHECKPOINTS_FOLDER,
        names.TENSORBOARD_FOLDER,
    }


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


@pytest.mark.skipif(not torch.cuda.is_available(), reason="only a GPU records its steps")
@pytest.mark.parametrize(
    ("sizes", "steps"),
    [({}, {}), ({"hidden_dropout": 0.1}, {"micro_batch_size": 8}), ({}, {"precision": "bf16", "micro_batch_size": 16})],
)
def test_a_recorded_step_equals_a_computed_one_to_the_last_bit(sizes, steps, tiny, train, monkeypatch):
    def counted(graph):
        replays.append(graph)
        replay(graph)

    replays, replay = [], torch.cuda.CUDAGraph.replay
    monkeypatch.setattr(torch.cuda.CUDAGraph, "replay", counted)
    run = {"accelerator": "gpu", "model": sizes}
    recorded = train(tiny(**run, training=steps))
    assert len(replays) == recorded.result.steps - 1  # all but the first
    computed = train(tiny(**run, run_dir=tiny().run_dir + "-computed", training={**steps, "cuda_graph": False}))
    assert len(replays) == recorded.result.steps - 1
    assert recorded.rows == computed.rows
    assert all(torch.equal(recorded.end[name], computed.end[name]) for name in computed.end)


def test_loader_processes_change_nothing(tiny, train):
    short = {"max_steps": 4, "val_check_interval": 2}
    alone = train(tiny(run_dir=tiny().run_dir + "-alone", training=short))
    helped = train(tiny(training=short, data={"num_workers": 2}))
    assert helped.rows == alone.rows


@pytest.mark.parametrize("kind", ["multi_epoch", "prng"])
def test_bionemo_resamplers_train_as_plain_torch_does(kind, tiny, train, digits, plain_network):
    pytest.importorskip("bionemo.core")
    trained = train(tiny(data={"resampling": kind}, training={"max_steps": 4, "val_check_interval": 4}))
    expected = plain_training(plain_network(trained.start), trained.settings, digits["train"])
    values = [row[names.TRAIN_LOSS] for row in expected]
    assert column(trained.rows, names.TRAIN_LOSS) == pytest.approx(values, abs=1e-5)
