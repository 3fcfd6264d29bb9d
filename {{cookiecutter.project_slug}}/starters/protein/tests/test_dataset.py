"""The items of every network: what the contract says, one by one and in batches, packed and padded."""

import multiprocessing
import os
from collections import Counter

import numpy as np
import pytest
import torch
from conftest import change

from {{cookiecutter.__package_name}}.contracts.item import DataError, Index, Indices, checked, keys_of
from {{cookiecutter.__package_name}}.contracts.view import collate
from {{cookiecutter.__package_name}}.model import item
from {{cookiecutter.__package_name}}.model.dataset import items, prepare, read_proteins, read_test, read_training
from {{cookiecutter.__package_name}}.model.item import AMINO_ACIDS, CLS, EOS, MASK, PAD, TOKENS
from {{cookiecutter.__package_name}}.model.reading import locations
from {{cookiecutter.__package_name}}.model.settings import Settings

ITEMS = {
    "masked": item.MaskedItem,
    "sequence_classifier": item.ClassItem,
    "sequence_regressor": item.ValueItem,
    "residue_classifier": item.ResidueClassItem,
    "residue_regressor": item.ResidueValueItem,
}
LENGTHS = [*range(1, 40), 100, 3, 18, 30, 19, 1]
"""Residues of the proteins of the tables here; --model.max_length is 20."""


@pytest.fixture
def table(tmp_path):
    """A table with a column of labels for each network."""
    random = np.random.default_rng(0)
    rows = ["name,sequence,seen,sequence_classifier,sequence_regressor,residue_classifier,residue_regressor"]
    for n, length in enumerate(LENGTHS):
        classes = ("ab" * length)[:length]
        sequence = "".join(random.choice(list(AMINO_ACIDS), length))
        numbers = " ".join(map(str, range(length)))
        seen = "".join(random.choice(list("01"), length))
        rows.append(f"p{n},{sequence},{seen},{'ab'[n % 2]},{n / 2},{classes},{numbers}")
    path = tmp_path / "table.csv"
    path.write_text("\n".join(rows))
    return path


def settings_for(table, network="masked", pack=0, **data):
    label = {} if network == "masked" else {"label_column": network}
    return change(
        Settings(),
        network=network,
        data={"train_file": str(table), "validation_size": 5, "pack": pack, **label, **data},
        model={"max_length": 20, "classes": ["a", "b"]},
    )


def take(dataset, positions, epoch=0, seed=0):
    return dataset.__getitems__(Indices(positions, [epoch] * len(positions), seed))


def assert_same(a, b):
    """Equal keys, dtypes, shapes and bits."""
    assert a.keys() == b.keys()
    for key in a:
        assert a[key].dtype == b[key].dtype, key
        assert torch.equal(a[key], b[key]), key


def proteins_in(batch, *keys):
    """Return what some keys say of each protein of a batch, in order."""
    found = []
    for n, sequence in enumerate(batch["sequence"]):
        for number in range(1, int(sequence.max()) + 1):
            found.append([batch[key][n][sequence == number].tolist() for key in keys])
    return found


def text(tokens):
    return "".join(TOKENS[token] for token in tokens)


def test_the_table_has_all_kinds_of_lengths(table):
    proteins = read_proteins(str(table), settings_for(table))
    assert proteins.lengths(0, len(proteins)).tolist() == LENGTHS


# Items


@pytest.mark.parametrize(("network", "pack"), [*((network, 0) for network in ITEMS), ("masked", 96)])
def test_items_are_what_the_contract_says(table, network, pack):
    settings = settings_for(table, network, pack)
    sizes = {"sequence_length": settings.sequence_length, "num_labels": 2}
    keys = keys_of(ITEMS[network], sizes.get)
    for dataset in read_training(settings):
        positions = list(range(len(dataset)))
        batch = take(dataset, positions)
        assert checked({**batch, "idx": torch.arange(len(dataset))}, keys)
        assert_same(batch, collate([dataset[Index(position)] for position in positions]))


