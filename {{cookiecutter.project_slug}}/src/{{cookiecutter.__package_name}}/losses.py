"""The losses: the mathematics as plain functions, then the classes through which Megatron's schedule calls them.

How a number gets from here into a log:

    per-item values (N, B) -> forward: totals [sum of each, number of items] of one micro batch
                           -> reduce:  summed over micro batches, all-reduced over data parallel ranks, then divided

A sum and a count travel, never a mean: the mean of means is wrong as soon as one micro batch holds padding. Padding
(idx < 0, see `PaddedToMultiple`) weighs nothing.

To use your own loss, write a function that gives one value per item, and a class that lists it in `per_item`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from megatron.core import parallel_state
from nemo.lightning.megatron_parallel import MegatronLossReduction
from torch import Tensor

from .data.item import MnistItem, SameSizeLossDict
from .errors import UserError
from .names import ACCURACY, COUNT, IDX, LABEL, LOSS, TRUTH


def squared_error(output: dict[str, Tensor], batch: MnistItem) -> Tensor:
    """Mean squared error of each reconstruction, (B), over its pixels; computed in float32."""
    return F.mse_loss(output["reconstruction"].float(), batch["data"].float(), reduction="none").flatten(1).mean(1)


def cross_entropy(output: dict[str, Tensor], batch: MnistItem) -> Tensor:
    """Cross entropy of each item's label, (B), in nats; computed in float32."""
    return F.cross_entropy(output["logits"].float(), batch["label"], reduction="none")


def correct(output: dict[str, Tensor], batch: MnistItem) -> Tensor:
    """1.0 where the highest score is the label's, else 0.0, (B) float32."""
    return (output["logits"].argmax(dim=-1) == batch["label"]).float()


class ItemLossReduction(MegatronLossReduction):
    """What the losses of this project share; a subclass names its per-item values.

    Source: NeMo's `MegatronLossReduction` (called by Megatron-Core's schedule through NeMo's `MegatronParallel`).
    """

    names: ClassVar[tuple[str, ...]] = (LOSS,)
    """What the values of `per_item` are called in logs; the first is minimised."""

    @property
    def result_names(self) -> tuple[str, ...]:
        """The keys of what `reduce` returns, in order."""
        return (*self.names, COUNT)

    def per_item(self, output: dict[str, Tensor], batch: MnistItem) -> tuple[Tensor, ...]:
        """Return for each of `names` the values of the items, (B) float32."""
        raise NotImplementedError

    def forward(self, batch: MnistItem, forward_out: dict[str, Tensor]) -> tuple[Tensor, SameSizeLossDict]:
        """Return the loss that is minimised (scalar) and what `reduce` needs of this micro batch.

        Raises:
            UserError: `per_item` does not give a value for each name and item, or wants what is not there.
        """
        try:
            given = self.per_item(forward_out, batch)
        except KeyError as error:
            there = f"the network gives {', '.join(forward_out)}, and an item has {', '.join(batch)}"
            raise UserError(f"losses.py: {type(self).__name__}.per_item wants {error}; {there}") from error
        values = self._checked(given, len(batch["idx"]))
        real = (batch["idx"] >= 0).to(values.dtype)
        totals = torch.cat([(values * real).sum(dim=1), real.sum().view(1)])
        loss = totals[0] / totals[-1].clamp(min=1)
        # Megatron's schedule divides the returned loss in place by the number of micro batches: log a copy of it.
        return loss, {"avg": loss.detach().clone(), "totals": totals.detach()}

    def _checked(self, values: tuple[Tensor, ...], size: int) -> Tensor:
        """Return the values as rows, (len(names), B)."""
        shapes = [tuple(value.shape) for value in values] if isinstance(values, tuple) else type(values).__name__
        if shapes != [(size,)] * len(self.names):
            rule = f"a tuple with one tensor of shape ({size},), a value for each item, for each of {self.names}"
            raise UserError(f"losses.py: {type(self).__name__}.per_item gave {shapes}, not {rule}")
        return torch.stack(values)

    def reduce(self, losses_reduced_per_micro_batch: Sequence[SameSizeLossDict]) -> dict[str, Tensor]:
        """Return the means over the global batch, float32 scalars by name, and the number of items as COUNT."""
        totals = torch.stack([micro_batch["totals"] for micro_batch in losses_reduced_per_micro_batch]).sum(dim=0)
        group = parallel_state.get_data_parallel_group(with_context_parallel=True)
        if group.size() > 1:
            torch.distributed.all_reduce(totals, group=group)
        means = totals[:-1] / totals[-1].clamp(min=1)
        return dict(zip(self.result_names, (*means.unbind(), totals[-1]), strict=True))


class MSELossReduction(ItemLossReduction):
    """The autoencoder's loss: the squared error of its reconstructions."""

    def per_item(self, output: dict[str, Tensor], batch: MnistItem) -> tuple[Tensor, ...]:
        """See the base class."""
        return (squared_error(output, batch),)


class ClassifierLossReduction(ItemLossReduction):
    """The classifier's loss: the cross entropy of its scores; with the accuracy."""

    names = (LOSS, ACCURACY)

    def per_item(self, output: dict[str, Tensor], batch: MnistItem) -> tuple[Tensor, ...]:
        """See the base class."""
        return cross_entropy(output, batch), correct(output, batch)


class MSEPlusClassifierLossReduction(ItemLossReduction):
    """The sum of both losses, for a network that keeps the decoder while it learns to classify."""

    names = (LOSS, ACCURACY)

    def per_item(self, output: dict[str, Tensor], batch: MnistItem) -> tuple[Tensor, ...]:
        """See the base class."""
        return squared_error(output, batch) + cross_entropy(output, batch), correct(output, batch)


class PassthroughReduction(MegatronLossReduction):
    """For prediction: no loss, the outputs themselves."""

    def forward(self, batch: MnistItem, forward_out: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return a loss that nobody reads, and the outputs with label, idx and every other number of the items."""
        items: dict[str, Any] = {**batch}
        own = {key if key in (IDX, LABEL) else f"{TRUTH}{key}": items[key] for key in items if items[key].ndim == 1}
        return torch.zeros(1), {**forward_out, **own}

    def reduce(self, losses_reduced_per_micro_batch: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
        """Join the micro batches' outputs along the items."""
        keys = losses_reduced_per_micro_batch[0]
        return {key: torch.cat([part[key] for part in losses_reduced_per_micro_batch]) for key in keys}
