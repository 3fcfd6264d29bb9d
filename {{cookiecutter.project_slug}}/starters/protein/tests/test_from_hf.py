"""Commands with --from_hf: what a folder of transformers brings along, and results that are those of transformers."""

import csv
import json
from dataclasses import replace

import pytest
import torch
from conftest import change, read_rows, run
from theirs import CLASSES, THEIRS, answer, change_config, make, saved, started, weights_of

from {{cookiecutter.__package_name}}.contracts import names
from {{cookiecutter.__package_name}}.contracts.view import Section
from {{cookiecutter.__package_name}}.model.hugging_face.weights import to_hugging_face
from {{cookiecutter.__package_name}}.model.item import TOKENS
from {{cookiecutter.__package_name}}.model.settings import FINETUNE, DataSettings, Settings
from {{cookiecutter.__package_name}}.proof.layouts import train_in_ranks
from {{cookiecutter.__package_name}}.training.train import make_data

HEADS = 4


@pytest.fixture
def folder(tmp_path):
    """A folder of the masked network."""
    return saved(make("masked"), tmp_path / "theirs")


@pytest.mark.parametrize("network", THEIRS)
def test_a_folder_says_which_network_it_is_and_its_classes(network, asked, run_dir, tmp_path):
    saved(make(network), tmp_path)
    assert run("predict", *run_dir, "--from_hf", tmp_path, "--model.max_length", 48) == 0
    [given] = asked
    assert (given.network, given.model.max_length, given.model.num_layers) == (network, 48, 2)
    labels = {"masked": Settings().model.classes, "regressor": ["value"], "classifier": CLASSES}
    assert given.model.classes == labels[network.split("_")[-1]]


@pytest.mark.parametrize(
    ("changes", "network", "classes"),
    [
        ({"problem_type": "regression"}, "sequence_regressor", CLASSES),
        ({"id2label": "left out", "label2id": "left out"}, "sequence_classifier", ["LABEL_0", "LABEL_1"]),
        (
            {"id2label": {str(n): f"c{n}" for n in reversed(range(11))}},
            "sequence_classifier",
            [f"c{n}" for n in range(11)],
        ),
        ({"id2label": {"0": "one"}, "problem_type": "single_label_classification"}, "sequence_classifier", ["one"]),
    ],
)
def test_labels_and_problem_type_decide_as_in_transformers(changes, network, classes, tmp_path):
    change_config(saved(make("sequence_classifier"), tmp_path), **changes)
    taken = Settings(from_hf=str(tmp_path)).from_start()
    assert (taken["network"], taken["model"].classes) == (network, classes)


def test_finetuning_takes_the_sizes_and_keeps_its_own_network(folder, asked, run_dir):
    assert run("finetune", *run_dir, "--from_hf", folder, "--model.pooling", "mean") == 0
    [given] = asked
    assert (given.network, given.new_heads, given.model.pooling) == (FINETUNE.network, FINETUNE.new_heads, "mean")
    assert given.model.hidden_size == 16 and given.model.layernorm_epsilon == 1e-6


@pytest.mark.slow
def test_finetuning_trains_a_new_head_on_the_trunk_and_a_resume_needs_the_folder_no_more(
    train, folder, tmp_path, capsys
):
    steps = {"max_steps": 4, "val_check_interval": 2}
    run_dir = str(tmp_path / "run")
    settings = started(folder, FINETUNE.network, run_dir=run_dir, new_heads=("head",), training=steps)
    trained = train(settings)
    assert f"starting from the weights in {folder}; head: new" in capsys.readouterr().err.splitlines()
    trunk = weights_of(make("masked"))
    found = to_hugging_face(trained.start, FINETUNE.network, HEADS)
    assert all(torch.equal(found[name], trunk[name]) for name in trunk.keys() & found.keys())
    assert "esm.encoder.layer.1.attention.self.key.weight" in trunk.keys() & found.keys()
    folder.rename(tmp_path / "gone")
    resumed = train(change(settings, resume=True, training={"max_steps": 6}))
    assert all(torch.equal(resumed.start[name], weight) for name, weight in trained.end.items())


