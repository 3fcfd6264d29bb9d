"""How far apart two runs are: what they logged in every step, and what they saved last."""

from __future__ import annotations

import math
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load

from ..contracts import names
from ..contracts.reading import read_metrics
from ..runtime.checkpoint import last_checkpoint, weights

WEIGHTS = "module."
"""How the names of weights begin in a checkpoint."""


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


def compare(run: Path, reference: Path) -> Differences:
    """Compare what two runs logged in every step, and what they saved last."""
    ours, theirs = _logged(run), _logged(reference)
    return Differences(
        loss=max(_largest_difference(ours[name], theirs[name]) for name in (names.TRAIN_LOSS, names.VAL_LOSS)),
        grad_norm=_largest_difference(ours[names.GRAD_NORM], theirs[names.GRAD_NORM]),
        weight=_largest_weight_difference(saved_tensors(run, WEIGHTS), saved_tensors(reference, WEIGHTS)),
    )


def _logged(run: Path) -> dict[str, list[float]]:
    columns, rows = read_metrics(run / names.METRICS_FILE)
    return {name: [float(row[name]) for row in rows if row[name]] for name in columns}


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