@pytest.mark.parametrize(("network", "pack"), [("masked", 0), ("masked", 96), ("sequence_classifier", 0)])
def test_proteins_stand_between_their_ends_and_padding_follows(table, network, pack):
    dataset, _ = read_training(settings_for(table, network, pack))
    batch = take(dataset, list(range(len(dataset))))
    for tokens, sequence in zip(batch["tokens"], batch["sequence"], strict=True):
        held = int((sequence > 0).sum())
        assert (sequence[held:] == 0).all() and (tokens[held:] == PAD).all()
        assert (sequence[:held].diff() >= 0).all()
        for number in range(1, int(sequence.max()) + 1):
            protein = tokens[sequence == number].tolist()
            assert (protein[0], protein[-1]) == (CLS, EOS) and 3 <= len(protein) <= 20
            assert not {CLS, EOS, PAD} & set(protein[1:-1])


def test_what_is_masked_is_to_be_guessed_and_nothing_else_is_changed(table):
    dataset, _ = read_training(settings_for(table, mask_probability=0.5))
    batch = take(dataset, list(range(len(dataset))))
    tokens, targets, is_masked = batch["tokens"], batch["targets"], batch["is_masked"]
    assert torch.equal(tokens[~is_masked], targets[~is_masked])
    assert (tokens[is_masked] == MASK).float().mean() > 0.6
    assert not (targets == MASK).any() and (targets[is_masked] > EOS).all()


def test_without_masks_nothing_is_changed_and_both_ends_are_seen(table):
    dataset, _ = read_training(settings_for(table, mask_probability=0.0))
    long = LENGTHS.index(39)
    read, whole = dataset[Index(long, 1, 2)], dataset.proteins.get("tokens", long).tolist()
    assert read["tokens"].tolist() == read["targets"].tolist() == [CLS, *whole[:9], *whole[-9:], EOS]
    assert not read["is_masked"].any()


def test_packed_and_padded_proteins_are_the_same_and_have_the_same_masks(table):
    keys = "tokens", "targets", "is_masked"
    for part in (0, 1):
        padded, packed = (read_training(settings_for(table, pack=pack))[part] for pack in (0, 96))
        assert len(packed) < len(padded)
        for epoch in (0, 2):
            one, other = (take(dataset, list(range(len(dataset))), epoch, 7) for dataset in (padded, packed))
            assert proteins_in(one, *keys) == proteins_in(other, *keys)


def test_what_is_drawn_depends_on_seed_epoch_and_protein_only(table):
    dataset, _ = read_training(settings_for(table))
    long = LENGTHS.index(39), LENGTHS.index(39) - 1
    drawn = dataset[Index(long[0], 1, 2)]
    assert_same(drawn, {key: value[1] for key, value in take(dataset, [long[1], long[0]], 1, 2).items()})
    for index in (Index(long[0], 2, 2), Index(long[0], 1, 3)):
        assert not torch.equal(dataset[index]["is_masked"], drawn["is_masked"])


def test_a_window_of_a_protein_that_is_too_long_is_drawn_in_each_epoch(table):
    dataset, _ = read_training(settings_for(table))
    long = LENGTHS.index(39)
    whole = text(dataset.proteins.get("tokens", long))
    starts = Counter()
    for epoch in range(300):
        seen = text(dataset[Index(long, epoch)]["targets"][1:-1].tolist())
        assert len(seen) == 18 and seen in whole
        starts[whole.index(seen)] += 1
    assert set(starts) == set(range(39 - 18 + 1))


@pytest.mark.parametrize("network", ["sequence_classifier", "residue_classifier", "residue_regressor"])
def test_labelled_proteins_that_are_too_long_lose_their_middle(table, network):
    dataset, _ = read_training(settings_for(table, network, mask_column="seen"))
    long = LENGTHS.index(39)
    read, whole = dataset[Index(long)], dataset.proteins.get("tokens", long).tolist()
    assert read["tokens"].tolist() == [CLS, *whole[:9], *whole[-9:], EOS]
    if network != "sequence_classifier":
        seen = dataset.proteins.get("is_labelled", long)
        label = np.arange(39) * seen % (2 if network == "residue_classifier" else 39)
        for key, values in (("is_labelled", seen.tolist()), ("label", label.tolist())):
            assert read[key].tolist() == [0, *values[:9], *values[-9:], 0]


