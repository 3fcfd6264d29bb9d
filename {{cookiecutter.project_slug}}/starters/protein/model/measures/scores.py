"""How good answers are, as figures of a whole split: of NumPy arrays, and without torch."""

from __future__ import annotations

import numpy as np


def accuracy(label: np.ndarray, probability: np.ndarray) -> float:
    """Return the share of items [N] whose most probable class, of [N, C], is their label."""
    return float((probability.argmax(axis=1) == label).mean())


def told_apart(label: np.ndarray, classes: int) -> list[int]:
    """Return the classes that some of the items have, but not all: the others have no ROC curve."""
    counts = np.bincount(label, minlength=classes)
    return np.flatnonzero((counts > 0) & (counts < len(label))).tolist()


def auroc(label: np.ndarray, probability: np.ndarray) -> float:
    """Return the area under the ROC curve of each class against the rest, averaged over classes ("macro").

    Args:
        label: int [N].
        probability: of the classes, [N, C].

    Returns:
        A number from 0 to 1; chance is 0.5. Not a number if all items have the same label.
    """
    from sklearn.metrics import roc_auc_score  # takes half a second, which a training need not wait for

    areas = [roc_auc_score(label == c, probability[:, c]) for c in told_apart(label, probability.shape[1])]
    return float(np.mean(areas)) if areas else float("nan")


def spearman(label: np.ndarray, value: np.ndarray) -> float:
    """Return Spearman's rank correlation of true and predicted values [N]; not a number if either is constant."""
    from scipy.stats import spearmanr

    if min(np.ptp(label), np.ptp(value)) == 0:
        return float("nan")
    return float(spearmanr(label, value).statistic)
