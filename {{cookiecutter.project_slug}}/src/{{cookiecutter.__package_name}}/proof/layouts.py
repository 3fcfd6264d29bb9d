"""Proves that a network trains the same however its work is spread: the `layouts` command.

Every layout that the network and the machine allow trains the same steps from the same start weights, and is compared
with one process and one micro batch: what was logged, and what was saved. A wrong one does not fail by itself: a bias
added on every rank, a mean of unequal parts or a lost gradient only trains another model.
"""

from __future__ import annotations

import csv
import json
import math
import os
import platform
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any, Literal

import torch
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load

from .. import names
from ..errors import UserError
from ..files import write_whole
from ..runtime.backend import choose
from ..runtime.checkpoint import last_checkpoint, weights
from ..settings import ParallelSettings, Settings
from ..training import train
from .ranks import RanksFailed, run_ranks

ACROSS_DEVICES = 10
"""How many times further apart a CPU and a GPU may be: they sum in other orders everywhere."""

WEIGHTS = "module."
"""How the names of weights begin in a checkpoint."""

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
        parts = {
            f"tensor {split.tensor}": split.tensor > 1,
            "sequence": split.sequence,
            f"pipeline {split.pipeline}{virtual}": split.pipeline > 1,
            f"data {self.data}": self.data > 1,
        }
        return ", ".join(text for text, is_split in parts.items() if is_split) or "one process"

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


@dataclass(frozen=True)
class Differences:
    """How far a run is from the reference, at most."""

    loss: float
    """of training and validation losses, relative where they are above 1"""
    grad_norm: float
    """of gradient norms before clipping, relative where they are above 1"""
    weight: float
    """of single final weights"""

    def beyond(self, bounds: Differences, times: int = 1) -> list[str]:
        """Name those that are more than that many times their bound; NaN always is."""
        return [name for name, value in asdict(self).items() if not value <= times * getattr(bounds, name)]

    def within(self, bounds: Differences, times: int = 1) -> bool:
        """Tell whether none is beyond its bound."""
        return not self.beyond(bounds, times)

    def __str__(self) -> str:
        """List them for a person."""
        return f"losses {self.loss:.1e}, gradient norms {self.grad_norm:.1e}, weights {self.weight:.1e}"


BOUNDS = {
    "fp32": Differences(loss=1e-5, grad_norm=1e-5, weight=1e-5),
    # bfloat16 has 8 bits: a weight between 1 and 2 moves in steps of 0.008, and a norm adds up all such errors
    "bf16": Differences(loss=2e-2, grad_norm=0.5, weight=2e-2),
}
"""The largest differences that rounding explains."""


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
    }
    with write_whole(Path(names.LAYOUTS_FILE)) as file:
        json.dump(result, file, indent=2)
    return result


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


def compare(run: Path, reference: Path) -> Differences:
    """Compare what two runs logged in every step, and what they saved last."""
    ours, theirs = _logged(run), _logged(reference)
    return Differences(
        loss=max(_largest_difference(ours[name], theirs[name]) for name in (names.TRAIN_LOSS, names.VAL_LOSS)),
        grad_norm=_largest_difference(ours[names.GRAD_NORM], theirs[names.GRAD_NORM]),
        weight=_largest_weight_difference(saved_tensors(run, WEIGHTS), saved_tensors(reference, WEIGHTS)),
    )


def _logged(run: Path) -> dict[str, list[float]]:
    with (run / names.METRICS_FILE).open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {name: [float(row[name]) for row in rows if row[name]] for name in rows[0]}


def _largest_difference(ours: list[float], theirs: list[float]) -> float:
    """Return the largest |a - b| / max(1, |b|); NaN if any is, or if there are not as many."""
    if len(ours) != len(theirs):
        return math.nan
    found = torch.tensor(ours, dtype=torch.float64) - torch.tensor(theirs, dtype=torch.float64)
    return float((found.abs() / torch.tensor(theirs, dtype=torch.float64).abs().clamp(min=1)).max())


def saved_tensors(run: Path, prefix: str = "") -> dict[str, torch.Tensor]:
    """Read what a run saved last, whole tensors by their names in the checkpoint: weights, and the optimizer's."""
    checkpoint = last_checkpoint(run / names.CHECKPOINTS_FOLDER)
    assert checkpoint is not None, f"{run} has been trained, and so has a checkpoint"
    reader = FileSystemReader(weights(checkpoint))
    found = reader.read_metadata().state_dict_metadata
    tensors = {
        name: torch.empty(item.size, dtype=item.properties.dtype)
        for name, item in found.items()
        if isinstance(item, TensorStorageMetadata) and name.startswith(prefix)
    }
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled")  # no_dist says so
        load(tensors, storage_reader=reader, no_dist=True)
    return tensors


def _largest_weight_difference(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> float:
    if ours.keys() != theirs.keys():
        return math.nan
    return max(float((ours[name].double() - theirs[name].double()).abs().max()) for name in theirs)


def _machine(settings: Settings) -> tuple[Literal["cpu", "gpu"], int]:
    """Return the accelerator, and how many processes of it there can be."""
    most = settings.parallel.devices
    accelerator = choose(settings.accelerator, devices=1)
    return accelerator, min(most, torch.cuda.device_count()) if accelerator == "gpu" else most


def _describe_machine(accelerator: str) -> str:
    cpu = f"{os.cpu_count()} CPU cores"
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
