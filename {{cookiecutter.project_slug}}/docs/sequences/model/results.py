"""What is kept of the outputs: two numbers a protein, and never all scores. `predict` writes them as they are."""

import numpy as np
from torch import Tensor

from .item import FamilyItem, MaskedItem


def keep_masked(output: dict[str, Tensor], batch: MaskedItem) -> dict[str, Tensor]:
    """Count the masked letters of each protein, and those that are guessed right."""
    is_right = batch["is_masked"] & (output["logits"].argmax(dim=-1) == batch["letters"])
    return {"masked": batch["is_masked"].sum(dim=1), "right": is_right.sum(dim=1)}


def keep_family(output: dict[str, Tensor], batch: FamilyItem) -> dict[str, Tensor]:
    """Keep the guessed family, and the true one."""
    return {"family": output["logits"].argmax(dim=-1), "true_family": batch["family"]}


def predictions(kept: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the columns of predictions.csv: all that was kept."""
    return kept