@pytest.mark.slow
@pytest.mark.parametrize("network", ["sequence_classifier", "residue_regressor"])
def test_a_prediction_is_that_of_transformers(network, tmp_path):
    theirs = make(network)
    table = tmp_path / "proteins.csv"
    proteins = ["MKTAYIAKQRQISFVKSHFSRQ", "MSTNPKPQRKTKRNT", "GAVL"]
    table.write_text("\n".join(["sequence", *proteins]))
    words = ["--run_dir", tmp_path / "out", "--from_hf", saved(theirs, tmp_path / "theirs"), "--input", table]
    assert run("predict", *words, "--accelerator", "cpu", "--model.max_length", 48) == 0
    [written] = (tmp_path / "out").glob("*.csv")
    with written.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for protein, row in zip(proteins, rows, strict=True):
        tokens = torch.tensor([[0, *map(TOKENS.index, protein), 2]])
        logits = answer(theirs, {"tokens": tokens, "sequence": torch.ones_like(tokens)})[0]
        if network == "residue_regressor":
            found = torch.tensor([float(value) for value in row["prediction"].split()])
            torch.testing.assert_close(found, logits[1:-1, 0], rtol=1e-5, atol=1e-5)
        else:
            found = torch.tensor([float(row[f"probability_{name}"]) for name in CLASSES])
            torch.testing.assert_close(found, logits.softmax(-1), rtol=0, atol=1e-5)


@pytest.mark.slow
def test_an_evaluation_scores_what_transformers_answers(tmp_path):
    theirs = make("sequence_classifier")
    folder, out = saved(theirs, tmp_path / "theirs"), tmp_path / "out"
    words = ["--run_dir", out, "--from_hf", folder, "--accelerator", "cpu", "--model.max_length", 48]
    assert run("evaluate", *words) == 0
    data = make_data(replace(started(folder, "sequence_classifier"), data=DataSettings()))
    data.setup("test")
    items = len(data.test)
    batch = Section(data.test, 0, items).__getitems__(list(range(items)))
    loss = torch.nn.functional.cross_entropy(answer(theirs, batch), batch["label"])
    assert json.loads((out / names.EVALUATION_FILE).read_text())["test_loss"] == pytest.approx(float(loss), rel=1e-5)
    assert not (out / names.SETTINGS_FILE).exists()


@pytest.mark.slow
def test_tensor_parallel_ranks_share_the_weights_of_a_folder(folder, train, tmp_path):
    steps = {"max_steps": 2, "val_check_interval": 2, "warmup_steps": 0, "micro_batch_size": 16}
    losses = []
    for parallel in ({}, {"devices": 2, "tensor": 2}):
        run_dir = tmp_path / f"run{len(losses)}"
        settings = started(folder, "masked", run_dir=str(run_dir), training=steps, parallel=parallel)
        train_in_ranks(settings) if parallel else train(settings)
        losses.append([float(row[names.TRAIN_LOSS]) for row in read_rows(run_dir) if row[names.TRAIN_LOSS]])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_a_head_that_answers_something_else_is_refused(run_dir, tmp_path, capfd):
    """Its shapes fit: the classes would be swapped without a word."""
    folder, others = saved(make("sequence_classifier"), tmp_path / "theirs"), CLASSES[::-1]
    words = ["--accelerator", "cpu", "--model.max_length", 48, "--model.classes", str(others)]
    assert run("predict", *run_dir, "--from_hf", folder, *words) == 2
    assert f"--model.classes {others} are not those of {folder}, {CLASSES}" in capfd.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"num_hidden_layers": None}, "num_hidden_layers is null and must be a whole number"),
        ({"hidden_size": "64"}, 'hidden_size is "64" and must be a whole number'),
        ({"layer_norm_eps": True}, "layer_norm_eps is true and must be a number"),
        ({"id2label": {"a": "one"}}, 'id2label is {"a": "one"} and must be names by number'),
    ],
)
def test_a_damaged_config_is_one_line(changes, told, refused, run_dir, tmp_path):
    folder = saved(make("sequence_classifier"), tmp_path / "theirs")
    change_config(folder, **changes)
    assert told in refused("predict", *run_dir, "--from_hf", folder)
