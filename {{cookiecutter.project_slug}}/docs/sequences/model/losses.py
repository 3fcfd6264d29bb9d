"""The losses: how well masked letters are guessed, and how well families. One counts letters, the other proteins."""

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from ..contracts.loss import Counted, ItemLossReduction, LossReduction
from .item import FamilyItem, MaskedItem


class MaskedLoss(LossReduction):
    """Cross entropy of the masked letters; with the accuracy and the perplexity."""

    names = ("loss", "accuracy")
    unit = "masked letters"
    derived: ClassVar = {"perplexity": lambda means: means["loss"].exp()}

    def counted(self, output: dict[str, Tensor], batch: MaskedItem) -> tuple[Counted, ...]:
        """Give a value for each position, and count those that are masked."""
        logits, letters, where = output["logits"].float(), batch["letters"], batch["is_masked"]
        loss = F.cross_entropy(logits.transpose(1, 2), letters, reduction="none")
        correct = (logits.argmax(dim=-1) == letters).float()
        return Counted(loss, where), Counted(correct, where)


class FamilyLoss(ItemLossReduction):
    """Cross entropy of the family; with the accuracy."""

    names = ("loss", "accuracy")

    def per_item(self, output: dict[str, Tensor], batch: FamilyItem) -> tuple[Tensor, ...]:
        """Give a value for each protein."""
        logits, family = output["logits"].float(), batch["family"]
        return F.cross_entropy(logits, family, reduction="none"), (logits.argmax(dim=-1) == family).float()
