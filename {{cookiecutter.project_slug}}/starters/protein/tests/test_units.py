"""Values in whatever units: learned by their deviation from the mean, answered, scored and exported as they are."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import TINY, change, read_rows, run
from safetensors.torch import load_file
from theirs import make, saved, started

from {{cookiecutter.__package_name}}.contracts import names
from {{cookiecutter.__package_name}}.contracts.item import DataError
from {{cookiecutter.__package_name}}.model.dataset import read_training
from {{cookiecutter.__package_name}}.proof.ranks import run_ranks
from {{cookiecutter.__package_name}}.results.evaluate import evaluate
from {{cookiecutter.__package_name}}.training.train import make_module
from {{cookiecutter.__package_name}}.training.train import train as train_in_ranks

TRAINING = {"max_steps": 60, "warmup_steps": 5, "lr": 1e-2, "val_check_interval": 60, "global_batch_size": 32}


@pytest.fixture
def table(tmp_path):
    """Write proteins whose value, 30 to 90, is how much of them is hydrophobic."""

    def write(name, network="sequence_regressor", count=300, seed=0, scale=60.0, offset=30.0):
        random, path = np.random.default_rng(seed), tmp_path / f"{name}.csv"
        rows = ["sequence,label"]
        for share in random.random(count):
            sequence = "".join(random.choice(list("LIVKDE"), 30, p=np.repeat([share, 1 - share], 3) / 3))
            values = np.array([letter in "LIV" for letter in sequence], float) * scale + offset
            found = [values.mean()] if network.startswith("sequence") else values
            rows.append(f"{sequence},{' '.join(f'{value:.6g}' for value in found)}")
        path.write_text("\n".join(rows))
        return str(path)

    return write


@pytest.fixture
def settings(table, tmp_path):
    def make_settings(network="sequence_regressor", **changes):
        files = {"train_file": table("train", network), "test_file": table("test", network, 40, seed=1)}
        model = {"pooling": "mean", "max_length": 32}
        base = change(TINY, network=network, run_dir=str(tmp_path / "run"), model=model, training=TRAINING)
        return change(base, data={**files, "validation_size": 60}, **changes)

    return make_settings


def labels_of(file):
    with open(file, newline="") as lines:
        return [[float(part) for part in row["label"].split()] for row in csv.DictReader(lines)]


@pytest.mark.parametrize("network", ["sequence_regressor", "residue_regressor"])
def test_units_are_those_of_the_labels_to_train_on(network, settings):
    given = settings(network)
    train, _ = read_training(given)
    labels = np.concatenate(labels_of(given.data.train_file)[:240])
    assert train.units() == pytest.approx((labels.mean(), labels.std()), rel=1e-6)


def test_only_labels_that_count_have_units_and_equal_ones_are_not_divided_by_zero(settings, tmp_path):
    path = tmp_path / "masked.csv"
    path.write_text("sequence,label,seen\n" + "ACD,5 7 999,110\n" * 3)
    data = {"train_file": str(path), "validation_size": 1, "mask_column": "seen"}
    assert read_training(change(settings("residue_regressor"), data=data))[0].units() == (6, 1)
    path.write_text("sequence,label,seen\n" + "ACD,5 5 999,110\n" * 3)
    assert read_training(change(settings("residue_regressor"), data=data))[0].units() == (5, 1)


@pytest.mark.slow
@pytest.mark.parametrize("network", ["sequence_regressor", "residue_regressor"])
def test_labels_in_any_units_are_learned_and_answered_in_these(network, settings, train, capfd):
    given = settings(network, training={"precision": "bf16"} if network.startswith("residue") else {})
    trained = train(given)
    assert run("evaluate", "--from", trained.folder) == 0
    labels = np.concatenate(labels_of(given.data.test_file))
    found = json.loads((trained.folder / names.EVALUATION_FILE).read_text())
    assert found["test_mse"] < 0.3 * labels.var(), "raw labels were not learned"
    _, deviation = read_training(given)[0].units()
    assert found["test_loss"] == pytest.approx(found["test_mse"] / deviation**2, rel=1e-4)
    assert run("predict", "--from", trained.folder) == 0
    column = "value" if network.startswith("sequence") else "prediction"
    with (trained.folder / names.PREDICTIONS_FILE).open(newline="") as file:
        answers = np.concatenate([[float(value) for value in row[column].split()] for row in csv.DictReader(file)])
    assert np.square(answers - labels).mean() == pytest.approx(found["test_mse"], rel=1e-3)
    reference = next(iter(found[names.REFERENCES].values()))
    assert set(reference) == {"mse", "spearman"} and reference["mse"] < labels.var()


@pytest.mark.slow
@pytest.mark.parametrize("layout", [{"tensor": 2, "sequence": True}, {"pipeline": 2}, {}], ids=str)
def test_units_are_the_same_in_every_layout_and_after_a_resume(layout, settings, train, tmp_path):
    few = {"max_steps": 4, "val_check_interval": 2, "micro_batch_size": 8, "log_every_n_steps": 1}
    few |= {"warmup_steps": 0, "min_lr": TRAINING["lr"]}  # the same, whatever the number of steps
    alone = train(settings(training=few))
    split = settings(training=few, run_dir=str(tmp_path / "split"), parallel={"devices": 2, **layout})
    for steps in (2, 4):
        part = change(split, training={"max_steps": steps}, resume=steps > 2)
        run_ranks(train_in_ranks, part, processes=2, logs=tmp_path / f"logs{steps}")
    for mine, other in zip(alone.rows, read_rows(tmp_path / "split"), strict=True):
        assert mine.keys() == other.keys()
        for name in ("val_loss", "val_mse", "reduced_train_loss"):
            assert mine[name] == other[name] == "" or float(mine[name]) == pytest.approx(float(other[name]), rel=1e-4)
    scored = [evaluate(replace(given, parallel=alone.settings.parallel)) for given in (alone.settings, split)]
    assert scored[0]["test_mse"] == pytest.approx(scored[1]["test_mse"], rel=1e-4)


def built(settings, units, start=None, new_heads=("head",)):
    """Build the network of a training on labels in some units."""
    config = make_module(settings, start).config
    config.label_units = units
    return replace(config, new_heads=new_heads).configure_model().eval()


@pytest.mark.parametrize("network", ["sequence_regressor", "residue_regressor"])
def test_a_head_of_a_folder_keeps_its_answers_in_the_units_of_new_labels(network, megatron, tmp_path):
    settings = started(saved(make(network), tmp_path / "theirs"), network)
    batch = {"tokens": torch.tensor([[0, 4, 5, 6, 2]]), "sequence": torch.ones(1, 5, dtype=torch.int64)}
    before, after = (built(settings, units).forward(batch)["logits"] for units in ((0.0, 1.0), (60.0, 12.0)))
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-4)
    new = built(change(settings, redraw_heads=True), (60.0, 12.0)).forward(batch)["logits"]
    assert (new - 60).abs().max() < 12


@pytest.mark.slow
def test_a_head_that_goes_on_keeps_its_units_and_refuses_others(settings, table, train, tmp_path, capfd):
    few = {"max_steps": 2, "val_check_interval": 1, "warmup_steps": 0, "lr": 1e-9, "min_lr": 1e-9}
    first = train(settings())
    same = settings(from_run=str(first.folder), new_heads=("head",), run_dir=str(tmp_path / "again"), training=few)
    again = train(change(same, data={"train_file": table("hot", scale=20.0, offset=70.0)}))
    assert not any("units" in name for name in first.end), "what says the units is no weight to train"
    scored = [evaluate(replace(given, run_dir=str(part.folder))) for given, part in ((same, first), (same, again))]
    assert scored[0]["test_mse"] == pytest.approx(scored[1]["test_mse"], rel=1e-3), "the head answers as before"
    others = change(same, run_dir=str(tmp_path / "others"), data={"train_file": table("other", scale=1.0, offset=0.0)})
    with pytest.raises(DataError, match=r"has learned some of 6.*: start with a new one \(--redraw_heads true\)"):
        train(others)
    train(change(others, redraw_heads=True))


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "pooling"), [("fp32", "first"), ("bf16", "mean")])
def test_an_export_answers_in_the_units_of_the_labels(precision, pooling, settings, train):
    few = {"max_steps": 2, "warmup_steps": 0, "precision": precision}
    trained = train(settings(training=few, model={"pooling": pooling}))
    assert run("export", "--from", trained.folder) == 0
    folder = trained.folder / names.EXPORT_FOLDER
    assert (folder / "load.py").exists(), "it was held against the network"
    file = {"first": (names.WEIGHTS_FILE, "classifier."), "mean": ("head.safetensors", "")}[pooling]
    assert abs(float(load_file(folder / file[0])[f"{file[1]}out_proj.bias"]) - 60) < 10
