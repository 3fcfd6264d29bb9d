"""What is kept of the outputs, and what `predict` writes of that."""

import numpy as np
from torch import Tensor

from .item import WaveItem


def keep(output: dict[str, Tensor], batch: WaveItem) -> dict[str, Tensor]:
    """Keep all answers of a micro batch, and the truth beside them."""
    return {**output, "true_frequency": batch["frequency"], "true_amplitude": batch["amplitude"]}


def predictions(kept: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the columns of predictions.csv."""
    columns = {name: kept[name] for name in ("true_frequency", "amplitude", "true_amplitude")}
    return {"frequency": kept["logits"].argmax(axis=1), **columns}
