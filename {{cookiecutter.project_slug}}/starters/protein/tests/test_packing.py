"""Rows: each holds what fits, in order, and every protein once."""

import numpy as np
import pytest

from {{cookiecutter.__package_name}}.model.item import TOKENS_PER_PROTEIN, most_proteins
from {{cookiecutter.__package_name}}.model.reading import packing
from {{cookiecutter.__package_name}}.model.reading.packing import fill_rate, pack
from {{cookiecutter.__package_name}}.model.reading.store import Record, in_memory


def proteins_of(*residues):
    return in_memory([Record(b"x", bytes(length)) for length in residues], ("name", "tokens"))


def next_fit(tokens, row):
    """The same in the plainest way: lists of what a row holds."""
    rows = [[]]
    for taken in tokens:
        if sum(rows[-1]) + taken > row or len(rows[-1]) == most_proteins(row):
            rows.append([])
        rows[-1].append(taken)
    return rows


def test_a_row_ends_where_the_next_protein_does_not_fit():
    # tokens: 42, 58 | 30, 60 | 12
    assert pack(proteins_of(40, 56, 28, 58, 10), row=100, longest=90).tolist() == [0, 2, 4, 5]


def test_a_protein_takes_no_more_than_the_longest():
    assert pack(proteins_of(500, 500, 500), row=128, longest=64).tolist() == [0, 2, 3]


def test_a_row_holds_so_many_proteins_only():
    starts = pack(proteins_of(*[1] * 10), row=4 * TOKENS_PER_PROTEIN, longest=100)
    assert starts.tolist() == [0, 4, 8, 10]


def test_a_row_that_is_full_to_the_last_token_is_one_row():
    assert pack(proteins_of(48, 48, 48, 48), row=100, longest=90).tolist() == [0, 2, 4]


@pytest.mark.parametrize("block", [5, 17, 1 << 20])
@pytest.mark.parametrize("row", [100, 160, 1_000])
def test_packing_is_next_fit_whatever_is_read_at_once(monkeypatch, block, row):
    monkeypatch.setattr(packing, "BLOCK", max(block, most_proteins(row) + 1))
    residues = np.random.default_rng(0).lognormal(3, 1, 300).astype(int).clip(1) if row < 1_000 else [60] * 100
    proteins, longest = proteins_of(*residues), 90
    rows = next_fit([min(length + 2, longest) for length in residues], row)
    starts = pack(proteins, row, longest)
    assert np.diff(starts).tolist() == [len(held) for held in rows]
    assert starts[0] == 0 and starts[-1] == len(residues) and starts.dtype == np.int64
    assert fill_rate(proteins, starts, row, longest) == pytest.approx(sum(map(sum, rows)) / (len(rows) * row))


def test_the_fill_rate_of_a_row_for_each_protein_is_told_too():
    proteins = proteins_of(8, 98, 500)
    assert fill_rate(proteins, range(4), row=100, longest=100) == pytest.approx((10 + 100 + 100) / 300)


def test_some_of_the_proteins_are_packed_for_themselves():
    proteins = proteins_of(90, 40, 56, 28, 58, 10)[1:]
    assert pack(proteins, row=100, longest=90).tolist() == [0, 2, 4, 5]