def test_labels_are_those_of_the_table(table):
    for network in ("sequence_classifier", "sequence_regressor"):
        dataset, validation = read_training(settings_for(table, network))
        label = torch.cat([take(part, list(range(len(part))))["label"] for part in (dataset, validation)])
        expected = [n % 2 if network == "sequence_classifier" else n / 2 for n in range(len(LENGTHS))]
        assert label.tolist() == expected and dataset[Index(0)]["is_labelled"]
    dataset, _ = read_training(settings_for(table, "residue_classifier"))
    five = dataset[Index(LENGTHS.index(5))]
    assert five["label"].tolist() == [0, 0, 1, 0, 1, 0, *[0] * 14]
    assert five["is_labelled"].tolist() == [False, *[True] * 5, *[False] * 14]


@pytest.mark.parametrize("network", ITEMS)
def test_proteins_without_labels_are_items_too(tmp_path, network):
    (tmp_path / "new.fasta").write_text(">x\nACDEF\n")
    settings = change(Settings(), network=network)
    dataset = items(read_proteins(str(tmp_path / "new.fasta"), settings, labelled=False), settings)
    keys = keys_of(ITEMS[network], {"sequence_length": settings.sequence_length, "num_labels": 6}.get)
    batch = checked({**take(dataset, [0]), "idx": torch.zeros(1, dtype=torch.int64)}, keys)
    assert not batch.get("label", torch.zeros(1)).any() and not batch.get("is_labelled", torch.zeros(1)).any()


def test_items_have_the_names_of_their_proteins(table):
    padded, validation = read_training(settings_for(table))
    packed, _ = read_training(settings_for(table, pack=96))
    labelled, _ = read_training(settings_for(table, "sequence_classifier"))
    assert (padded.name(3), labelled.name(3), validation.name(0)) == ("p3", "p3", f"p{len(LENGTHS) - 5}")
    assert packed.name(0).split() == ["p0", "p1", "p2", "p3"]
    assert " ".join(packed.name(row) for row in range(len(packed))).split() == [f"p{n}" for n in range(len(padded))]


@pytest.mark.parametrize("network", ["masked", "sequence_classifier"])
def test_positions_outside_are_refused(table, network):
    dataset, _ = read_training(settings_for(table, network))
    for position in (-1, len(dataset)):
        with pytest.raises(IndexError):
            take(dataset, [0, position])
        with pytest.raises(IndexError):
            dataset[Index(position)]


@pytest.mark.parametrize("network", ["masked", "residue_regressor"])
def test_items_do_not_share_memory_with_the_file(table, network):
    dataset, _ = read_training(settings_for(table, network))
    before = dataset[Index(3)]
    for value in dataset[Index(3)].values():
        value.fill_(1)
    assert_same(dataset[Index(3)], before)


def test_a_process_that_is_sent_a_dataset_reads_the_same(table):
    dataset, _ = read_training(settings_for(table, pack=96))
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert_same(pool.apply(dataset.__getitem__, (Index(2, 1, 3),)), dataset[Index(2, 1, 3)])


# Which files are read


@pytest.fixture
def files(tmp_path):
    """Three files, of 4, 3 and 2 proteins."""
    for name, count in (("train", 4), ("validation", 3), ("test", 2)):
        (tmp_path / f"{name}.fasta").write_text("".join(f">{name}{n}\nACD\n" for n in range(count)))
    return {f"{name}_file": str(tmp_path / f"{name}.fasta") for name in ("train", "validation", "test")}


def names(dataset):
    return [dataset.name(position) for position in range(len(dataset))]


@pytest.mark.parametrize("pack", [0, 1_024])
def test_the_last_proteins_of_the_training_file_are_for_validation(files, pack):
    settings = change(Settings(), data={"train_file": files["train_file"], "validation_size": 1, "pack": pack})
    train, validation = read_training(settings)
    assert " ".join(names(train)) == "train0 train1 train2" and names(validation) == ["train3"]


