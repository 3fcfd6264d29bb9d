"""Says a plan in words and tables that fit a terminal, and what of it is exact and what estimated."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from textwrap import wrap

from ..contracts.settings import RunSettings
from .plan import Plan, make_plan
from .schedule import idle

_MOST = 16
"""Rows of a table; of more both ends are shown."""

_WIDTH = 120

_PLACES = ("tensor", "pipeline", "data")
_ROLES = ("share each layer", "hold the layers one after the other", "train on different items")


def plan_in_words(settings: RunSettings) -> Iterator[str]:
    """Yield the plan of a run line by line; UserError as of `make_plan`."""
    plan = make_plan(settings)
    for part in (_layout, _ranks, _step, _memory, _trust):
        lines = list(part(plan))
        for line in [*lines, ""] if lines and part is not _trust else lines:
            yield from wrap(line, _WIDTH, subsequent_indent=" " * 10) if len(line) > _WIDTH else [line]


def _layout(plan: Plan) -> Iterator[str]:
    split, settings = plan.settings.parallel, plan.settings
    machines = f" on {split.num_nodes} nodes" if split.num_nodes > 1 else ""
    parts = f" in {split.virtual_pipeline} parts each" if split.virtual_pipeline > 1 else ""
    sequence = " with sequence" if split.sequence else ""
    yield f"{settings.network}: {plan.parameters:,} parameters, {settings.training.precision}"
    yield (
        f"{_many(settings.world_size, *_device(plan))}{machines} = tensor {split.tensor}{sequence} x pipeline "
        f"{split.pipeline}{parts} x data {settings.data_parallel_size}"
    )


def _ranks(plan: Plan) -> Iterator[str]:
    """Say where each rank stands, by node if they are many; and how far those are that talk to each other."""
    settings, split = plan.settings, plan.settings.parallel
    ranks, devices, data = range(settings.world_size), split.devices, settings.data_parallel_size
    if len(ranks) == 1:
        return
    by_node = len(ranks) > _MOST
    wide = devices if by_node else 1
    rows = []
    for first in ranks[::wide]:
        row = ranks[first : first + wide]
        places = zip(*map(plan.place, row), strict=True)
        rows.append([str(first // devices), _span(row), *map(_span, places)])
    yield from _table(["node", "ranks" if by_node else "rank", *_PLACES], rows)
    yield ""
    for n, (size, step) in enumerate(((split.tensor, 1), (split.pipeline, split.tensor * data), (data, split.tensor))):
        if size > 1:
            groups = ((rank + step * (k - plan.place(rank)[n]) for k in range(size)) for rank in ranks)
            nodes = max(len({member // devices for member in group}) for group in groups)
            apart = "side by side" if step == 1 else f"{step} apart"
            where = "on one node" if nodes == 1 else f"on {nodes} nodes"
            slow = " (they talk in every layer: slow)" if n == 0 and nodes > 1 else ""
            yield f"{_PLACES[n]:9} {size} ranks, {apart}, {_ROLES[n]}: {where}{slow}"


def _step(plan: Plan) -> Iterator[str]:
    settings, training, split = plan.settings, plan.settings.training, plan.settings.parallel
    batch = training.global_batch_size
    each = f"{_many(plan.micro_batches, 'micro batch', 'es')} x {settings.micro_batch_size}"
    pieces = f"; {batch * plan.sequence_length:,} {plan.pieces}, padding included" if plan.pieces else ""
    yield f"step      {batch:,} items = data {settings.data_parallel_size} x {each}{pieces}"
    if split.pipeline > 1:
        waiting = idle(split.pipeline, split.virtual_pipeline, plan.micro_batches)
        yield f"pipeline  a stage waits for others in {waiting:.0%} of a step; more micro batches lower that"
    if plan.flops is None:
        yield "compute   unknown: the config in model/config.py has no flops_per_item"
    else:
        share = _flop(plan.flops / settings.world_size)
        yield f"compute   {_flop(plan.flops)} a step, {share} for each {_device(plan)[0]}"
    if plan.items is None:
        yield f"epoch     unknown: {plan.why_unknown}"
    else:
        steps = plan.items / batch
        yield (
            f"epoch     {steps:,.1f} steps, of {plan.items:,} items; --training.max_steps {training.max_steps:,} "
            f"are {training.max_steps / steps:,.2f} epochs"
        )
    width, unit = _unit(plan.checkpoint)
    yield f"disk      {plan.checkpoint / width:,.3g} {unit} a checkpoint, of which a run keeps three"


def _memory(plan: Plan) -> Iterator[str]:
    """Say what a rank of each stage holds, by part."""
    together = [memory.together or memory.fixed for memory in plan.memory]
    width, unit = _unit(max(together))

    def size(number: int | None) -> str:
        return "unknown" if number is None else f"{number / width:.2f}"

    split, copies = plan.settings.parallel, plan.settings.data_parallel_size
    share = split.tensor * copies
    rows = [
        [
            f"{number}: ranks {_span(range(number * share, (number + 1) * share))}",
            f"{stage.parameters:,}",
            *map(size, (memory.weights, memory.gradients, memory.optimizer, memory.activations, memory.together)),
        ]
        for number, (stage, memory) in enumerate(zip(plan.stages, plan.memory, strict=True))
    ]
    head = ["stage", "parameters", "weights", "gradients", "optimizer", "activations", "together"]
    yield f"memory of each {_device(plan)[0]}, in {unit}:"
    yield from _table(head, rows)
    if reason := next((stage.unknown for stage in plan.stages if stage.unknown), ""):
        yield f"activations: the network cannot be run without numbers ({reason})"
    elif len(plan.recomputed) > 1:
        found = ", ".join(f"{size(most)} with {name}" for name, most in plan.recomputed.items())
        yield f"activations by --model.recompute: {found}"


def _trust(plan: Plan) -> Iterator[str]:
    yield "exact      places, parameters, steps; weights, gradients and optimizer, but for Megatron's padding"
    yield "estimated  activations: what the operations of one micro batch allocate, found without computing it"
    if plan.settings.accelerator == "cpu":
        yield "not in it  Python and its libraries, and the data"
    else:
        yield "not in it  what CUDA, NCCL and the allocator take for themselves"


def _device(plan: Plan) -> tuple[str, str]:
    """Return what a process computes on and its plural's ending; for "auto" a GPU, whatever this machine has."""
    return ("CPU process", "es") if plan.settings.accelerator == "cpu" else ("GPU", "s")


def _many(count: int, noun: str, ending: str = "s") -> str:
    return f"{count:,} {noun}{ending if count > 1 else ''}"


def _flop(number: float) -> str:
    for power, prefix in ((18, "E"), (15, "P"), (12, "T"), (9, "G"), (6, "M")):
        if number >= 10**power:
            return f"{number / 10**power:.3g} {prefix}FLOP"
    return f"{number:.3g} FLOP"


def _unit(number: int) -> tuple[int, str]:
    return (2**30, "GiB") if number >= 2**28 else (2**20, "MiB")


def _span(numbers: Iterable[int]) -> str:
    found = sorted(set(numbers))
    return str(found[0]) if len(found) == 1 else f"{found[0]}-{found[-1]}"


def _table(head: list[str], rows: list[list[str]]) -> Iterator[str]:
    if len(rows) > _MOST:
        half = _MOST // 2
        rows = [*rows[:half], ["..."] * len(head), *rows[-half:]]
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    for row in (head, *rows):
        yield "  " + "  ".join(f"{cell:>{width}}" for cell, width in zip(row, widths, strict=True))
