"""What finetuned networks are held against: features by hand, and linear models where the answer is known."""

import numpy as np
import pytest
from conftest import change

from {{cookiecutter.__package_name}}.model.item import AMINO_ACIDS
from {{cookiecutter.__package_name}}.model.measures import baseline, letters
from {{cookiecutter.__package_name}}.model.measures.baseline import REACH, kmers, neighbours, of_proteins, of_residues
from {{cookiecutter.__package_name}}.model.measures.letters import LETTERS, letters_of, some
from {{cookiecutter.__package_name}}.model.reading.encoding import encode
from {{cookiecutter.__package_name}}.model.reading.store import UNLABELLED, Record, in_memory
from {{cookiecutter.__package_name}}.model.settings import FINETUNE, LOCATIONS


def chain(*sequences):
    return letters_of(in_memory([Record(b"", encode(text.encode())) for text in sequences], UNLABELLED))


@pytest.fixture
def settings_of(tmp_path):
    """Write (sequence, label) rows as tables, and return the settings of a run that reads them."""

    def write(network, train, validation, test, classes=("a", "b")):
        files = {"train_file": train, "validation_file": validation, "test_file": test}
        for name, rows in files.items():
            text = "\n".join(["sequence,label", *(",".join(row) for row in rows)])
            (tmp_path / f"{name}.csv").write_text(text + "\n")
        data = {name: str(tmp_path / f"{name}.csv") for name in files}
        return change(FINETUNE, network=network, data=data, model={"classes": list(classes)})

    return write


def figures_of(found, name):
    assert list(found) == [name]
    return found[name]


# Features


def test_kmers_are_shares_of_amino_acids_and_of_pairs_within_a_protein():
    features = kmers(chain("LLA", "AXLG"))
    found = {letter: features[:, AMINO_ACIDS.index(letter)].tolist() for letter in "LAG"}
    assert found == {"L": [2 / 3, 1 / 3], "A": [1 / 3, 1 / 3], "G": [0, 1 / 3]}
    pairs = features[:, 60:].reshape(2, 20, 20)
    shares = {(protein, AMINO_ACIDS[a] + AMINO_ACIDS[b]): pairs[protein, a, b] for protein, a, b in np.argwhere(pairs)}
    assert shares == {(0, "LL"): 0.5, (0, "LA"): 0.5, (1, "LG"): 1}
    assert features.shape == (2, 460)


def test_the_ends_of_a_protein_are_thirty_residues_each():
    features = kmers(chain("A" * 30 + "G" * 10 + "V" * 30, "AG"))
    first, last = (features[:, start : start + 20] for start in (20, 40))
    a, g, v = map(AMINO_ACIDS.index, "AGV")
    assert first[0, a] == last[0, v] == 1
    assert first[1, a] == first[1, g] == last[1, a] == last[1, g] == 0.5


def test_a_protein_without_amino_acids_has_no_shares():
    assert not kmers(chain("XX", "L"))[0].any()


def test_neighbours_are_one_letter_for_each_place_and_none_beyond_the_ends():
    features = neighbours(chain("AV", "GJ"), np.array([1, 2])).toarray()
    kinds, places = LETTERS + 2, 2 * REACH + 1
    assert features.shape == (2, kinds * places)
    found = features.reshape(2, places, kinds).argmax(axis=2)
    none, unknown = kinds - 1, 0
    number = {letter: AMINO_ACIDS.index(letter) + 1 for letter in AMINO_ACIDS}
    assert found[0, REACH - 2 : REACH + 2].tolist() == [none, number["A"], number["V"], none]
    assert found[1, REACH - 1 : REACH + 3].tolist() == [none, number["G"], unknown, none]
    assert (features.sum(axis=1) == places).all()


def test_some_positions_are_evenly_spread_and_all_if_they_are_few():
    assert some(3, 5).tolist() == [0, 1, 2]
    assert some(101, 5).tolist() == [0, 25, 50, 75, 100]
    assert len(np.unique(some(1000, 999))) == 999
    assert some(0, 5).tolist() == []


# Models


def proteins_of(count, seed):
    """Return proteins of two classes: of L, I and G, or of L, I and V."""
    random = np.random.default_rng(seed)
    return [("".join(random.choice(list("LIG" if n % 2 else "LIV"), 40)), "ab"[n % 2]) for n in range(count)]


def test_classes_that_composition_tells_apart_are_all_found(settings_of):
    settings = settings_of("sequence_classifier", proteins_of(60, 0), proteins_of(6, 1), proteins_of(30, 2))
    assert figures_of(of_proteins(settings), "k-mers and logistic regression") == {"accuracy": 1, "auroc": 1}


