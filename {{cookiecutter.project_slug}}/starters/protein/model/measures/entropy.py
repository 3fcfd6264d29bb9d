"""What a pretrained network is held against: how well masked residues are guessed without one (contracts/config.py).

Both ways to guess are tables of counts, made of the proteins for training and validation, and tried at every residue of
the test proteins that might be masked. Both know how masking works: a letter that is shown at a place to be guessed is
the right one half of the time. Without that a network would seem to know more than it does.
"""

from __future__ import annotations

import numpy as np

from ..item import AMINO_ACIDS
from ..reading.masking import KEPT, REPLACED
from ..settings import Settings
from .letters import LETTERS, Letters, has_training, letters_of, splits

REPLACEMENTS = len(AMINO_ACIDS)
"""Letters that may stand in another's place; they come first."""
PRIOR = 20
"""Times that each pair of neighbours is taken to have been seen before the counting begins."""
KINDS = LETTERS + 2
"""Of neighbours: letters, one that is not known, and none."""


def of_residues(settings: Settings) -> dict[str, dict[str, float]]:
    """Return the test figures of guessing residues without a network; none if there is nothing to learn from.

    Frequencies guess by p(r), the share of a letter r among all. Neighbours guess by the letters a and b beside it:

        p(r | a, b) = (n(a, r, b) + PRIOR p(r)) / (n(a, b) + PRIOR)

    with numbers n of the proteins that are known. The end of a protein is a neighbour too. Each letter counts as seen
    once more than it was.

    Raises:
        DataError: the data cannot be read.
    """
    if not has_training(settings):
        return {}
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
    """Score the probabilities of letters by their neighbours [rows, LETTERS], at letters as often as they were counted.

    Where a letter v is shown and not <mask>, the best guess is p(r | v), which is p(r) (KEPT [r = v] + REPLACED / 20)
    divided by its sum. REPLACED is by one of the twenty amino acids, which come first.
    """
    shown = guess[:, None, :] * (KEPT * np.eye(LETTERS) + REPLACED / REPLACEMENTS)  # rows, v, r
    shown /= shown.sum(axis=2, keepdims=True)
    kept = np.diagonal(shown, axis1=1, axis2=2)
    loss = -(
        (1 - KEPT - REPLACED) * np.log(guess)
        + KEPT * np.log(kept)
        + REPLACED * np.log(shown[:, :REPLACEMENTS]).mean(axis=1)
    )
    right = (1 - KEPT - REPLACED) * _is_best(guess) + KEPT * np.diagonal(_is_best(shown), axis1=1, axis2=2)
    right += REPLACED * _is_best(shown[:, :REPLACEMENTS]).mean(axis=1)
    mean = float((counts * loss).sum() / counts.sum())
    return {"loss": mean, "accuracy": float((counts * right).sum() / counts.sum()), "perplexity": float(np.exp(mean))}


def _is_best(guess: np.ndarray) -> np.ndarray:
    """Return 1.0 at the letter with the highest probability, else 0.0."""
    return np.eye(LETTERS)[guess.argmax(axis=-1)]
