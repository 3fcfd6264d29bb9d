"""`predict` of the user's files, without labels, in their order, in any layout; and the features of each layer."""

import csv
import gzip
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import arrays_of, change, run
from results.best_network import best_network

from {{cookiecutter.__package_name}}.contracts.names import OUTPUTS_FILE, SETTINGS_FILE
from {{cookiecutter.__package_name}}.contracts.settings import ParallelSettings
from {{cookiecutter.__package_name}}.model.item import AMINO_ACIDS
from {{cookiecutter.__package_name}}.model.reading.encoding import encode
from {{cookiecutter.__package_name}}.model.reading.labels import LabelReader
from {{cookiecutter.__package_name}}.model.reading.rows import with_ends
from {{cookiecutter.__package_name}}.model.settings import Settings
from {{cookiecutter.__package_name}}.proof.ranks import run_ranks
from {{cookiecutter.__package_name}}.results.evaluate import predict
from {{cookiecutter.__package_name}}.training.run_settings import save_settings

pytestmark = pytest.mark.slow

LENGTHS = (5, 46, 12, 1, 60, 33, 7)
"""Residues of the proteins to predict; a row holds 46 of them."""
NAMES = [f"protein-{n}" for n in range(len(LENGTHS))]


def sequences():
    random = np.random.default_rng(4)
    return ["".join(random.choice(list(AMINO_ACIDS), length)) for length in LENGTHS]


@pytest.fixture
def fasta(tmp_path):
    path = tmp_path / "new.fasta.gz"
    text = "".join(f">{name} of nobody\n{seq}\n" for name, seq in zip(NAMES, sequences(), strict=True))
    path.write_bytes(gzip.compress(text.encode()))
    return path


@pytest.fixture
def copy(tmp_path):
    """Copy a run, with other settings if given."""

    def copy(trained, **changes):
        folder = Path(shutil.copytree(trained.folder, tmp_path / "copy" / "run"))
        save_settings(change(trained.settings, **changes), folder)
        return folder

    return copy