def test_proteins_for_validation_are_learned_from_too(settings_of):
    rows = proteins_of(60, 0)
    settings = settings_of("sequence_classifier", rows[::2], rows[1::2], proteins_of(30, 2))
    assert figures_of(of_proteins(settings), "k-mers and logistic regression")["accuracy"] == 1


def test_of_a_sorted_file_too_not_only_the_first_are_learned_from(settings_of, monkeypatch):
    monkeypatch.setattr(letters, "MOST_PROTEINS", 20)
    rows = sorted(proteins_of(80, 0), key=lambda row: row[1])
    settings = settings_of("sequence_classifier", rows, rows[:1], proteins_of(30, 2))
    assert figures_of(of_proteins(settings), "k-mers and logistic regression")["accuracy"] > 0.9


def test_a_class_that_nothing_was_learned_of_is_never_found(settings_of):
    test = [*proteins_of(30, 2), ("LIVG" * 10, "c")]
    rows = ("sequence_classifier", proteins_of(60, 0), proteins_of(6, 1), test)
    settings = settings_of(*rows, classes=["c", "a", "b"])
    found = figures_of(of_proteins(settings), "k-mers and logistic regression")
    assert found["accuracy"] == 30 / 31
    assert found["auroc"] < 1


def test_there_is_no_classifier_of_a_single_class(settings_of):
    rows = [("LIV", "a"), ("LIG", "a")]
    assert of_proteins(settings_of("sequence_classifier", rows, rows, rows)) == {}


def test_a_value_that_is_a_share_of_residues_is_found(settings_of):
    def rows(count, seed):
        random = np.random.default_rng(seed)
        sequences = ["".join(random.choice(list("LIVG"), 60)) for _ in range(count)]
        return [(text, f"{100 * text.count('L') / 60}") for text in sequences]

    settings = settings_of("sequence_regressor", rows(3000, 0), rows(9, 1), rows(100, 2))
    found = figures_of(of_proteins(settings), "k-mers and ridge regression")
    variance = np.var([float(label) for _, label in rows(100, 2)])
    assert found["mse"] < 0.05 * variance
    assert found["spearman"] > 0.95


def labelled_residues(count, seed):
    """Return proteins each of whose residues is labelled by the one behind it: b for L, else a."""
    random = np.random.default_rng(seed)
    sequences = ["".join(random.choice(list("LIVG"), 20)) for _ in range(count)]
    return [(text, "".join("b" if after == "L" else "a" for after in text[1:] + "-")) for text in sequences]


def test_labels_that_neighbours_decide_are_found(settings_of, monkeypatch):
    monkeypatch.setattr(baseline, "MOST_RESIDUES", 3_000)
    rows = labelled_residues(300, 0), labelled_residues(3, 1), labelled_residues(30, 2)
    found = figures_of(of_residues(settings_of("residue_classifier", *rows)), "neighbours and logistic regression")
    assert found == {"accuracy": 1, "auroc": 1}


def test_values_that_neighbours_decide_are_found_where_they_are_labelled(settings_of, tmp_path):
    def rows(count, seed):
        numbers = [(text, ["01"[c == "b"] for c in labels]) for text, labels in labelled_residues(count, seed)]
        return [(text, " ".join([*values[:10], "9", *values[11:]])) for text, values in numbers]

    settings = settings_of("residue_regressor", rows(400, 0), rows(3, 1), rows(30, 2))
    mask = " ".join("0" if n == 10 else "1" for n in range(20))
    for path in tmp_path.glob("*.csv"):
        header, *lines = path.read_text().splitlines()
        path.write_text("\n".join([f"{header},seen", *(f"{line},{mask}" for line in lines)]) + "\n")
    found = figures_of(of_residues(change(settings, data={"mask_column": "seen"})), "neighbours and ridge regression")
    assert found["mse"] < 0.002 and found["spearman"] > 0.7


@pytest.mark.slow
@pytest.mark.parametrize(
    ("classes", "accuracy", "auroc"),
    [(list(LOCATIONS), 0.610, 0.875), (["nucleus", "secreted"], 0.899, 0.956)],
    ids=["six", "two"],
)
def test_on_the_sample_the_figures_are_those_that_were_measured_before(classes, accuracy, auroc):
    found = of_proteins(change(FINETUNE, model={"classes": classes}))
    expected = {"accuracy": accuracy, "auroc": auroc}
    assert found == {"k-mers and logistic regression": pytest.approx(expected, abs=0.005)}
