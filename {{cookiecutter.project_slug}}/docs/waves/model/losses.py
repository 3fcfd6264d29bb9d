"""The loss: how well frequency and amplitude are answered."""

import torch.nn.functional as F
from torch import Tensor

from ..contracts.loss import ItemLossReduction
from .item import WaveItem


class WaveLoss(ItemLossReduction):
    """Cross entropy of the frequency plus smooth L1 of the amplitude; with the accuracy, and the error in volts."""

    names = ("loss", "accuracy", "error")

    def per_item(self, output: dict[str, Tensor], batch: WaveItem) -> tuple[Tensor, ...]:
        """Give one value for each wave, never their mean; computed in float32."""
        logits, amplitude = output["logits"].float(), output["amplitude"].float()
        frequency_loss = F.cross_entropy(logits, batch["frequency"], reduction="none")
        amplitude_loss = F.smooth_l1_loss(amplitude, batch["amplitude"], reduction="none")
        correct = (logits.argmax(dim=-1) == batch["frequency"]).float()
        return frequency_loss + amplitude_loss, correct, (amplitude - batch["amplitude"]).abs()
