"""What the network has to guess, and which part of a protein that is too long it sees.

NumPy promises the raw stream of a bit generator for all its versions, but not what a Generator makes of it (NEP 19): so
all that is drawn here is made of raw numbers.
"""

from __future__ import annotations

import numpy as np

from ..item import AMINO_ACIDS, FIRST_AMINO_ACID, MASK

KEPT, REPLACED = 0.1, 0.1
"""Shares of the chosen residues that stay as they are, and that become another amino acid."""

_HALF = 1 << 32


def window(tokens: np.ndarray, most: int, random: np.random.BitGenerator) -> np.ndarray:
    """Return `most` residues that follow one another, each window as likely as another; all, if they are so few."""
    start = random.random_raw() % max(len(tokens) - most + 1, 1)
    return tokens[start : start + most]


def termini(values: np.ndarray, most: int) -> np.ndarray:
    """Return both ends of a protein, `most` residues in all; all, if they are so few.

    The ends say where a protein goes in the cell: what is left out is its middle.
    """
    if len(values) <= most:
        return values
    return np.concatenate((values[: most - most // 2], values[len(values) - most // 2 :]))


def mask(tokens: np.ndarray, probability: float, random: np.random.BitGenerator) -> tuple[np.ndarray, np.ndarray]:
    """Choose residues to be guessed, as BERT (Devlin et al., 2019) and ESM-2 do.

    Each is chosen for itself. Of the chosen 80% become <mask>, 10% one of the twenty amino acids, which may be the same
    again, and 10% stay. A letter that ESM-2 does not know is never chosen.

    Args:
        tokens: of residues, uint8 [n].
        probability: of being chosen.
        random: gives one number for each residue. Its upper half decides whether the residue is chosen, and what
            becomes of it; the lower half, which amino acid.

    Returns:
        The tokens that the network sees, uint8 [n], and which residues are chosen, bool [n].
    """
    upper, lower = np.divmod(random.random_raw(len(tokens)), np.uint64(_HALF))
    drawn = upper / (_HALF * probability)  # below 1 if chosen, and then uniform
    is_chosen = (drawn < 1) & (tokens >= FIRST_AMINO_ACID)
    other = FIRST_AMINO_ACID + lower * np.uint64(len(AMINO_ACIDS)) // np.uint64(_HALF)
    changed = np.where(drawn < 1 - KEPT - REPLACED, MASK, np.where(drawn < 1 - KEPT, other, tokens))
    return np.where(is_chosen, changed, tokens).astype(np.uint8), is_chosen
