"""What is logged, scored and predicted is what plain torch computes of the digits with the same weights."""

import csv
import json
import math
import shutil

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import TINY, change
from plain_network import plain_network

from {{cookiecutter.__package_name}}.contracts import names
from {{cookiecutter.__package_name}}.contracts.view import Section
from {{cookiecutter.__package_name}}.model.dataset import read_test, read_training
from {{cookiecutter.__package_name}}.model.results import keep, predictions
from {{cookiecutter.__package_name}}.results.evaluate import evaluate, predict
from {{cookiecutter.__package_name}}.runtime.checkpoint import best_checkpoint
from {{cookiecutter.__package_name}}.runtime.seal import step_of
from {{cookiecutter.__package_name}}.training.resampling import resample

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def digits():
    """The embedded digits by split: what training, validation and test see of them."""
    train, val = read_training(TINY)
    test = read_test(TINY)
    return {"train": train, "val": val, "test": Section(test, 0, len(test))}


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
            row["train_accuracy"] = plain_accuracy(output, batch)
        rows.append(row)
    return rows


@pytest.mark.parametrize(
    ("network", "micro_batch_size"),
    [("autoencoder", 32), ("autoencoder", 16), ("autoencoder", 8), ("autoencoder_classifier", 8), ("classifier", 16)],
)
def test_reported_figures_are_those_of_plain_torch(network, micro_batch_size, tiny, train, digits):
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
        assert column(trained.rows, "val_accuracy") == pytest.approx([plain_accuracy(output, batch)], abs=1e-6)


def test_validation_is_the_plain_mean_over_all_items(pretrained, finetuned, digits):
    assert len(digits["val"]) % TINY.training.global_batch_size != 0
    loss, *_ = plain_figures(plain_network(pretrained.end), digits["val"])
    assert column(pretrained.rows, names.VAL_LOSS)[-1] == pytest.approx(loss, abs=1e-6)
    loss, *result = plain_figures(plain_network(finetuned.end), digits["val"])
    assert column(finetuned.rows, names.VAL_LOSS)[-1] == pytest.approx(loss, abs=1e-6)
    assert column(finetuned.rows, "val_accuracy")[-1] == pytest.approx(plain_accuracy(*result), abs=1e-6)


@pytest.fixture(scope="module")
def scored(finetuned, tmp_path_factory):
    """A copy of the finetuned run after `evaluate` and `predict`, with four micro batches a step and an uneven tail."""
    folder = tmp_path_factory.mktemp("scored") / "run"
    shutil.copytree(finetuned.folder, folder)
    assert step_of(best_checkpoint(folder / names.CHECKPOINTS_FOLDER)) == 20
    batches = {"global_batch_size": 256, "micro_batch_size": 64}
    settings = change(finetuned.settings, run_dir=str(folder), training=batches)
    result = evaluate(settings)
    assert predict(settings) == [folder / names.PREDICTIONS_FILE]
    return folder, result


def test_test_figures_are_the_plain_means_over_all_digits(scored, finetuned, digits):
    folder, result = scored
    loss, *rest = plain_figures(plain_network(finetuned.end), digits["test"])
    assert [result["test_loss"], result["test_accuracy"]] == pytest.approx([loss, plain_accuracy(*rest)], abs=1e-6)
    counts = {"test_loss": 10_000, "test_accuracy": 10_000}
    assert (result["num_items"], result["counted"], result["counts"]) == (10_000, "items", counts)
    assert json.loads((folder / names.EVALUATION_FILE).read_text()) == result


def test_the_saved_outputs_are_those_of_the_network_item_by_item(scored, finetuned, digits):
    _, output, batch = plain_figures(plain_network(finetuned.end), digits["test"])
    with np.load(scored[0] / names.OUTPUTS_FILE) as arrays:
        assert set(arrays) == {"idx", "label", "image", "latent", "probability"}
        assert np.array_equal(arrays["idx"], np.arange(10_000))
        assert np.array_equal(arrays["label"], batch["label"].numpy())
        assert np.array_equal(arrays["image"], digits["test"].dataset.data.numpy())
        np.testing.assert_allclose(arrays["latent"], output["latent"].numpy(), rtol=0, atol=1e-5)
        probability = output["logits"].softmax(1).numpy()
        np.testing.assert_allclose(arrays["probability"], probability, rtol=0, atol=1e-6)


def test_predictions_have_every_item_once_in_order_as_a_plain_forward_says(scored, finetuned, digits):
    _, output, batch = plain_figures(plain_network(finetuned.end), digits["test"])
    probability, guess = output["logits"].softmax(1).max(1)
    with (scored[0] / names.PREDICTIONS_FILE).open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["idx", "label", "prediction", "probability"]
    assert [int(row["idx"]) for row in rows] == list(range(10_000))
    assert [int(row["label"]) for row in rows] == batch["label"].tolist()
    assert [float(row["probability"]) for row in rows] == pytest.approx(probability.tolist(), abs=2e-6)
    assert np.mean([int(row["prediction"]) == int(g) for row, g in zip(rows, guess, strict=True)]) > 0.9995  # ties


def test_an_evaluated_autoencoder_saves_its_reconstructions_and_predicts_nothing(pretrained, digits, tmp_path):
    shutil.copytree(pretrained.folder, tmp_path / "run")
    batches = {"global_batch_size": 512}
    result = evaluate(change(pretrained.settings, run_dir=str(tmp_path / "run"), training=batches))
    loss, output, _ = plain_figures(plain_network(pretrained.end), digits["test"])
    assert result["test_loss"] == pytest.approx(loss, abs=1e-6)
    with np.load(tmp_path / "run" / names.OUTPUTS_FILE) as arrays:
        assert set(arrays) == {"idx", "label", "image", "latent", "reconstruction"}
        expected = output["reconstruction"].squeeze(1).clamp(0, 1).mul(255).round().numpy()
        assert np.abs(arrays["reconstruction"].astype(float) - expected).max() <= 1
        assert predictions(dict(arrays)) == {}


def test_images_are_kept_as_they_were_read_and_in_bf16_numbers_as_float32(digits):
    batch = digits["test"].__getitems__([0, 1])
    output = {"latent": torch.ones(2, 8), "reconstruction": 2 * batch["data"] - 0.5, "logits": torch.eye(10)[:2]}
    kept = keep({name: value.bfloat16() for name, value in output.items()}, batch)
    assert torch.equal(kept["image"], digits["test"].dataset.data[:2])
    assert (kept["reconstruction"].min(), kept["reconstruction"].max()) == (0, 255), "what is outside is clipped"
    assert kept["latent"].dtype == kept["probability"].dtype == torch.float32
    torch.testing.assert_close(kept["probability"].sum(1), torch.ones(2))


@pytest.mark.parametrize("kind", ["multi_epoch", "prng"])
def test_bionemo_resamplers_train_as_plain_torch_does(kind, tiny, train, digits):
    pytest.importorskip("bionemo.core", reason="bionemo-core is an extra")
    trained = train(tiny(data={"resampling": kind}, training={"max_steps": 4, "val_check_interval": 4}))
    expected = plain_training(plain_network(trained.start), trained.settings, digits["train"])
    values = [row[names.TRAIN_LOSS] for row in expected]
    assert column(trained.rows, names.TRAIN_LOSS) == pytest.approx(values, abs=1e-5)
