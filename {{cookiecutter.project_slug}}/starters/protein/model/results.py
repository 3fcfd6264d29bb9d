"""What is kept of the networks' outputs, and what is scored and predicted of that (contracts/config.py).

Functions whose first argument is a config are its methods. Shapes, in the order of the letters: N or B proteins, S
tokens of a row, C classes, H hidden size.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor

from ..contracts.config import NetworkConfig, Ragged
from .item import (
    AMINO_ACIDS,
    FIRST_AMINO_ACID,
    ClassItem,
    MaskedItem,
    ProteinItem,
    ResidueClassItem,
    ResidueValueItem,
    ValueItem,
)
from .measures.scores import auroc, spearman
from .network import is_inside, is_whole, mean_of_residues
from .reading.labels import written

LabelledItem = ClassItem | ValueItem | ResidueClassItem | ResidueValueItem
Kept = dict[str, np.ndarray]
Predicted = dict[str, np.ndarray | Ragged]


def keep_masked(config: NetworkConfig, output: dict[str, Tensor], batch: MaskedItem) -> dict[str, Tensor]:
    """Return for each amino acid how many were masked, and how many of these are guessed right: int64 (B, 20)."""
    targets, is_masked = batch["targets"], batch["is_masked"]
    is_right = is_masked & (output["logits"].argmax(dim=-1) == targets)
    counts = {"masked": by_amino_acid(targets, is_masked), "right": by_amino_acid(targets, is_right)}
    return {**counts, **keep_features(config, output, batch)}


def by_amino_acid(tokens: Tensor, where: Tensor) -> Tensor:
    """Count tokens (B, S) in some places: int64 (B, 20), in the order of AMINO_ACIDS; other letters are left out."""
    number = tokens - FIRST_AMINO_ACID
    others = len(AMINO_ACIDS)
    number = number.where((number >= 0) & (number < others), others)
    return number.new_zeros(len(tokens), others + 1).scatter_add(1, number, where.long())[:, :others]


def keep_labelled(config: NetworkConfig, output: dict[str, Tensor], batch: LabelledItem) -> dict[str, Tensor]:
    """Return labels, and float32 of each protein or residue the `probability` of each class, or the `value`."""
    logits = output["logits"].float()
    answer = {"probability": logits.softmax(dim=-1)} if config.is_classifier else {"value": logits.squeeze(-1)}
    labels = {"label": batch["label"], "is_labelled": batch["is_labelled"]}
    return {**labels, **answer, **keep_features(config, output, batch)}


def keep_features(config: NetworkConfig, output: dict[str, Tensor], batch: ProteinItem) -> dict[str, Tensor]:
    """Return features of the layer that is asked for, float32; nothing of packed rows.

    Returns:
        `residues`, how many a protein has, (B) int64: they follow its first token; and `left_out`, how many are not
        there, between the first and the second half of these. `embedding`, the mean of their features, (B, H). With
        `--embeddings residue` also `features`, of all positions, (B, S, H).
    """
    if config.sequence_length > config.max_length:
        return {}
    hidden = output["hidden"].float()
    residues = {"residues": is_inside(batch["sequence"]).sum(dim=1), "left_out": batch["left_out"]}
    kept = {**residues, "embedding": mean_of_residues(hidden, batch)}
    return {**kept, "features": hidden} if config.embeddings == "residue" else kept


def score_classes(kept: Kept) -> dict[str, float]:
    """Return the area under the ROC curve, averaged over the classes that are there; proteins or residues."""
    where = kept["is_labelled"]
    return {"auroc": auroc(kept["label"][where], kept["probability"][where])}


def score_values(kept: Kept) -> dict[str, float]:
    """Return Spearman's rank correlation; of proteins or residues."""
    where = kept["is_labelled"]
    return {"spearman": spearman(kept["label"][where], kept["value"][where])}


def predictions(config: NetworkConfig, kept: Kept) -> Predicted:
    """Return the answers, unless a layer before the last is asked for, and the embeddings that are asked for."""
    return {**(config.answers(kept) if is_whole(config) else {}), **embeddings(config, kept)}


def embeddings(config: NetworkConfig, kept: Kept) -> Predicted:
    """Return `embedding`: of each protein [N, H], or of each of its residues."""
    if config.embeddings == "none":
        return {}
    if config.embeddings == "sequence":
        return {"embedding": kept["embedding"]}
    return {"embedding": of_residues(kept["features"], kept["residues"]), **places(kept)}


def protein_classes(config: NetworkConfig, kept: Kept) -> Predicted:
    """Return the label and the predicted class by name, and the probability of that and of each class."""
    names, probability = np.array(config.classes), kept["probability"]
    return {
        "label": np.where(kept["is_labelled"], names[kept["label"]], ""),
        "prediction": names[probability.argmax(axis=1)],
        "probability": probability.max(axis=1),
        **{f"probability_{name}": probability[:, number] for number, name in enumerate(config.classes)},
    }


def protein_values(config: NetworkConfig, kept: Kept) -> Predicted:
    """Return label and value."""
    label = [f"{label:.6g}" if there else "" for label, there in zip(kept["label"], kept["is_labelled"], strict=True)]
    return {"label": np.array(label), "value": kept["value"]}


def residue_classes(config: NetworkConfig, kept: Kept) -> Predicted:
    """Return the predicted classes as a table has labels, and beside it the probability of each class."""
    names, probability = np.array(config.classes), of_residues(kept["probability"], kept["residues"])
    guess = Ragged(names[probability.values.argmax(axis=1)], probability.offsets)
    return {"prediction": texts(guess, config.classes), "probability": probability, **places(kept)}


def residue_values(config: NetworkConfig, kept: Kept) -> Predicted:
    """Return the values as a table has labels, and beside it as they are."""
    value = of_residues(kept["value"], kept["residues"])
    written_values = Ragged(np.array([f"{v:.6g}" for v in value.values]), value.offsets)
    return {"prediction": texts(written_values), "value": value, **places(kept)}


def places(kept: Kept) -> Predicted:
    """Return where in the whole protein its residues stand, from 1: `position` of each, and `positions` in words."""
    residues, left_out = kept["residues"], kept["left_out"]
    offsets = np.cumsum([0, *residues])
    number = np.arange(offsets[-1]) - offsets[:-1].repeat(residues) + 1
    first = residues - residues // 2  # of two ends, as `termini` cuts them
    position = number + left_out.repeat(residues) * (number > first.repeat(residues))
    words = [
        f"1-{half} {half + gap + 1}-{count + gap}" if gap else f"1-{count}"
        for count, half, gap in zip(residues, first, left_out, strict=True)
    ]
    return {"positions": np.array(words), "position": Ragged(position, offsets)}


def of_residues(rows: np.ndarray, residues: np.ndarray) -> Ragged:
    """Leave the residues of rows [N, S, ...], without <cls>, <eos> and padding."""
    position = np.arange(rows.shape[1])
    is_residue = (position >= 1) & (position <= residues[:, None])
    return Ragged(rows[is_residue], np.cumsum([0, *residues]))


def texts(labels: Ragged, classes: list[str] | None = None) -> np.ndarray:
    """Write the labels of the residues of each protein, text [N]."""
    return np.array([written(some, classes) for some in np.split(labels.values, labels.offsets[1:-1])])
