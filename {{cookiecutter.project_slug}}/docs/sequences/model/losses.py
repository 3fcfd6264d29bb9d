"""The loss: how well masked letters are guessed. Letters are counted, not proteins."""

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from ..contracts.loss import Counted, LossReduction
from .item import ProteinItem


class MaskedLoss(LossReduction):
    """Cross entropy of the masked letters; with the accuracy and the perplexity."""

    names = ("loss", "accuracy")
    unit = "masked letters"
    derived: ClassVar = {"perplexity": lambda means: means["loss"].exp()}

    def counted(self, output: dict[str, Tensor], batch: ProteinItem) -> tuple[Counted, ...]:
        """Give a value for each position, and count those that are masked."""
        logits, letters, where = output["logits"].float(), batch["letters"], batch["is_masked"]
        loss = F.cross_entropy(logits.transpose(1, 2), letters, reduction="none")
        correct = (logits.argmax(dim=-1) == letters).float()
        return Counted(loss, where), Counted(correct, where)
