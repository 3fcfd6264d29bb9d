"""The sample: what its attribution says, whole or not at all, and as much of it as the network can use."""

import lzma
import re
from collections import Counter
from dataclasses import replace

import pytest
from conftest import change

from {{cookiecutter.__package_name}}.contracts.item import DataError, Index, Indices
from {{cookiecutter.__package_name}}.model.dataset import read_test, read_training
from {{cookiecutter.__package_name}}.model.item import TOKENS
from {{cookiecutter.__package_name}}.model.reading import locations
from {{cookiecutter.__package_name}}.model.settings import FINETUNE, LOCATIONS, Settings

WHOLE = change(FINETUNE, model={"classes": list(LOCATIONS), "max_length": 514})
NUMBERS = {"train": 7_978, "validation": 615, "test": 1_249}


@pytest.fixture(scope="module")
def splits():
    """The labelled proteins by split."""
    return {"test": read_test(WHOLE), **dict(zip(("train", "validation"), read_training(WHOLE), strict=True))}


@pytest.fixture
def sample(tmp_path, monkeypatch):
    """A copy of the sample that a test can damage."""
    copy = tmp_path / locations.SAMPLE.name
    copy.write_bytes(locations.SAMPLE.read_bytes())
    monkeypatch.setattr(locations, "SAMPLE", copy)
    return copy


def labels(dataset):
    return dataset.__getitems__(Indices(list(range(len(dataset))), [0] * len(dataset), 0))["label"].tolist()


def test_the_splits_hold_what_their_attribution_says(splits):
    assert {split: len(dataset) for split, dataset in splits.items()} == NUMBERS
    page = (locations.SAMPLE.parent / "ATTRIBUTION.md").read_text(encoding="utf-8")
    rows = {label: numbers for label, *numbers in re.findall(r"\| (\w+) \| ([\d,]+) \| ([\d,]+) \| ([\d,]+) \|", page)}
    counts = {split: Counter(labels(dataset)) for split, dataset in splits.items()}
    for number, label in enumerate(LOCATIONS):
        assert rows[label] == [f"{counts[split][number]:,}" for split in NUMBERS]
    assert rows["all"] == [f"{number:,}" for number in NUMBERS.values()]


def test_no_protein_is_in_two_splits_or_twice_in_one(splits):
    proteins = [dataset.proteins for dataset in splits.values()]
    sequences = [part.get("tokens", n).tobytes() for part in proteins for n in range(len(part))]
    names = [part.name(n) for part in proteins for n in range(len(part))]
    assert len(set(sequences)) == len(set(names)) == len(names) == sum(NUMBERS.values())
    assert max(map(len, sequences)) == 512


def test_proteins_have_their_names_sequences_and_locations(splits):
    test = splits["test"]
    for position, name, begins, label in (
        (0, "A0A178VEK7", "MRKMEAKKEE", "nucleus"),
        (2, "A0A2K3DZC4", "MNSAALNARTA", "plastid"),
    ):
        item = test[Index(position)]
        residues = "".join(TOKENS[token] for token in item["tokens"][1 : len(begins) + 1])
        assert (test.name(position), residues, LOCATIONS[item["label"]]) == (name, begins, label)


def test_pretraining_reads_all_proteins_that_are_no_test(splits):
    train, validation = read_training(Settings())
    assert (len(train), len(validation), len(read_test(Settings()))) == tuple(NUMBERS.values())
    assert train.name(5) == splits["train"].name(5)


def test_classes_may_be_some_of_the_locations_in_any_order(splits):
    settings = change(FINETUNE, model={"classes": ["secreted", "nucleus"]})
    train, validation = read_training(settings)
    whole = Counter(labels(splits["train"]))
    secreted, nucleus = map(LOCATIONS.index, ("secreted", "nucleus"))
    assert Counter(labels(train)) == {0: whole[secreted], 1: whole[nucleus]}
    assert (len(validation), len(read_test(settings))) == (274, 543)


def test_classes_that_the_sample_has_not_are_told():
    with pytest.raises(DataError, match=r"--model\.classes: the sample has no 'golgi', only cytoplasm, nucleus, sec"):
        read_training(change(FINETUNE, model={"classes": ["nucleus", "golgi"]}))


@pytest.mark.parametrize("network", ["sequence_regressor", "residue_classifier", "residue_regressor"])
def test_networks_that_the_sample_has_no_labels_for_are_told(network):
    with pytest.raises(DataError, match=rf"the sample has no labels for {network}: set --data\.train_file"):
        read_training(replace(FINETUNE, network=network))


@pytest.mark.parametrize("damage", ["missing", "cut", "altered", "folder"])
def test_a_damaged_sample_is_told(sample, damage):
    content = sample.read_bytes()
    sample.unlink()
    if damage == "cut":
        sample.write_bytes(content[:-100])
    elif damage == "altered":
        sample.write_bytes(lzma.compress(lzma.decompress(content).replace(b"nucleus", b"plastid", 1), preset=0))
    elif damage == "folder":
        sample.mkdir()
    told = {"missing": "is missing", "altered": "is damaged"}.get(damage, "cannot be read")
    with pytest.raises(DataError, match=rf"proteins\.csv\.xz {told}.*: restore it from git, or re") as error:
        read_test(Settings())
    assert "\n" not in str(error.value)


def test_the_sample_is_small():
    assert locations.SAMPLE.stat().st_size <= 2_000_000
