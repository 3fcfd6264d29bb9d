"""How many micro batches a pipeline stage holds at a time, by the order in which Megatron works on them."""

from __future__ import annotations

from collections.abc import Iterator

from .stages import Activations


def most(activations: list[Activations], stage: int, stages: int, micro_batches: int) -> int:
    """Return the most bytes of activations that a rank holds in a step.

    Args:
        activations: of a micro batch in each virtual stage of this rank.
        stage: which of the pipeline's it is.
        stages: how many there are.
        micro_batches: of a step.
    """
    held = peak = 0
    micro_batches = min(micro_batches, 4 * stages)  # by then a stage does the same over and over, until the end
    for is_forward, part in order(stage, stages, len(activations), micro_batches):
        found = activations[part]
        peak = max(peak, held + (found.forward if is_forward else found.backward - found.kept))
        held += found.kept if is_forward else -found.kept
    return peak


def order(stage: int, stages: int, virtual: int, micro_batches: int) -> Iterator[tuple[bool, int]]:
    """Yield what a stage does in a step: whether it is a forward pass, and of which of its virtual stages.

    Source: `get_pp_rank_microbatches` and the schedules around it, `megatron/core/pipeline_parallel/schedules.py`.
    """
    total = micro_batches * virtual
    ahead = stages - stage - 1 if virtual == 1 else 2 * (stages - stage - 1) + (virtual - 1) * stages
    ahead = min(ahead, total)
    for number in range(total + ahead):
        if number < total:
            yield True, _part(number, stages, virtual)
        if number >= ahead:
            yield False, virtual - 1 - _part(number - ahead, stages, virtual)


def idle(stages: int, virtual: int, micro_batches: int) -> float:
    """Return the share of a step in which a stage waits for others, if all of them take equally long."""
    return (stages - 1) / (stages - 1 + micro_batches * virtual)


def _part(number: int, stages: int, virtual: int) -> int:
    return number % (stages * virtual) // stages
