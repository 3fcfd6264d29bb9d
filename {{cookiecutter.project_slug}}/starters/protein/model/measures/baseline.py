"""What a finetuned network is held against: linear models, trained and tested on the same data (contracts/config.py).

Those of whole proteins see k-mers, those of residues the residues around. As they have nothing to choose, they learn
from the proteins for validation too. They read whole proteins, however long, and at most MOST_PROTEINS of a split.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from ..item import AMINO_ACIDS
from ..reading.labels import LabelReader
from ..reading.store import Proteins
from ..settings import Settings
from .letters import LETTERS, Letters, has_training, letters_of, some, splits
from .scores import accuracy, auroc, spearman

if TYPE_CHECKING:  # scipy and scikit-learn take a second to import, and a training does not need them
    from scipy.sparse import csr_matrix

MOST_RESIDUES = 100_000
"""Of a split's proteins, with a label."""
END = 30
"""Residues of an end of a protein."""
REACH = 7
"""Residues on each side of one that its label is guessed from."""
STRENGTH = 0.003
"""C of scikit-learn's LogisticRegression, and the inverse of alpha of its Ridge."""

References = dict[str, dict[str, float]]
Split = tuple[Any, np.ndarray]
"""Features [N, F] and labels [N]."""


def of_proteins(settings: Settings) -> References:
    """Return the test figures of a linear model of k-mers; none if there is nothing to learn from.

    Raises:
        DataError: the data cannot be read.
    """
    if not has_training(settings):
        return {}
    known, test = ((kmers(letters_of(part)), _labels(part, settings)) for part in splits(settings))
    return _figures("k-mers", known, test, settings)


def of_residues(settings: Settings) -> References:
    """Return the test figures of a linear model of the residues around; none if there is nothing to learn from.

    Raises:
        DataError: the data cannot be read.
    """
    if not has_training(settings):
        return {}
    known, test = (_residues(part, settings) for part in splits(settings))
    return _figures("neighbours", known, test, settings)


def kmers(proteins: Letters) -> np.ndarray:
    """Return the features of each protein, float64 [N, 460].

    They are the shares of the 20 amino acids among all residues, among the first END and among the last END of them,
    and of the 400 pairs among all pairs of neighbours. The ends say where a protein goes in the cell.
    """
    letter, protein, kinds = proteins.letter, proteins.protein, len(AMINO_ACIDS)
    is_acid = (letter >= 0) & (letter < kinds)
    is_pair = is_acid[:-1] & is_acid[1:] & (protein[:-1] == protein[1:])
    pair = letter[:-1] * kinds + letter[1:]
    parts = is_acid, is_acid & (proteins.before < END), is_acid & (proteins.behind < END)
    single = [_shares(protein[part], letter[part], len(proteins), kinds) for part in parts]
    return np.hstack((*single, _shares(protein[:-1][is_pair], pair[is_pair], len(proteins), kinds**2)))


def _shares(row: np.ndarray, kind: np.ndarray, rows: int, kinds: int) -> np.ndarray:
    """Return how much of each row is of each kind, [rows, kinds]."""
    counts = np.bincount(row * kinds + kind, minlength=rows * kinds).reshape(rows, kinds)
    return counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)


def neighbours(proteins: Letters, chosen: np.ndarray) -> csr_matrix:
    """Return the features of residues: 1 for the letter that stands at each place up to REACH away, else 0.

    Args:
        proteins: of the residues.
        chosen: the positions of N residues in `proteins.letter`.

    Returns:
        [N, 28 * 15]: a letter is one of 26, an unknown one, or none, beyond the ends.
    """
    kinds, places = LETTERS + 2, 2 * REACH + 1
    padded = np.full(len(proteins.letter) + REACH * (len(proteins) + 1), kinds - 1)
    inside = np.arange(len(proteins.letter)) + REACH * (proteins.protein + 1)
    padded[inside] = proteins.letter + 1
    seen = sliding_window_view(padded, places)[inside[chosen] - REACH]
    columns = (seen + kinds * np.arange(places)).ravel()
    starts = np.arange(0, len(columns) + 1, places)
    from scipy.sparse import csr_matrix

    return csr_matrix((np.ones(len(columns)), columns, starts), shape=(len(chosen), kinds * places))


def _residues(proteins: Proteins, settings: Settings) -> Split:
    """Return features and labels of the residues that have a label."""
    labelled = np.flatnonzero(proteins.columns["is_labelled"].values)
    chosen = labelled[some(len(labelled), MOST_RESIDUES)]
    return neighbours(letters_of(proteins), chosen), _labels(proteins, settings)[chosen]


def _labels(proteins: Proteins, settings: Settings) -> np.ndarray:
    dtype = LabelReader(settings.network, settings.model.classes).dtype
    return proteins.columns["label"].values.view(dtype)


def _figures(features: str, known: Split, test: Split, settings: Settings) -> References:
    """Learn from one split and score the other; nothing if there is only one class to learn."""
    classes = len(settings.model.classes)
    if not settings.network.endswith("_classifier"):
        return {f"{features} and ridge regression": _value_figures(known, test)}
    if len(np.unique(known[1])) < 2:
        return {}
    return {f"{features} and logistic regression": _class_figures(known, test, classes)}


def _value_figures(known: Split, test: Split) -> dict[str, float]:
    from sklearn.linear_model import Ridge

    label, value = test[1], _model(Ridge(alpha=1 / STRENGTH)).fit(*known).predict(test[0])
    error = float(np.square(value - label).mean())
    return {"mse": error, "spearman": spearman(label, value)}


def _class_figures(known: Split, test: Split, classes: int) -> dict[str, float]:
    from sklearn.linear_model import LogisticRegression

    model = _model(LogisticRegression(C=STRENGTH, max_iter=1_000)).fit(*known)
    label, probability = test[1], np.zeros((len(test[1]), classes))
    probability[:, model.classes_] = model.predict_proba(test[0])
    return {"accuracy": accuracy(label, probability), "auroc": auroc(label, probability)}


def _model(linear: Any) -> Any:
    # a mean would fill up sparse features, and a linear model finds it by itself
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(with_mean=False), linear)
