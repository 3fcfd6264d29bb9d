"""Proteins as numbers that can be counted: what needs no network works on these (baseline.py, entropy.py)."""

from __future__ import annotations

import sys
from dataclasses import dataclass

import numpy as np

from ..dataset import read_test, read_training
from ..item import FIRST_AMINO_ACID, TOKENS
from ..reading.store import Proteins, Record, in_memory
from ..settings import Settings

MOST_PROTEINS = 20_000

LETTERS = TOKENS.index("-") + 1 - FIRST_AMINO_ACID
"""The tokens that may be guessed: the amino acids come first, then rarer letters."""


@dataclass(frozen=True)
class Letters:
    """The residues of proteins, one protein after the other."""

    letter: np.ndarray
    """int64 [n]: the token less FIRST_AMINO_ACID; -1 for a letter that ESM-2 does not know"""
    length: np.ndarray
    """int64 [N]: residues of each protein"""

    def __len__(self) -> int:
        """Return the number N of proteins."""
        return len(self.length)

    @property
    def protein(self) -> np.ndarray:
        """The protein of each residue, int64 [n]."""
        return np.repeat(np.arange(len(self)), self.length)

    @property
    def before(self) -> np.ndarray:
        """How many residues of its protein stand before each, int64 [n]."""
        return np.arange(len(self.letter)) - np.repeat(self.length.cumsum() - self.length, self.length)

    @property
    def behind(self) -> np.ndarray:
        """How many residues of its protein follow each, int64 [n]."""
        return np.repeat(self.length, self.length) - 1 - self.before


def letters_of(proteins: Proteins) -> Letters:
    """Return the letters of whole proteins, as `gathered` holds them."""
    letter = proteins.columns["tokens"].values.astype(np.int64) - FIRST_AMINO_ACID
    return Letters(letter, proteins.lengths(0, len(proteins)))


def has_training(settings: Settings) -> bool:
    """Tell whether it is known what to learn from; a person's test file has nothing to do with the sample."""
    is_known = settings.data.train_file is not None or settings.data.test_file is None
    if not is_known:
        print("no baseline without --data.train_file, which it would learn from", file=sys.stderr, flush=True)
    return is_known


def splits(settings: Settings) -> tuple[Proteins, Proteins]:
    """Return the proteins that are known before the test, for training and for validation, and those of the test.

    Raises:
        DataError: they cannot be read.
    """
    train, validation = read_training(settings)
    return gathered(train.proteins, validation.proteins), gathered(read_test(settings).proteins)


def gathered(*parts: Proteins) -> Proteins:
    """Hold at most MOST_PROTEINS of each part in memory, one after the other."""
    records = (
        Record(**{column: part.get(column, position).tobytes() for column in part.columns})
        for part in parts
        for position in some(len(part), MOST_PROTEINS)
    )
    return in_memory(records, tuple(parts[0].columns))


def some(count: int, most: int) -> np.ndarray:
    """Return positions of at most so many of `count` things, evenly spread: a file may be sorted by anything."""
    return np.linspace(0, count - 1, min(count, most)).astype(np.int64)
