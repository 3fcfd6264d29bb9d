"""Says a plan in words and tables that fit a terminal, and what of it is exact and what estimated."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from textwrap import wrap

from ..contracts.peaks import PEAKS
from ..contracts.settings import RunSettings
from .plan import Plan, make_plan
from .schedule import idle

_MOST = 16
"""Rows of a table; of more both ends are shown."""

_WIDTH = 120

_CHIP, _SHARE = "H100", 0.4
"""Of which peak a GPU does which share, by the operations that a network needs: 650M parameters in bf16 did 41.5 %."""

_SHORT = 0.01
"""Seconds of computing for a micro batch, below which starting kernels, gradients on their way and data take longer."""

_TIMES = ((86_400, "days"), (3_600, "h"), (60, "min"), (1, "s"), (0.001, "ms"))

_SIZES, _USABLE = (24, 40, 80, 141, 192), 0.9
"""GB of GPUs, of 10^9 bytes, and the share of them that is left for what is planned."""

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
    ranks, devices = range(settings.world_size), split.devices
    if settings.world_size == 1:
        return
    by_node = settings.world_size > _MOST
    wide = devices if by_node else 1

    def row(first: int) -> list[str]:
        shown = ranks[first : first + wide]
        return [str(first // devices), _span(shown[0], shown[-1]), *(_span(*g.places(shown)) for g in plan.groups)]

    yield from _table(["node", "ranks" if by_node else "rank", *_PLACES], ranks[::wide], row)
    yield ""
    for name, role, group in zip(_PLACES, _ROLES, plan.groups, strict=True):
        if group.size > 1:
            nodes = group.nodes(devices)
            apart = "side by side" if group.step == 1 else f"{group.step} apart"
            where = "on one node" if nodes == 1 else f"on {nodes} nodes"
            slow = " (they talk in every layer: slow)" if name == "tensor" and nodes > 1 else ""
            yield f"{name:9} {group.size} ranks, {apart}, {role}: {where}{slow}"


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
        yield from _time(plan)
    if plan.items is None:
        yield f"epoch     unknown: {plan.why_unknown}"
    else:
        steps = plan.items / batch
        yield (
            f"epoch     {steps:,.1f} steps, of {plan.items:,} items; --training.max_steps {training.max_steps:,} "
            f"are {training.max_steps / steps:,.2f} epochs"
        )
    kept = training.keep_checkpoints
    size, room = _bytes(plan.checkpoint), _bytes(plan.checkpoint * (kept + 2))
    yield f"disk      {size} a checkpoint; {room} for the last {kept}, the best, and one that is being saved"


def _time(plan: Plan) -> Iterator[str]:
    """Say how long a training takes on GPUs that compute as fast as they do for large networks."""
    settings, split = plan.settings, plan.settings.parallel
    if settings.accelerator == "cpu" or not plan.flops:
        return
    precision, steps = settings.training.precision, settings.training.max_steps
    peak, works = PEAKS[_CHIP][precision], 1 - idle(split.pipeline, split.virtual_pipeline, plan.micro_batches)
    computing = plan.flops / settings.world_size / (_SHARE * peak)
    step = _duration(computing / works)
    if computing / plan.micro_batches < _SHORT:
        short = f"micro batches of less than {_duration(_SHORT)}"
        yield f"time      computing takes {step} of a step; in {short} other things take longer"
    else:
        rate = f"{_SHARE:.0%} of an {_CHIP}'s {peak / 1e12:.0f} TFLOP/s in {precision}"
        whole = _duration(computing / works * steps)
        yield f"time      {step} a step, {whole} for {steps:,} steps, at {rate}; small networks do less"


def _memory(plan: Plan) -> Iterator[str]:
    """Say what a rank of each stage holds, by part."""
    together = [memory.together or memory.fixed for memory in plan.memory]
    width, unit = _unit(max(together))

    def size(number: int | None) -> str:
        return "unknown" if number is None else f"{number / width:.2f}"

    split, copies = plan.settings.parallel, plan.settings.data_parallel_size
    share = split.tensor * copies

    def row(number: int) -> list[str]:
        memory = plan.memory[number]
        return [
            f"{number}: ranks {_span(number * share, (number + 1) * share - 1)}",
            f"{plan.stages[number].parameters:,}",
            *map(size, (memory.weights, memory.gradients, memory.optimizer, memory.activations, memory.together)),
        ]

    head = ["stage", "parameters", "weights", "gradients", "optimizer", "activations", "together"]
    yield f"memory of each {_device(plan)[0]}, in {unit}:"
    yield from _table(head, range(len(plan.stages)), row)
    if reason := next((stage.unknown for stage in plan.stages if stage.unknown), ""):
        yield f"activations: the network cannot be run without numbers ({reason})"
    elif len(plan.recomputed) > 1:
        found = ", ".join(f"{size(most)} with {name}" for name, most in plan.recomputed.items())
        yield f"activations by --model.recompute: {found}"
    if not reason and plan.settings.accelerator != "cpu":
        yield _fits(max(together))


def _fits(needed: int) -> str:
    """Say how large a GPU has to be."""
    size = next((size for size in _SIZES if needed <= _USABLE * size * 10**9), None)
    margin = "with a tenth of it for CUDA, NCCL and the allocator"
    if size is None:
        return f"needs GPUs of more than {_SIZES[-1]} GB, {margin}"
    return f"fits into GPUs of {size} GB{' and more' if size < _SIZES[-1] else ''}, {margin}"


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


def _duration(seconds: float) -> str:
    size, unit = next((pair for pair in _TIMES if seconds >= pair[0]), _TIMES[-1])
    number = seconds / size
    return f"{number:.2g} {unit}" if number < 100 else f"{number:,.0f} {unit}"


def _bytes(number: int) -> str:
    width, unit = _unit(number)
    return f"{number / width:,.3g} {unit}"


def _unit(number: int) -> tuple[int, str]:
    return (2**30, "GiB") if number >= 2**28 else (2**20, "MiB")


def _span(first: int, last: int) -> str:
    return str(first) if first == last else f"{first}-{last}"


def _table(head: list[str], numbers: range, row: Callable[[int], list[str]]) -> Iterator[str]:
    """Yield the lines of a table that has a row for each number, of which only those shown are made."""
    half = _MOST // 2
    if numbers[_MOST:]:
        rows = [*map(row, numbers[:half]), ["..."] * len(head), *map(row, numbers[-half:])]
    else:
        rows = [row(number) for number in numbers]
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    for cells in (head, *rows):
        yield "  " + "  ".join(f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True))
