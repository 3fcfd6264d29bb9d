"""The losses: the mathematics as plain functions, then the classes that list them (contracts/loss.py)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from ..contracts.loss import ItemLossReduction
from .item import MnistItem


def squared_error(output: dict[str, Tensor], batch: MnistItem) -> Tensor:
    """Mean squared error of each reconstruction, (B), over its pixels; computed in float32."""
    return F.mse_loss(output["reconstruction"].float(), batch["data"].float(), reduction="none").flatten(1).mean(1)


def cross_entropy(output: dict[str, Tensor], batch: MnistItem) -> Tensor:
    """Cross entropy of each item's label, (B), in nats; computed in float32."""
    return F.cross_entropy(output["logits"].float(), batch["label"], reduction="none")


def correct(output: dict[str, Tensor], batch: MnistItem) -> Tensor:
    """1.0 where the highest score is the label's, else 0.0, (B) float32."""
    return (output["logits"].argmax(dim=-1) == batch["label"]).float()


class MSELossReduction(ItemLossReduction):
    """The autoencoder's loss: the squared error of its reconstructions."""

    def per_item(self, output: dict[str, Tensor], batch: MnistItem) -> tuple[Tensor, ...]:
        """See the base class."""
        return (squared_error(output, batch),)


class ClassifierLossReduction(ItemLossReduction):
    """The classifier's loss: the cross entropy of its scores; with the accuracy."""

    names = ("loss", "accuracy")

    def per_item(self, output: dict[str, Tensor], batch: MnistItem) -> tuple[Tensor, ...]:
        """See the base class."""
        return cross_entropy(output, batch), correct(output, batch)


class MSEPlusClassifierLossReduction(ItemLossReduction):
    """The sum of both losses, for a network that keeps the decoder while it learns to classify."""

    names = ("loss", "accuracy")

    def per_item(self, output: dict[str, Tensor], batch: MnistItem) -> tuple[Tensor, ...]:
        """See the base class."""
        return squared_error(output, batch) + cross_entropy(output, batch), correct(output, batch)
