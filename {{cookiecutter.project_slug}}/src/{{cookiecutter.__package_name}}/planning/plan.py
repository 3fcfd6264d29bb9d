"""Puts together what a layout needs: of each rank, of a step, of an epoch, of the disk."""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd

from ..contracts.config import NetworkConfig, check_config, sized
from ..contracts.errors import UserError, need
from ..contracts.settings import RunSettings
from ..model import config as model
from .schedule import most
from .stages import Stage, rehearse

RECOMPUTED = ("none", "selective", "full")
"""What a config's `recompute` may be."""

_MOMENTS = 8
"""Bytes of Adam's two moments of a weight, fp32."""

_MAIN = 4
"""Bytes of its gradient, and of the weight that the optimizer changes, fp32."""


@dataclass(frozen=True)
class Memory:
    """What a rank holds in a step, in bytes."""

    weights: int
    """as they are computed with"""
    gradients: int
    """fp32, added up over micro batches"""
    optimizer: int
    """this data parallel rank's share of Adam's moments, and in bf16 of the fp32 weights that they change"""
    activations: int | None
    """the most at a time; None: unknown"""

    @property
    def fixed(self) -> int:
        """What stays from step to step."""
        return self.weights + self.gradients + self.optimizer

    @property
    def together(self) -> int | None:
        """All of it; None: unknown."""
        return None if self.activations is None else self.fixed + self.activations


@dataclass(frozen=True)
class RankGroup:
    """Ranks that talk to each other; the others do so in groups like it."""

    size: int
    """how many they are"""
    step: int
    """from one to the next"""

    def places(self, ranks: range) -> tuple[int, int]:
        """Return the first and the last place that ranks which follow each other take in their groups."""
        first, last = ranks[0] // self.step, ranks[-1] // self.step
        if first // self.size < last // self.size:  # the end of a group and the beginning of the next one
            return 0, self.size - 1
        return first % self.size, last % self.size

    def nodes(self, devices: int) -> int:
        """Return on how many nodes, of so many ranks each, the most spread out of these groups lies."""
        if self.step >= devices:
            return self.size
        # Groups begin at each multiple of size x step, and at the step - 1 ranks after it: as late on a node as this.
        latest = devices - max(gcd(devices, self.size * self.step) - self.step, 0) - 1
        return (latest + self.step * (self.size - 1)) // devices + 1


@dataclass(frozen=True)
class Plan:
    """A layout and what it needs."""

    settings: RunSettings
    stages: list[Stage]
    """of the pipeline"""
    memory: list[Memory]
    """of a rank of each stage"""
    recomputed: dict[str, int]
    """the most bytes of activations of any rank, by what is computed again; empty if the network has no such setting"""
    parameters: int
    """of the whole network"""
    checkpoint: int
    """bytes of one, about"""
    flops: float | None
    """operations of a step on all devices; None: the config does not count them"""
    pieces: str | None
    """what an item is made of, in a word"""
    sequence_length: int
    """of these in an item"""
    items: int | None
    """to train on; None: unknown"""
    why_unknown: str
    """the number of items"""

    @property
    def micro_batches(self) -> int:
        """Of a rank in a step."""
        return micro_batches(self.settings)

    def place(self, rank: int) -> tuple[int, int, int]:
        """Return which tensor parallel rank, pipeline stage and data parallel rank a rank is, each from 0.

        Source: the order "tp-cp-ep-dp-pp" of Megatron's `initialize_model_parallel`, which NeMo takes.
        """
        tensor, pipeline, data = (rank // group.step % group.size for group in self.groups)
        return tensor, pipeline, data

    @property
    def groups(self) -> tuple[RankGroup, RankGroup, RankGroup]:
        """The ranks that talk to each other: tensor, pipeline, data parallel."""
        split, data = self.settings.parallel, self.settings.data_parallel_size
        return RankGroup(split.tensor, 1), RankGroup(split.pipeline, split.tensor * data), RankGroup(data, split.tensor)


def micro_batches(settings: RunSettings) -> int:
    """Return how many micro batches a rank computes in a step."""
    return settings.training.global_batch_size // (settings.data_parallel_size * settings.micro_batch_size)


def make_plan(settings: RunSettings) -> Plan:
    """Work out what a layout needs, in this process alone.

    Raises:
        UserError: the network cannot be built in this layout, or is not what its contract says.
    """
    need(model, "NETWORKS")
    kind = check_config(settings.network, model.NETWORKS)
    try:
        config = sized(kind, settings)
    except (AssertionError, ValueError) as error:
        raise UserError(f"Megatron refuses these sizes ({' '.join(str(error).split())}): change them") from error
    chosen = config.recompute
    variants = RECOMPUTED if hasattr(settings.model, "recompute") else (chosen,)
    stages = [rehearse(settings, config, number, variants) for number in range(settings.parallel.pipeline)]
    held = {
        variant: [_held(settings, stage, number, variant) for number, stage in enumerate(stages)]
        for variant in variants
        if not any(stage.unknown for stage in stages)
    }
    unknown = [None] * len(stages)
    whole, trained = sum(stage.whole for stage in stages), sum(stage.whole_trained for stage in stages)
    flops, (items, why) = config.flops_per_item(), _count(settings, kind)
    return Plan(
        settings=settings,
        stages=stages,
        memory=[_memory(settings, *pair) for pair in zip(stages, held.get(chosen, unknown), strict=True)],
        recomputed={variant: max(numbers) for variant, numbers in held.items()},
        parameters=whole,
        checkpoint=whole * _width(settings) + trained * (_MAIN + _MOMENTS),
        flops=flops and flops * settings.training.global_batch_size,
        pieces=config.pieces,
        sequence_length=config.sequence_length,
        items=items,
        why_unknown=why,
    )


def _held(settings: RunSettings, stage: Stage, number: int, variant: str) -> int:
    return most(stage.activations[variant], number, settings.parallel.pipeline, micro_batches(settings))


def _memory(settings: RunSettings, stage: Stage, activations: int | None) -> Memory:
    width = _width(settings)
    state = _MOMENTS + (_MAIN if width < _MAIN else 0)  # in fp32 the weights are changed where they lie
    return Memory(
        weights=stage.parameters * width,
        gradients=stage.trained * _MAIN,
        optimizer=-(-stage.trained * state // settings.data_parallel_size),
        activations=activations,
    )


def _width(settings: RunSettings) -> int:
    """Return the bytes of a weight as it is computed with."""
    return 2 if settings.training.precision == "bf16" else 4


def _count(settings: RunSettings, config: type[NetworkConfig]) -> tuple[int | None, str]:
    """Return how many items there are to train on, or None and why nobody knows."""
    try:
        return config.count_training(settings), "the data have not been read yet"
    except UserError as error:
        return None, str(error)
