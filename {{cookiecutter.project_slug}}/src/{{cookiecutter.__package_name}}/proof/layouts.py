"""Proves that a network trains the same however its work is spread: the `layouts` command.

Every layout that the network and the machine allow trains the same steps from the same start weights, and is compared
with one process and one micro batch: what was logged, and what was saved. A wrong one does not fail by itself: a bias
added on every rank, a mean of unequal parts or a lost gradient only trains another model.
"""

from __future__ import annotations

import json
import math
import os
import platform
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any, Literal

import torch

from ..contracts import names
from ..contracts.errors import UserError
from ..contracts.files import write_whole
from ..contracts.settings import ParallelSettings
from ..model.settings import Settings
from ..runtime.backend import choose
from ..training.train import train
from .differences import BOUNDS, Differences, compare
from .ranks import RanksFailed, run_ranks

ACROSS_DEVICES = 10
"""How many times further apart a CPU and a GPU may be: they sum in other orders everywhere."""

MODEL_PARALLEL_SIZES = (1, 2, 4, 8)
DATA_PARALLEL_SIZES = (1, 2, 3, 4, 8)


@dataclass(frozen=True)
class Layout:
    """One way to spread the work."""

    parallel: ParallelSettings
    num_microbatches: int
    accelerator: Literal["cpu", "gpu"]

    def __str__(self) -> str:
        """Name it as in a table: only what is split."""
        split = self.parallel
        virtual = f" x {split.virtual_pipeline} virtual" if split.virtual_pipeline > 1 else ""
        texts = {
            "tensor": f"tensor {split.tensor}",
            "sequence": "sequence",
            "pipeline": f"pipeline {split.pipeline}{virtual}",
            "data": f"data {self.data}",
        }
        return ", ".join(text for kind, text in texts.items() if kind in self.kinds) or "one process"

    @property
    def kinds(self) -> list[str]:
        """What is split, of the five ways."""
        split = self.parallel
        sizes = {
            "tensor": split.tensor,
            "sequence": 1 + split.sequence,
            "pipeline": split.pipeline,
            "virtual pipeline": split.virtual_pipeline,
            "data": self.data,
        }
        return [kind for kind, size in sizes.items() if size > 1]

    @property
    def data(self) -> int:
        """The data parallel size."""
        return self.parallel.devices // (self.parallel.tensor * self.parallel.pipeline)

    def settings(self, settings: Settings, run_dir: Path) -> Settings:
        """Return these settings in this layout, with a run folder of its own."""
        micro_batch_size = settings.training.global_batch_size // (self.data * self.num_microbatches)
        return replace(
            settings,
            run_dir=str(run_dir),
            accelerator=self.accelerator,
            parallel=self.parallel,
            training=replace(settings.training, micro_batch_size=micro_batch_size, log_every_n_steps=1),
        )

    def problem(self, settings: Settings) -> str | None:
        """Say why this network or this batch cannot be split so, or None."""
        share, batch = self.data * self.num_microbatches, settings.training.global_batch_size
        if batch % share:
            return f"--training.global_batch_size {batch} is not a multiple of {share}"
        return next(iter(self.settings(settings, Path()).problems()), None)


def enumerate_layouts(most: int, accelerator: Literal["cpu", "gpu"]) -> Iterator[Layout]:
    """Yield every layout of up to `most` processes; the first one is the reference."""
    for pipeline, tensor, data in product(MODEL_PARALLEL_SIZES, MODEL_PARALLEL_SIZES, DATA_PARALLEL_SIZES):
        virtuals = (1, 2) if pipeline > 1 else (1,)
        sequences = (False, True) if tensor > 1 else (False,)
        for virtual, sequence in product(virtuals, sequences):
            split = ParallelSettings(pipeline * tensor * data, 1, tensor, pipeline, virtual, sequence)
            if split.devices <= most:
                yield from (Layout(split, number, accelerator) for number in _numbers_of_microbatches(split))


def _numbers_of_microbatches(split: ParallelSettings) -> tuple[int, ...]:
    if split.virtual_pipeline > 1:
        return (split.pipeline, 2 * split.pipeline)  # the interleaved schedule takes multiples only
    if split.pipeline > 1:
        return (2, 3)
    return (1, 2, 3) if split.tensor == 1 else (1, 3)


