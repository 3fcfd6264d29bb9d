"""What pretrained networks are held against: counts by hand, and guesses where the answer is known."""

import numpy as np
import pytest
from conftest import change
from model.test_baseline import chain

from {{cookiecutter.__package_name}}.model.item import AMINO_ACIDS
from {{cookiecutter.__package_name}}.model.measures.entropy import KINDS, PRIOR, count, of_residues
from {{cookiecutter.__package_name}}.model.measures.letters import LETTERS
from {{cookiecutter.__package_name}}.model.settings import Settings

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


def test_frequencies_and_neighbours_guess_as_their_formulas_say(settings_of):
    settings = settings_of(["LLLA"], ["LLA"], ["LA"])
    found = of_residues(settings)
    letters = 7 + LETTERS  # each is seen once more
    share = {"L": 6 / letters, "A": 3 / letters}
    assert found["frequencies of residues"] == pytest.approx(
        {
            "loss": -(np.log(share["L"]) + np.log(share["A"])) / 2,
            "accuracy": 0.5,
            "perplexity": (share["L"] * share["A"]) ** -0.5,
        }
    )
    beside = {"L": PRIOR * share["L"] / PRIOR, "A": (2 + PRIOR * share["A"]) / (2 + PRIOR)}
    assert found["neighbours of residues"]["loss"] == pytest.approx(-np.log(beside["L"] * beside["A"]) / 2)


def test_what_neighbours_decide_is_guessed_by_them_and_not_by_frequencies(settings_of):
    found = of_residues(settings_of(["LA" * 5000], ["LA" * 50], ["LALALALA"]))
    assert found["neighbours of residues"]["accuracy"] == 1
    assert found["neighbours of residues"]["loss"] < 0.3
    assert found["frequencies of residues"]["loss"] == pytest.approx(np.log(2), abs=0.01)


@pytest.mark.slow
def test_on_the_sample_the_figures_are_those_that_were_measured_before():
    found = of_residues(Settings())
    assert list(found) == ["frequencies of residues", "neighbours of residues"]
    frequencies, neighbours = found.values()
    assert (frequencies["loss"], neighbours["loss"]) == pytest.approx((2.903, 2.874), abs=0.002)
    assert (frequencies["accuracy"], neighbours["accuracy"]) == pytest.approx((0.095, 0.108), abs=0.001)
