"""What a loss gives: for each of its names a sum and a count.

    values of a micro batch -> forward: [sum, count] of each name
                            -> reduce:  added over micro batches and data parallel ranks
                            -> sum / count over the global batch, which is what is minimised and reported

A sum and a count travel, never a mean: a mean of means is another number as soon as one micro batch counts more than
another, and so another training in another layout. What is counted is the loss's own: items, masked tokens. Padding
counts nothing. The gradients are divided once, by the count of the whole global batch
(`TransformerConfig.calculate_per_token_loss` of Megatron-Core).

One value an item is an `ItemLossReduction`. For anything else, one value a position, say, derive from `LossReduction`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple, TypedDict

import torch
from megatron.core import parallel_state
from nemo.lightning.megatron_parallel import MegatronLossReduction
from torch import Tensor

from .errors import UserError
from .given import Given, NotGivenError
from .names import GRAD_NORM, LEARNING_RATE, LOSS, STEP, is_measured


class Counted(NamedTuple):
    """Values, and which of them count."""

    values: Tensor
    """float32 [B, ...]"""
    where: Tensor
    """bool, of the same shape"""


class LossTotals(TypedDict):
    """What a loss reduction keeps of one micro batch, or of the global batch."""

    totals: Tensor
    """float64 [names, 2]: the sum of the counted values of each name, and how many they are"""


class LossReduction(MegatronLossReduction):
    """The base of every loss: a subclass gives `names` and `counted`.

    Source: NeMo's `MegatronLossReduction` (called by Megatron-Core's schedule through NeMo's `MegatronParallel`).
    """

    names: ClassVar[tuple[str, ...]] = (LOSS,)
    """What is logged, as train_, val_ and test_ of it; the first is minimised and called "loss"."""

    unit: ClassVar[str] = "items"
    """What is counted, in words, for the report."""

    derived: ClassVar[dict[str, Callable[[dict[str, Tensor]], Tensor]]] = {}
    """Figures that are functions of the means by name, such as a perplexity; logged beside them."""

    def counted(self, output: dict[str, Tensor], batch: Any) -> tuple[Counted, ...]:
        """Return for each of `names` the values of a micro batch and which of them count; padding is taken out."""
        raise NotImplementedError

    def forward(self, batch: Any, forward_out: dict[str, Tensor]) -> tuple[Tensor, Tensor, LossTotals]:
        """Return the sum that is minimised (scalar), its count (int32 scalar), and what `reduce` needs of both.

        Raises:
            UserError: `counted` does not give what it should, or wants what is not there.
        """
        try:
            given = self.counted(Given(forward_out), Given(batch))
        except NotGivenError as error:
            there = f"the network gives {', '.join(forward_out)}, and an item has {', '.join(batch)}"
            raise UserError(f"model/losses.py: {type(self).__name__} wants {error}; {there}") from error
        self._check(given, len(batch["idx"]))
        learns = torch.is_grad_enabled() and any(value.requires_grad for value in forward_out.values())
        if learns and not given[0].values.requires_grad:
            raise UserError(
                f"model/losses.py: {type(self).__name__} gives a {LOSS} that is detached from the network, which would "
                "learn nothing: compute it from the outputs by functions that have gradients"
            )
        is_real = batch["idx"] >= 0
        totals = torch.stack([_sum_and_count(term, is_real) for term in given])
        return totals[0, 0].float(), totals[0, 1].detach().int(), {"totals": totals.detach()}

    def _check(self, given: Any, size: int) -> None:
        is_right = isinstance(given, tuple) and len(given) == len(self.names)
        if not is_right or any(
            not isinstance(term, Counted)
            or not all(isinstance(part, Tensor) for part in term)
            or term.values.shape != term.where.shape
            or term.values.shape[:1] != (size,)
            or term.where.dtype != torch.bool
            for term in given
        ):
            found = [_describe(term) for term in given] if isinstance(given, tuple) else type(given).__name__
            rule = f"for each of {self.names} Counted(values, where): float and bool, of one shape ({size}, ...)"
            raise UserError(f"model/losses.py: {type(self).__name__}.counted gave {found}, not {rule}")

    def reduce(self, losses_reduced_per_micro_batch: Sequence[LossTotals]) -> dict[str, Tensor]:
        """Return the totals of the global batch, float64 [names, 2], and its mean loss, a float32 scalar."""
        totals = torch.stack([micro_batch["totals"] for micro_batch in losses_reduced_per_micro_batch]).sum(dim=0)
        group = parallel_state.get_data_parallel_group(with_context_parallel=True)
        if group.size() > 1:
            torch.distributed.all_reduce(totals, group=group)
        return self.of_totals(totals)

    def of_totals(self, totals: Tensor) -> dict[str, Tensor]:
        """Return what a step answers: totals [names, 2], and the mean of the first name, which Lightning wants."""
        return {"totals": totals, LOSS: (totals[0, 0] / totals[0, 1].clamp(min=1)).float()}

    def figures(self, totals: Tensor) -> dict[str, Tensor]:
        """Return each mean by its name, NaN over nothing, and what is derived from them, of totals [names, 2]."""
        means = dict(zip(self.names, (totals[:, 0] / totals[:, 1]).float().unbind(), strict=True))
        return means | {name: function(means) for name, function in self.derived.items()}


class ItemLossReduction(LossReduction):
    """A loss of one value for each item: a subclass gives `names` and `per_item`."""

    def per_item(self, output: dict[str, Tensor], batch: Any) -> tuple[Tensor, ...]:
        """Return for each of `names` the values of the items, (B) float32."""
        raise NotImplementedError

    def counted(self, output: dict[str, Tensor], batch: Any) -> tuple[Counted, ...]:
        """Count every item once.

        Raises:
            UserError: `per_item` does not give a value for each name and item.
        """
        given, size = self.per_item(output, batch), len(batch["idx"])
        shapes = [tuple(value.shape) for value in given] if isinstance(given, tuple) else type(given).__name__
        if shapes != [(size,)] * len(self.names):
            rule = f"a tuple with one tensor of shape ({size},), a value for each item, for each of {self.names}"
            raise UserError(f"model/losses.py: {type(self).__name__}.per_item gave {shapes}, not {rule}")
        return tuple(Counted(values, torch.ones_like(values, dtype=torch.bool)) for values in given)


def check_loss(loss: type[LossReduction]) -> None:
    """Raise a UserError for a loss that lacks its function, or has names that its figures cannot be logged under."""
    who = f"model/losses.py: {loss.__name__}"
    part = "per_item" if loss.counted is ItemLossReduction.counted else "counted"
    if getattr(loss, part) in (LossReduction.counted, ItemLossReduction.per_item):
        raise UserError(f"{who} lacks {part}: say what its values are")
    if not isinstance(loss.names, tuple):
        raise UserError(f'{who}.names is {loss.names!r}, and must be a tuple: write ("{LOSS}",), say')
    if loss.names[:1] != (LOSS,):
        raise UserError(f"{who}.names is {loss.names}: begin with {LOSS}, which is minimised")
    _check_names((*loss.names, *loss.derived), who)


def _check_names(names: Sequence[Any], who: str) -> None:
    for name in names:
        if not (isinstance(name, str) and name.isascii() and name.isidentifier()):
            raise UserError(f"{who} calls a figure {name!r}: use letters, numbers and _")
        if name in (STEP, LEARNING_RATE, GRAD_NORM) or is_measured(name):
            raise UserError(f"{who} calls a figure {name}, as something else is called in the log: rename it")
        if names.count(name) > 1:
            raise UserError(f"{who} calls two figures {name}: names and derived must all be different")


def _sum_and_count(term: Counted, is_real: Tensor) -> Tensor:
    """Return the float64 pair of a micro batch; what does not count adds nothing, not even if it is not finite."""
    where = term.where & is_real.view(-1, *[1] * (term.where.ndim - 1))
    total = torch.where(where, term.values.float(), 0.0).sum(dtype=torch.float64)
    return torch.stack([total, where.sum(dtype=torch.float64)])


def _describe(term: Any) -> str:
    if not isinstance(term, Counted):
        return type(term).__name__
    return f"({', '.join(map(_kind, term))})"


def _kind(part: Any) -> str:
    if not isinstance(part, Tensor):
        return type(part).__name__
    return f"{str(part.dtype).removeprefix('torch.')} {tuple(part.shape)}"
