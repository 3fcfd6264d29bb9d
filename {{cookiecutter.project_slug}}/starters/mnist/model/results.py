"""What is kept of the networks' outputs, and what `predict` writes of that (contracts/config.py)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .item import MnistItem


def keep(output: dict[str, Tensor], batch: MnistItem) -> dict[str, Tensor]:
    """Return the latents and labels, the probabilities of the classes, and images before and after as uint8 pixels."""
    kept = {"label": batch["label"], "image": grey(batch["data"]), "latent": output["latent"].float()}
    if "logits" in output:
        kept["probability"] = output["logits"].float().softmax(dim=-1)
    if "reconstruction" in output:
        kept["reconstruction"] = grey(output["reconstruction"])
    return kept


def grey(data: Tensor) -> Tensor:
    """Turn float images [B, 1, rows, pixels] from 0 to 1 into uint8 [B, rows, pixels]."""
    return data.float().squeeze(1).clamp(0, 1).mul(255).round().to(torch.uint8)


def predictions(kept: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the columns of predictions.csv: of a classifier the label, the predicted class and its probability."""
    if "probability" not in kept:
        return {}
    probability = kept["probability"]
    answer, sureness = probability.argmax(axis=1), probability.max(axis=1)
    return {"label": kept["label"], "prediction": answer, "probability": sureness}
