"""What pretrained networks are held against: counts by hand, and guesses where the answer is known."""

import numpy as np
import pytest
from conftest import change
from model.test_baseline import chain

from {{cookiecutter.__package_name}}.model.item import AMINO_ACIDS, TOKENS
from {{cookiecutter.__package_name}}.model.measures import entropy
from {{cookiecutter.__package_name}}.model.measures.entropy import KINDS, PRIOR, count, of_residues
from {{cookiecutter.__package_name}}.model.measures.letters import LETTERS
from {{cookiecutter.__package_name}}.model.settings import Settings

ALL = TOKENS[4 : 4 + LETTERS]
L, A, G = map(AMINO_ACIDS.index, "LAG")
UNKNOWN, NONE = 0, KINDS - 1


@pytest.fixture
def settings_of(tmp_path):
    """Write proteins to train, validate and test with, and return the settings of a run that reads them."""

    def write(train, validation, test):
        files = {"train_file": train, "validation_file": validation, "test_file": test}
        for name, sequences in files.items():
            (tmp_path / f"{name}.fasta").write_text("".join(f">x\n{text}\n" for text in sequences))
        return change(Settings(), data={name: str(tmp_path / f"{name}.fasta") for name in files})

    return write


def test_letters_are_counted_by_the_two_beside_them_within_a_protein():
    found = count(chain("LAG", "GL", "AJL")).reshape(KINDS, KINDS, LETTERS)
    counts = {tuple(place): found[tuple(place)] for place in np.argwhere(found).tolist()}
    assert counts == {
        (NONE, A + 1, L): 1,
        (L + 1, G + 1, A): 1,
        (A + 1, NONE, G): 1,
        (NONE, L + 1, G): 1,
        (G + 1, NONE, L): 1,
        (NONE, UNKNOWN, A): 1,
        (UNKNOWN, NONE, L): 1,
    }


def expected(share, targets):
    """Return the mean loss of the best guess by p(r), counted case by case, as the masking draws them."""
    total = 0.0
    for target in targets:
        shown = [*[(None, 0.8), (target, 0.1)], *((letter, 0.1 / 20) for letter in AMINO_ACIDS)]
        for letter, probability in shown:
            weight = {r: p * (0.1 * (r == letter) + 0.1 / 20 if letter else 1) for r, p in share.items()}
            total -= probability * np.log(weight[target] / sum(weight.values()))
    return total / len(targets)


def test_frequencies_and_neighbours_guess_as_their_formulas_say(settings_of):
    found = of_residues(settings_of(["LLLA"], ["LLA"], ["LA"]))
    seen = {"L": 5, "A": 2}
    share = {letter: (1 + seen.get(letter, 0)) / (7 + LETTERS) for letter in ALL}  # each is seen once more
    assert found["frequencies of residues"]["loss"] == pytest.approx(expected(share, "LA"))
    assert found["frequencies of residues"]["perplexity"] == pytest.approx(np.exp(expected(share, "LA")))
    after_l = {letter: (2 * (letter == "A") + PRIOR * p) / (2 + PRIOR) for letter, p in share.items()}
    beside = (expected(share, "L") + expected(after_l, "A")) / 2  # nothing was seen between the beginning and an A
    assert found["neighbours of residues"]["loss"] == pytest.approx(beside)


def test_a_letter_that_is_shown_is_guessed(settings_of):
    """All letters are as frequent: one that is shown is right in half of the cases, and in one of twenty by chance."""
    found = of_residues(settings_of([AMINO_ACIDS * 50], [AMINO_ACIDS], [AMINO_ACIDS[::-1]]))
    assert found["frequencies of residues"]["accuracy"] == pytest.approx(0.8 / 20 + 0.1 + 0.1 / 20)


def test_what_neighbours_decide_is_guessed_by_them_and_not_by_frequencies(settings_of):
    found = of_residues(settings_of(["LA" * 5000], ["LA" * 50], ["LALALALA"]))
    assert found["neighbours of residues"]["accuracy"] > 0.99
    assert found["neighbours of residues"]["loss"] < 0.3
    assert 0.5 < found["frequencies of residues"]["loss"] < np.log(2)


@pytest.mark.slow
def test_on_the_sample_the_figures_of_hidden_residues_are_those_that_were_measured_before(monkeypatch):
    monkeypatch.setattr(entropy, "KEPT", 0.0)
    monkeypatch.setattr(entropy, "REPLACED", 1e-12)
    found = of_residues(Settings())
    assert list(found) == ["frequencies of residues", "neighbours of residues"]
    frequencies, neighbours = found.values()
    assert (frequencies["loss"], neighbours["loss"]) == pytest.approx((2.903, 2.874), abs=0.002)
    assert (frequencies["accuracy"], neighbours["accuracy"]) == pytest.approx((0.095, 0.108), abs=0.001)
