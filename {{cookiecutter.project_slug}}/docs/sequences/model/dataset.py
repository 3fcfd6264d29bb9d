"""Where the proteins come from: made up here, in families; yours come from a file."""

import numpy as np
import torch
from torch import Tensor

from ..contracts.item import Dataset, Index
from ..contracts.view import split_validation
from .item import FAMILIES, MASK, PAD, TOKENS
from .settings import Settings

MASKED = 0.15
"""Probability of a letter to be masked."""


class MaskedProteins:
    """Proteins with masks, new ones in every epoch."""

    def __init__(self, letters: Tensor) -> None:
        """Take the proteins, int64 (N, S)."""
        self.letters = letters

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
    proteins, _ = made_up(settings.data.num_proteins, seed=1)
    masked = MaskedProteins(encoded(proteins, settings.model.sequence_length))
    return split_validation(masked, settings.data.validation_size)


def read_test(settings: Settings) -> Dataset:
    """Make others of the same families."""
    proteins, _ = made_up(1_012, seed=2)
    return MaskedProteins(encoded(proteins, settings.model.sequence_length))


def read_labelled_training(settings: Settings) -> tuple[Dataset, Dataset]:
    """Keep the last labelled proteins for validation."""
    return split_validation(labelled(settings.data.num_proteins, 3, settings), settings.data.validation_size)


def read_labelled_test(settings: Settings) -> Dataset:
    """Make others of the same families."""
    return labelled(1_012, 4, settings)


def labelled(size: int, seed: int, settings: Settings) -> list[dict[str, Tensor]]:
    """Return proteins with their families: a plain list is a dataset too."""
    proteins, families = made_up(size, seed)
    rows = zip(encoded(proteins, settings.model.sequence_length), torch.from_numpy(families), strict=True)
    return [{"letters": letters, "is_letter": letters != PAD, "family": family} for letters, family in rows]


def encoded(proteins: list[str], length: int) -> Tensor:
    """Cut or pad proteins to one length; int64 (N, length)."""
    padded = [protein[:length].ljust(length, "-") for protein in proteins]
    return torch.tensor([[TOKENS.find(letter) for letter in protein] for protein in padded])


def made_up(size: int, seed: int) -> tuple[list[str], np.ndarray]:
    """Return proteins and the families they are of, int64 [size].

    A protein is the 32 letters of its family, a tenth of them changed, cut off somewhere.
    """
    of_families = np.random.default_rng(0).integers(0, 20, (FAMILIES, 32))
    random = np.random.default_rng(seed)
    families = random.integers(0, FAMILIES, size)
    letters = of_families[families]
    letters = np.where(random.random(letters.shape) < 0.1, random.integers(0, 20, letters.shape), letters)
    lengths = random.integers(12, 33, size)
    proteins = ["".join(TOKENS[k] for k in row[:length]) for row, length in zip(letters, lengths, strict=True)]
    return proteins, families