def read(folder, stem="predictions-new"):
    """Return the columns and the arrays of a prediction."""
    with (folder / f"{stem}.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    arrays = folder / f"{stem}.npz"
    return {name: [row[name] for row in rows] for name in rows[0]}, arrays_of(arrays) if arrays.exists() else {}


def outputs_alone(settings, sequence):
    """Return what the network of a run makes of one protein without padding, of which 46 residues are read."""
    letters = np.frombuffer(encode(sequence.encode()), np.uint8)
    seen = letters if len(letters) <= 46 else np.concatenate((letters[:23], letters[-23:]))
    tokens = torch.tensor(with_ends(seen))[None]
    with torch.no_grad():
        return best_network(settings)({"tokens": tokens, "sequence": torch.ones_like(tokens), "idx": torch.zeros(1)})


def test_any_file_is_predicted_in_its_order_beside_the_test_set(finetuned, copy, fasta, megatron_later, capfd):
    folder = copy(finetuned)
    words = ["--from", folder, "--training.global_batch_size", 4, "--embeddings", "sequence"]
    assert run("predict", *words, "--input", fasta) == 0
    told = capfd.readouterr()
    assert told.out == "wrote {0}.csv and {0}.npz\n".format(folder / "predictions-new-sequence")
    assert "have more than 46 residues: only so many are read, at both ends (a network with --model" in told.err
    columns, arrays = read(folder, "predictions-new-sequence")
    assert columns["name"] == NAMES == arrays["name"].tolist() and set(columns["label"]) == {""}
    megatron_later()
    for n, sequence in enumerate(sequences()):
        alone = outputs_alone(finetuned.settings, sequence)
        mean = alone["hidden"][0, 1:-1].mean(dim=0)
        np.testing.assert_allclose(arrays["embedding"][n], mean, rtol=1e-4, atol=1e-5)
        probability = alone["logits"].softmax(dim=1)[0]
        found = [float(columns[f"probability_{name}"][n]) for name in finetuned.settings.model.classes]
        np.testing.assert_allclose(found, probability, atol=2e-6)
        assert columns["prediction"][n] == finetuned.settings.model.classes[int(probability.argmax())]


@pytest.fixture
def megatron_later(request):
    """Set Megatron up when the command has ended, which has its own."""
    return lambda: request.getfixturevalue("megatron")


def test_a_table_without_labels_gives_what_the_same_fasta_gives(finetuned, copy, fasta, tmp_path):
    folder = copy(finetuned)
    lines = [f"{seq}\t{name}" for name, seq in zip(NAMES, sequences(), strict=True)]
    (tmp_path / "same.tsv").write_text("\n".join(["protein\tid", *lines]))
    columns = ["--data.sequence_column", "protein", "--data.name_column", "id"]
    assert run("predict", "--from", folder, "--input", fasta) == 0
    assert run("predict", "--from", folder, "--input", tmp_path / "same.tsv", *columns) == 0
    assert read(folder, "predictions-same") == read(folder)


def test_a_packed_run_gives_features_of_each_residue_without_masks(pretrained, copy, fasta, megatron_later):
    folder = copy(pretrained, data={"pack": 120})
    assert run("predict", "--from", folder, "--input", fasta, "--embeddings", "residue") == 0
    columns, arrays = read(folder, "predictions-new-residue")
    whole = {"idx": [str(n) for n in range(len(NAMES))], "name": NAMES}
    assert columns == {**whole, "positions": ["1-5", "1-46", "1-12", "1-1", "1-23 38-60", "1-33", "1-7"]}
    offsets = arrays["embedding_offsets"]
    assert np.array_equal(arrays["position_offsets"], offsets)
    assert np.diff(offsets).tolist() == [min(length, 46) for length in LENGTHS]
    megatron_later()
    for n, sequence in enumerate(sequences()):
        alone = outputs_alone(pretrained.settings, sequence)["hidden"][0, 1:-1]
        position = arrays["position"][offsets[n] : offsets[n + 1]]
        seen = sequence if len(sequence) <= 46 else sequence[:23] + sequence[-23:]
        assert "".join(sequence[place - 1] for place in position) == seen
        found = arrays["embedding"][offsets[n] : offsets[n + 1]]
        np.testing.assert_allclose(found, alone, rtol=1e-4, atol=1e-5)


LAYOUTS = {
    "data 2": ParallelSettings(devices=2),
    "pipeline 2": ParallelSettings(devices=2, pipeline=2),
    "sequence 2": ParallelSettings(devices=2, tensor=2, sequence=True),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_features_of_a_layer_in_the_same_order(layout, pretrained, copy, fasta, tmp_path):
    folder = copy(pretrained)
    asked = {"run_dir": str(folder), "input": str(fasta), "embeddings": "residue", "layer": 1}
    settings = change(pretrained.settings, training={"global_batch_size": 4}, **asked)
    predict(settings)
    columns, alone = read(folder, "predictions-new-residue-layer1")
    run_ranks(predict, change(settings, parallel=vars(LAYOUTS[layout])), processes=2, logs=tmp_path / "logs")
    again, together = read(folder, "predictions-new-residue-layer1")
    assert again == columns and together.keys() == alone.keys()
    for name, array in alone.items():
        if array.dtype.kind == "f":
            np.testing.assert_allclose(together[name], array, rtol=1e-5, atol=1e-5)
        else:
            assert np.array_equal(together[name], array)


def test_residues_are_scored_where_they_have_labels_and_predicted_everywhere(train, tiny, tmp_path, capfd):
    classes = ["coil", "helix"]
    rows = ["name,sequence,label,seen"]
    for name, sequence in zip(NAMES, sequences(), strict=True):
        labels = " ".join(classes[letter in "AELM"] for letter in sequence)
        rows.append(f"{name},{sequence},{labels},{'01' * (len(sequence) // 2)}{'1' * (len(sequence) % 2)}")
    (tmp_path / "table.csv").write_text("\n".join(rows))
    files = dict.fromkeys(("train_file", "validation_file", "test_file"), str(tmp_path / "table.csv"))
    steps = {"max_steps": 2, "val_check_interval": 2, "warmup_steps": 1}
    data = {**files, "mask_column": "seen"}
    trained = train(tiny(network="residue_classifier", data=data, model={"classes": classes}, training=steps))
    assert run("evaluate", "--from", trained.folder) == 0
    assert "test_auroc 0." in capfd.readouterr().out
    kept = arrays_of(trained.folder / OUTPUTS_FILE)
    assert kept["is_labelled"].sum() == sum((min(length, 46) + 1) // 2 for length in LENGTHS)
    assert run("predict", "--from", trained.folder) == 0
    columns, arrays = read(trained.folder, "predictions")
    reader = LabelReader("residue_classifier", classes)
    assert columns["positions"][3:5] == ["1-1", "1-23 38-60"]
    start = 0
    for text, length in zip(columns["prediction"], LENGTHS, strict=True):
        labels, _ = reader.read(text, None, min(length, 46))
        probability = arrays["probability"][start : start + len(labels)]
        assert probability.argmax(axis=1).tolist() == labels.tolist()
        start += len(labels)
    assert start == arrays["probability_offsets"][-1] == len(arrays["probability"])


def test_what_cannot_be_predicted_is_one_line(pretrained, copy, refused):
    folder = copy(pretrained)
    told = f"the network of {folder}, masked, predicts nothing for an item but its features: add --embeddings sequence"
    assert told in refused("predict", "--from", folder)
    layers = pretrained.settings.model.num_layers
    for layer in (-1, layers + 1):
        answer = refused("predict", "--from", folder, "--embeddings", "sequence", "--layer", layer)
        assert f"--layer {layer} must be from 0 to {layers}" in answer
    assert "--layer 1 is of features: add --embeddings" in refused("predict", "--from", folder, "--layer", 1)
    answer = refused("predict", "--from", folder, "--embeddings", "residue", "--input", "no.fasta")
    assert "no.fasta cannot be read (No such file or directory)" in answer
    for command in ("evaluate", "pretrain"):
        answer = refused(command, "--run_dir", folder, "--input", "new.fasta")
        assert "--input is for predict only: for figures of other proteins than those to test with" in answer
        assert "set --data.test_file" in answer


def test_what_was_asked_of_one_prediction_is_not_saved(tmp_path):
    save_settings(change(Settings(), input="new.fasta", embeddings="residue", layer=2), tmp_path)
    saved = (tmp_path / SETTINGS_FILE).read_text().splitlines()
    assert not {"input", "embeddings", "layer"} & {line.split(":")[0] for line in saved}
