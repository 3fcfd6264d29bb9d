"""Rows of a set number of tokens: a protein each, or as many as fit, in the order of the file."""

from __future__ import annotations

from array import array
from collections.abc import Sequence

import numpy as np

from ..item import most_proteins
from .store import Proteins

SPECIAL_TOKENS = 2  # <cls> and <eos>
BLOCK = 1 << 20  # proteins whose lengths are in memory at once


def pack(proteins: Proteins, row: int, longest: int) -> np.ndarray:
    """Fill rows, each until the next protein does not fit (next-fit). No protein is divided.

    Args:
        proteins: to be packed in their order.
        row: tokens of a row.
        longest: tokens that a protein takes at most, not above `row`.

    Returns:
        The first protein of each row, and at the end the number of proteins: int64 [rows + 1].
    """
    starts = array("q", [0])
    while (first := starts[-1]) < len(proteins):
        following = _following(_tokens(proteins, longest, first), row)
        while starts[-1] - first < len(following):
            starts.append(first + following[starts[-1] - first])
        if starts[-1] < len(proteins):
            starts.pop()  # that row may hold proteins of the next block too
    return np.frombuffer(starts, np.int64)


def fill_rate(proteins: Proteins, starts: Sequence[int] | np.ndarray, row: int, longest: int) -> float:
    """Return the share of all positions that hold a token and no padding."""
    blocks = range(0, len(proteins), BLOCK)
    return sum(int(_tokens(proteins, longest, first).sum()) for first in blocks) / ((len(starts) - 1) * row)


def _tokens(proteins: Proteins, longest: int, first: int) -> np.ndarray:
    """Return how many tokens each protein of a block takes."""
    return np.minimum(proteins.lengths(first, first + BLOCK) + SPECIAL_TOKENS, longest)


def _following(tokens: np.ndarray, row: int) -> list[int]:
    """Return for each protein where the next row starts, if a row starts with it."""
    ends = np.concatenate(([0], np.cumsum(tokens)))
    fits = np.searchsorted(ends, ends[:-1] + row, side="right") - 1
    return np.minimum(fits, np.arange(len(tokens)) + most_proteins(row)).clip(max=len(tokens)).tolist()
