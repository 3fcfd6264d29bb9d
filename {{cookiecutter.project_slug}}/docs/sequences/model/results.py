"""What is kept of the outputs: two numbers a protein, of S times 22."""

import numpy as np
from torch import Tensor

from .item import ProteinItem


def keep(output: dict[str, Tensor], batch: ProteinItem) -> dict[str, Tensor]:
    """Count the masked letters of each protein, and those that are guessed right."""
    is_right = batch["is_masked"] & (output["logits"].argmax(dim=-1) == batch["letters"])
    return {"masked": batch["is_masked"].sum(dim=1), "right": is_right.sum(dim=1)}


def predictions(kept: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the columns of predictions.csv."""
    return {"masked": kept["masked"], "right": kept["right"]}