def test_a_file_for_validation_leaves_the_training_file_whole(files):
    train, validation = read_training(change(Settings(), data=files))
    assert names(train) == ["train0", "train1", "train2", "train3"]
    assert names(validation) == ["validation0", "validation1", "validation2"]
    assert names(read_test(change(Settings(), data=files))) == ["test0", "test1"]


@pytest.mark.parametrize("network", ["masked", "residue_regressor"])
def test_a_fingerprint_tells_what_is_in_the_middle_and_not_where_or_when_it_was_written(network, table, tmp_path):
    def printed(path):
        return read_training(settings_for(path, network))[0].fingerprint()

    (tmp_path / "copy").mkdir()
    copy, text = tmp_path / "copy" / "other name.csv", table.read_text()
    copy.write_text(text)
    os.utime(copy, ns=(0, 0))
    assert printed(copy) == printed(table)
    line = text.splitlines()[3]
    changed = line[:-1] + "9" if network != "masked" else line.replace(line.split(",")[1], line.split(",")[1][::-1])
    copy.write_text(text.replace(line, changed))
    assert printed(copy) != printed(table)
    copy.write_text(text.replace("p2,", "x2,"))
    assert printed(copy) == printed(table), "a name is nothing that is learned from"


@pytest.mark.parametrize(("count", "validated"), [(2, 1), (4, 1), (1_000, 200), (4_500, 800)])
def test_no_more_than_a_fifth_validates_if_nobody_says_how_many(count, validated, tmp_path):
    (tmp_path / "some.fasta").write_text(">x\nACD\n" * count)
    train, validation = read_training(change(Settings(), data={"train_file": str(tmp_path / "some.fasta")}))
    assert (len(train), len(validation)) == (count - validated, validated)


@pytest.mark.parametrize("size", [0, 4, 800])
def test_a_validation_size_that_leaves_nothing_is_told(files, size):
    settings = change(Settings(), data={"train_file": files["train_file"], "validation_size": size})
    with pytest.raises(DataError, match=rf"--data\.validation_size {size} must be from 1 to 3: there are 4"):
        read_training(settings)


@pytest.mark.parametrize("name", ["validation_file", "test_file"])
def test_other_files_without_one_to_train_with_do_not_mean_the_sample(files, name):
    with pytest.raises(DataError, match="train_file beside the other files"):
        read_training(change(Settings(), data={name: files[name]}))


def test_a_test_file_that_is_not_set_is_told(files):
    with pytest.raises(DataError, match=r"set --data\.test_file to proteins to test with: .+train\.fasta"):
        read_test(change(Settings(), data={**files, "test_file": None}))


def test_what_is_read_is_prepared_before(files, tmp_path, monkeypatch):
    settings = change(Settings(), data=files)
    prepare(settings)
    assert len(list(tmp_path.glob("*.index/*/meta.json"))) == 3
    monkeypatch.setattr("{{cookiecutter.__package_name}}.model.reading.index._build", lambda *_: pytest.fail("built again"))
    prepare(settings)
    read_training(settings)
    read_test(settings)


def test_how_many_proteins_are_seen_in_windows_is_told_once(table, capsys):
    settings = settings_for(table, validation_file=str(table), test_file=str(table))
    prepare(settings)
    assert capsys.readouterr().err == (
        f"warning: 24 of the {len(LENGTHS)} proteins in {table} have more than 18 residues: each epoch sees another "
        "window of them, of --model.max_length 20 tokens\n"
    )
    prepare(change(settings, data={"mask_probability": 0.0}))  # as `predict` reads
    prepare(change(settings, model={"max_length": 102}))
    assert capsys.readouterr().err == ""


def test_a_file_that_is_missing_is_told_only_when_it_is_read(files):
    settings = change(Settings(), data={**files, "train_file": "no.fasta"})
    prepare(settings)
    assert len(read_test(settings)) == 2
    with pytest.raises(DataError, match=r"no\.fasta cannot be read \(No such file or directory\)"):
        read_training(settings)


def test_preparing_the_sample_writes_nothing():
    before = sorted(locations.SAMPLE.parent.iterdir())
    prepare(Settings())
    read_training(Settings())
    assert sorted(locations.SAMPLE.parent.iterdir()) == before