def prove(settings: Settings) -> dict[str, Any]:
    """Train in every layout of up to `settings.parallel.devices` processes, print a table and write layouts.json.

    Returns:
        What layouts.json holds; `holds` tells whether every layout is within its bound.

    Raises:
        UserError: the reference itself cannot be trained.
    """
    accelerator, most = _machine(settings)
    reference, *others = enumerate_layouts(most, accelerator)
    problems = {layout: layout.problem(settings) for layout in others}
    possible = [reference, *(layout for layout, problem in problems.items() if not problem)]
    if accelerator == "gpu":
        possible.append(Layout(ParallelSettings(), 1, "cpu"))
    precision, steps = settings.training.precision, settings.training.max_steps
    print(f"{steps} steps of {settings.network} in {precision} on {accelerator}; the first row is the reference.")
    print(f"Rounding explains differences of up to: {BOUNDS[precision]}.\n")
    print(_row("layout", "processes", "micro batches", "loss diff", "grad norm diff", "weight diff", "seconds"))
    rows = list(_rows(settings, possible))
    left_out = {str(layout): problem for layout, problem in problems.items() if problem}
    for name, problem in left_out.items():
        print(f"left out: {name}: {problem}")
    result = {
        "machine": _describe_machine(accelerator),
        "network": settings.network,
        "precision": precision,
        "steps": steps,
        "bounds": asdict(BOUNDS[precision]),
        "holds": all(row["holds"] for row in rows),
        **{f"max_{name}_diff": _largest(rows, name) for name in ("loss", "grad_norm", "weight")},
        "layouts": rows,
        "left_out": left_out,
        "not_tried": _not_tried(others, possible),
    }
    with write_whole(Path(names.LAYOUTS_FILE)) as file:
        json.dump(result, file, indent=2)
    return result


def _not_tried(wanted: list[Layout], tried: list[Layout]) -> list[str]:
    """List the ways to split of which no layout was tried."""
    known = {kind for layout in tried for kind in layout.kinds}
    return list(dict.fromkeys(kind for layout in wanted for kind in layout.kinds if kind not in known))


def _rows(settings: Settings, layouts: list[Layout]) -> Iterator[dict[str, Any]]:
    """Train each layout and compare it with the first one; print a line as soon as it is known."""
    with tempfile.TemporaryDirectory() as folder:
        runs = [Path(folder) / str(number) for number in range(len(layouts))]
        for layout, run in zip(layouts, runs, strict=True):
            times = ACROSS_DEVICES if layout.accelerator != layouts[0].accelerator else 1
            try:
                seconds = train_in_ranks(layout.settings(settings, run))
                found, error = compare(run, runs[0]), None
            except RanksFailed as failure:
                if layout == layouts[0]:
                    raise UserError(f"the reference itself cannot be trained: {failure}") from failure
                seconds, found, error = 0.0, Differences(math.nan, math.nan, math.nan), str(failure)
            name = str(layout) if times == 1 else f"{layout} on {layout.accelerator}"
            beyond = found.beyond(BOUNDS[settings.training.precision], times)
            figures = (f"{found.loss:.1e}", f"{found.grad_norm:.1e}", f"{found.weight:.1e}", f"{seconds:.1f}")
            line = _row(name, layout.parallel.devices, layout.num_microbatches, *figures)
            print(f"{line}  {error or 'DIFFERS in ' + ', '.join(beyond)}" if beyond else line, flush=True)
            yield {
                "layout": name,
                "processes": layout.parallel.devices,
                "num_microbatches": layout.num_microbatches,
                **{f"max_{key}_diff": value if math.isfinite(value) else None for key, value in asdict(found).items()},
                "bounds_times": times,
                "holds": not beyond,
                "seconds": round(seconds, 2),
            }


def train_in_ranks(settings: Settings) -> float:
    """Train in processes of this machine; return the seconds of the training loop."""
    ranks = settings.parallel.devices
    logs = Path(f"{settings.run_dir}-logs")
    [first, *_] = run_ranks(_seconds, settings, processes=ranks, logs=logs, accelerator=settings.accelerator)
    return float(first)


def _seconds(settings: Settings) -> float:
    return train(settings).seconds


def _machine(settings: Settings) -> tuple[Literal["cpu", "gpu"], int]:
    """Return the accelerator, and how many processes of it there can be."""
    most = settings.parallel.devices
    accelerator = choose(settings.accelerator, devices=1)
    return accelerator, min(most, torch.cuda.device_count()) if accelerator == "gpu" else most


def _describe_machine(accelerator: str) -> str:
    cpu = f"{len(os.sched_getaffinity(0))} CPU cores"
    gpu = f"{torch.cuda.device_count()} x {torch.cuda.get_device_name(0)}, " if accelerator == "gpu" else ""
    return f"{gpu}{cpu}, PyTorch {torch.__version__}, Python {platform.python_version()}"


def _largest(rows: list[dict[str, Any]], name: str) -> float | None:
    """Return the largest difference on one kind of device; None if one of them is no number."""
    values = [row[f"max_{name}_diff"] for row in rows if row["bounds_times"] == 1]
    return None if None in values else max(values)


def _row(*cells: object) -> str:
    layout, *numbers = cells
    widths = (10, 14, 10, 15, 12, 8)
    return f"{layout:42}" + "".join(f"{number:>{width}}" for number, width in zip(numbers, widths, strict=True))
