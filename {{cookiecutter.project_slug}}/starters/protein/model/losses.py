"""What is minimised and reported for each network (contracts/loss.py)."""

from __future__ import annotations

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from ..contracts.loss import Counted, ItemLossReduction, LossReduction
from .item import ClassItem, MaskedItem, ResidueClassItem, ResidueValueItem, ValueItem


def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Return the cross entropy of each target, in nats, computed in float32; logits have one dimension more."""
    scores = logits.float().flatten(0, -2)
    return F.cross_entropy(scores, target.flatten(), reduction="none").view_as(target)


def is_right(logits: Tensor, target: Tensor) -> Tensor:
    """Return 1.0 where the highest score is the target's, else 0.0."""
    return (logits.argmax(dim=-1) == target).float()


class MaskedLoss(LossReduction):
    """The cross entropy of each token that was masked (Devlin et al., 2019); with accuracy and perplexity."""

    names = ("loss", "accuracy", "fill")
    unit = "masked tokens"
    derived: ClassVar = {"perplexity": lambda means: means["loss"].exp()}

    def counted(self, output: dict[str, Tensor], batch: MaskedItem) -> tuple[Counted, ...]:
        """Count the masked tokens; and how full the rows are, of all positions."""
        logits, targets, where = output["logits"], batch["targets"], batch["is_masked"]
        is_filled = batch["sequence"] > 0
        return (
            Counted(cross_entropy(logits, targets), where),
            Counted(is_right(logits, targets), where),
            Counted(is_filled.float(), is_filled.new_ones(is_filled.shape)),
        )


class ClassLoss(ItemLossReduction):
    """The cross entropy of each protein's class; with the accuracy."""

    names = ("loss", "accuracy")

    def per_item(self, output: dict[str, Tensor], batch: ClassItem) -> tuple[Tensor, ...]:
        """See the base class."""
        return cross_entropy(output["logits"], batch["label"]), is_right(output["logits"], batch["label"])


class ValueLoss(ItemLossReduction):
    """The squared error of each protein's value: by the variance of the labels to train on, and in their own units."""

    names = ("loss", "mse")

    def per_item(self, output: dict[str, Tensor], batch: ValueItem) -> tuple[Tensor, ...]:
        """See the base class."""
        error = output["logits"].squeeze(-1) - batch["label"]
        return (error / output["_deviation"]).square(), error.square()


class ResidueClassLoss(LossReduction):
    """The cross entropy of each labelled residue's class; with the accuracy."""

    names = ("loss", "accuracy")
    unit = "residues"

    def counted(self, output: dict[str, Tensor], batch: ResidueClassItem) -> tuple[Counted, ...]:
        """Count the labelled residues."""
        logits, label, where = output["logits"], batch["label"], batch["is_labelled"]
        return Counted(cross_entropy(logits, label), where), Counted(is_right(logits, label), where)


class ResidueValueLoss(LossReduction):
    """The squared error of each labelled residue's value: by the variance of labels, and in their own units."""

    names = ("loss", "mse")
    unit = "residues"

    def counted(self, output: dict[str, Tensor], batch: ResidueValueItem) -> tuple[Counted, ...]:
        """Count the labelled residues."""
        error, where = output["logits"].squeeze(-1) - batch["label"], batch["is_labelled"]
        return Counted((error / output["_deviation"][:, None]).square(), where), Counted(error.square(), where)
