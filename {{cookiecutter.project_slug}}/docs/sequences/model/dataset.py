"""Where the proteins come from: made up here, in families; yours come from a file."""

import numpy as np
import torch
from torch import Tensor

from ..contracts.item import Dataset, Index
from ..contracts.view import split_validation
from .item import MASK, PAD, TOKENS
from .settings import Settings

MASKED = 0.15
"""Probability of a letter to be masked."""


class Proteins:
    """Proteins with masks, other ones in every epoch."""

    def __init__(self, proteins: list[str], length: int) -> None:
        """Cut or pad every protein to `length` letters."""
        rows = [[TOKENS.find(letter) for letter in protein[:length].ljust(length, "-")] for protein in proteins]
        self.letters = torch.tensor(rows)

    def __len__(self) -> int:
        """Return the number of proteins."""
        return len(self.letters)

    def __getitem__(self, index: Index) -> dict[str, Tensor]:
        """Return one protein; its masks depend on nothing but the seed, the epoch and its position."""
        letters = self.letters[index]
        is_letter = letters != PAD
        is_masked = is_letter & torch.from_numpy(index.random().random(len(letters)) < MASKED)
        tokens = letters.masked_fill(is_masked, MASK)
        return {"tokens": tokens, "letters": letters, "is_letter": is_letter, "is_masked": is_masked}


def read_training(settings: Settings) -> tuple[Dataset, Dataset]:
    """Keep the last proteins for validation."""
    proteins = Proteins(made_up(settings.data.num_proteins, seed=1), settings.model.sequence_length)
    return split_validation(proteins, settings.data.validation_size)


def read_test(settings: Settings) -> Dataset:
    """Make others of the same families."""
    return Proteins(made_up(1_012, seed=2), settings.model.sequence_length)


def made_up(size: int, seed: int) -> list[str]:
    """Return proteins of eight families: the 32 letters of a family, a tenth of them changed, cut off somewhere."""
    families = np.random.default_rng(0).integers(0, 20, (8, 32))
    random = np.random.default_rng(seed)
    letters = families[random.integers(0, 8, size)]
    letters = np.where(random.random(letters.shape) < 0.1, random.integers(0, 20, letters.shape), letters)
    lengths = random.integers(12, 33, size)
    return ["".join(TOKENS[k] for k in row[:length]) for row, length in zip(letters, lengths, strict=True)]
