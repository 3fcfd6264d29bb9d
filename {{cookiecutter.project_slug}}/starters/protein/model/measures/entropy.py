"""What a pretrained network is held against: how well masked residues are guessed without one (contracts/config.py).

Both ways to guess are tables of counts, made of the proteins for training and validation, and tried at every residue of
the test proteins that might be masked.
"""

from __future__ import annotations

import numpy as np

from ..settings import Settings
from .letters import LETTERS, Letters, letters_of, splits

PRIOR = 20
"""Times that each pair of neighbours is taken to have been seen before the counting begins."""
KINDS = LETTERS + 2
"""Of neighbours: letters, one that is not known, and none."""


def of_residues(settings: Settings) -> dict[str, dict[str, float]]:
    """Return the test figures of guessing residues without a network.

    Frequencies guess by p(r), the share of a letter r among all. Neighbours guess by the letters a and b beside it:

        p(r | a, b) = (n(a, r, b) + PRIOR p(r)) / (n(a, b) + PRIOR)

    with numbers n of the proteins that are known. The end of a protein is a neighbour too. Each letter counts as seen
    once more than it was.

    Raises:
        DataError: the data cannot be read.
    """
    known, test = (count(letters_of(part)) for part in splits(settings))
    share = known.sum(axis=0) + 1.0
    share /= share.sum()
    beside = known + PRIOR * share
    beside /= beside.sum(axis=1, keepdims=True)
    return {
        "frequencies of residues": _figures(share[None].repeat(len(test), axis=0), test),
        "neighbours of residues": _figures(beside, test),
    }


def count(proteins: Letters) -> np.ndarray:
    """Count letters by their neighbours, int64 [KINDS**2, LETTERS]: those of letters a and b in row a * KINDS + b."""
    kind = proteins.letter + 1
    before = np.where(proteins.before > 0, np.roll(kind, 1), KINDS - 1)
    behind = np.where(proteins.behind > 0, np.roll(kind, -1), KINDS - 1)
    row, is_known = before * KINDS + behind, proteins.letter >= 0
    found = np.bincount(row[is_known] * LETTERS + proteins.letter[is_known], minlength=KINDS**2 * LETTERS)
    return found.reshape(KINDS**2, LETTERS)


def _figures(guess: np.ndarray, counts: np.ndarray) -> dict[str, float]:
    """Score the probabilities of letters by their neighbours, at letters as often as they were counted."""
    total = counts.sum()
    loss = -(counts * np.log(guess)).sum() / total
    right = np.take_along_axis(counts, guess.argmax(axis=1)[:, None], axis=1).sum()
    return {"loss": float(loss), "accuracy": float(right / total), "perplexity": float(np.exp(loss))}
