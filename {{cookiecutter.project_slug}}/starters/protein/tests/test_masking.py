"""Masks are BERT's, and crops keep what they say: pure functions of the numbers that are drawn."""

from pathlib import Path

import numpy as np
import pytest
from conftest import read_rows

from {{cookiecutter.__package_name}}.contracts.errors import UserError
from {{cookiecutter.__package_name}}.contracts.names import TRAIN_LOSS
from {{cookiecutter.__package_name}}.model.item import AMINO_ACIDS, CLS, FIRST_AMINO_ACID, MASK, TOKENS, UNK
from {{cookiecutter.__package_name}}.model.reading.masking import mask, termini, window

N = 200_000
TWENTY = range(FIRST_AMINO_ACID, FIRST_AMINO_ACID + len(AMINO_ACIDS))
TRYPTOPHAN, UNSURE = TOKENS.index("W"), TOKENS.index("X")


def random(seed=0):
    return np.random.PCG64(seed)


def assert_share(found, of, expected):
    """Within five standard deviations of a binomial distribution."""
    assert abs(found - of * expected) < 5 * np.sqrt(of * expected * (1 - expected)), (found / of, expected)


@pytest.mark.parametrize("probability", [0.15, 0.4])
def test_masks_are_80_10_10(probability):
    tokens = np.full(N, TRYPTOPHAN, np.uint8)
    seen, is_masked = mask(tokens, probability, random())
    chosen = is_masked.sum()
    assert_share(chosen, N, probability)
    assert_share((seen[is_masked] == MASK).sum(), chosen, 0.8)
    assert_share((seen[is_masked] == TRYPTOPHAN).sum(), chosen, 0.1 + 0.1 / 20)
    others = [token for token in TWENTY if token != TRYPTOPHAN]
    assert_share(np.isin(seen[is_masked], others).sum(), chosen, 0.1 * 19 / 20)
    for token in others:
        assert_share((seen[is_masked] == token).sum(), chosen, 0.1 / 20)
    assert (seen[~is_masked] == TRYPTOPHAN).all() and seen.dtype == np.uint8


def test_residues_are_masked_one_by_one():
    _, is_masked = mask(np.full(N, TRYPTOPHAN, np.uint8), 0.5, random())
    for apart in (1, 2, 20):
        assert_share((is_masked[apart:] & is_masked[:-apart]).sum(), N - apart, 0.25)


def test_what_replaces_a_residue_says_nothing_about_whether_it_was_chosen():
    first, second = (mask(np.full(N, token, np.uint8), 0.15, random()) for token in (TRYPTOPHAN, UNSURE))
    assert (first[1] == second[1]).all()
    replaced = first[1] & ~np.isin(first[0], [MASK, TRYPTOPHAN])
    assert (first[0][replaced] == second[0][replaced]).all()


def test_letters_without_a_token_are_never_guessed_and_all_others_are():
    tokens = np.repeat(np.arange(UNK, MASK - 1, dtype=np.uint8), 1_000)
    seen, is_masked = mask(tokens, 0.15, random())
    assert {TOKENS[token] for token in tokens[is_masked]} == set("LAGVSERTIDPKQNFYMHWCXBUZO.-")
    assert (seen[tokens == UNK] == UNK).all()
    assert not np.isin(seen, [CLS]).any()


def test_masks_are_those_of_the_raw_numbers():
    class Written:
        def random_raw(self, size):
            upper = (np.array([0, 0.119, 0.121, 0.134, 0.136, 0.149, 0.151]) * (1 << 32)).astype(np.uint64)
            return (upper << np.uint64(32)) + np.uint64((1 << 32) - 1)

    seen, is_masked = mask(np.full(7, TRYPTOPHAN, np.uint8), 0.15, Written())
    assert is_masked.tolist() == [True] * 6 + [False]
    assert seen.tolist() == [MASK, MASK, TWENTY[-1], TWENTY[-1], *[TRYPTOPHAN] * 3]


def test_the_same_numbers_give_the_same_masks_and_others_others():
    tokens = np.full(500, TRYPTOPHAN, np.uint8)
    one, again, other = (mask(tokens, 0.15, random(seed)) for seed in (3, 3, 4))
    assert all((a == b).all() for a, b in zip(one, again, strict=True))
    assert (one[1] != other[1]).any()


def test_windows_are_anywhere_with_one_probability():
    tokens, starts = np.arange(10, dtype=np.uint8), np.zeros(4)
    stream = random()
    for _ in range(20_000):
        seen = window(tokens, 7, stream)
        assert (np.diff(seen) == 1).all() and len(seen) == 7
        starts[seen[0]] += 1
    for found in starts:
        assert_share(found, 20_000, 0.25)


@pytest.mark.parametrize("cut", [lambda tokens, most: window(tokens, most, random()), termini])
def test_proteins_that_are_short_enough_are_whole(cut):
    for length in (1, 6, 7):
        assert cut(np.arange(length), 7).tolist() == list(range(length))


def test_both_termini_of_a_protein_that_is_too_long_are_kept():
    residues = np.arange(10)
    assert termini(residues, 6).tolist() == [0, 1, 2, 7, 8, 9]
    assert termini(residues, 5).tolist() == [0, 1, 2, 8, 9]
    assert termini(residues, 1).tolist() == [0]


@pytest.mark.slow
def test_a_step_in_which_nothing_is_masked_has_no_loss(tiny, train):
    few = {"max_steps": 2, "val_check_interval": 2, "warmup_steps": 0}
    settings = tiny(network="masked", data={"mask_probability": 1e-9}, training=few)
    with pytest.raises(UserError, match="val_loss is a mean over no masked tokens"):
        train(settings)
    row = read_rows(Path(settings.run_dir))[0]
    assert (row["step"], row[TRAIN_LOSS], row["train_accuracy"]) == ("1", "", "") and row["lr"]
