"""Which item stands at a given position of a run: shuffled epochs, and padding for evaluation."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import torch

from ..contracts.item import PADDING_IDX, DataError, Dataset
from ..contracts.view import View


class ShuffledEpochs(View):
    """`num_samples` samples, epoch after epoch, each epoch with every item exactly once, in an order of its own.

    For a dataset of n items, sample k stands at place k % n of epoch k // n.
    """

    def places(self, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Look every sample up in the permutation of its epoch."""
        n = len(self.dataset)
        epochs, places = np.divmod(index, n)
        result = np.empty_like(index)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            result[here] = permutation(n, self.seed, int(epoch))[places[here]]
        return result, epochs


@lru_cache(maxsize=2)  # two, because a batch can reach across the border of two epochs
def permutation(n: int, seed: int, epoch: int) -> np.ndarray:
    """Return 0 to n - 1 in the order of one epoch, int64 [n], read-only.

    NumPy promises the raw stream of a bit generator for all its versions, but not what `Generator.permutation` makes
    of it (NEP 19). Sorting raw numbers keeps an old run's order when NumPy is upgraded; "stable" settles ties.
    """
    order = np.argsort(np.random.PCG64([seed, epoch]).random_raw(n), kind="stable")
    order.setflags(write=False)  # the cache hands the same array to everybody
    return order


class Resampled(View):
    """A view whose order somebody else makes: a function from a position to (epoch, place in the dataset)."""

    def __init__(self, dataset: Dataset, length: int, seed: int, place: Callable[[int], tuple[int, int]]) -> None:
        """Show `length` items in the order of `place`."""
        super().__init__(dataset, length, seed)
        self.place = place

    def places(self, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Ask for one after the other."""
        epochs, positions = zip(*map(self.place, index.tolist()), strict=True)
        return np.array(positions, dtype=np.int64), np.array(epochs, dtype=np.int64)


class PaddedToMultiple(View):
    """A dataset filled up to a multiple of the global batch: the extra items repeat item 0, with idx PADDING_IDX.

    For evaluation. With an uneven tail some data-parallel ranks get an empty batch, which cannot be collated; dropping
    the tail would score another test set.
    """

    def __init__(self, dataset: Dataset, multiple: int, seed: int = 0) -> None:
        """Fill up to a multiple of at least 1."""
        super().__init__(dataset, math.ceil(len(dataset) / multiple) * multiple, seed)

    def places(self, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Send whatever is past the end to item 0."""
        return np.where(index < len(self.dataset), index, 0), np.zeros_like(index)

    def __getitems__(self, indices: list[int]) -> dict[str, Any]:
        """Return B items as one batch, extra ones marked; IndexError if an index is not in 0 to len - 1."""
        batch = super().__getitems__(indices)
        return {**batch, "idx": batch["idx"].masked_fill(torch.tensor(indices) >= len(self.dataset), PADDING_IDX)}


def resample(
    dataset: Dataset, num_samples: int, seed: int, kind: Literal["epochs", "multi_epoch", "prng"] = "epochs"
) -> View:
    """Show `num_samples` samples of `dataset` in random order.

    Args:
        dataset: What to sample from.
        num_samples: The length of the result; more than `len(dataset)` means several epochs.
        seed: The same seed gives the same order; at least 0.
        kind: "epochs" is `ShuffledEpochs`. The other two are orders of bionemo-core, made one by one and so slower:
            "multi_epoch" of its MultiEpochDatasetResampler (epochs, permuted by a hash, in constant memory), "prng" of
            its PRNGResampleDataset (drawn with replacement: an epoch misses a third of the items).

    Raises:
        DataError: There is nothing to sample from, or bionemo-core is needed and not installed.
    """
    size = len(dataset)
    if size == 0:
        raise DataError("there are no training items")
    if kind == "epochs":
        return ShuffledEpochs(dataset, num_samples, seed)
    try:
        from bionemo.core.data.multi_epoch_dataset import EpochIndex, MultiEpochDatasetResampler
        from bionemo.core.data.resamplers import PRNGResampleDataset
    except ModuleNotFoundError as error:
        project = __name__.partition(".")[0].replace("_", "-")
        raise DataError(f'resampling {kind!r} needs bionemo-core: pip install "{project}[bionemo]"') from error
    if kind == "prng":
        drawn = PRNGResampleDataset(range(size), seed=seed, num_samples=num_samples)
        return Resampled(dataset, num_samples, seed, lambda k: (k // size, drawn[k]))

    class Places:
        def __len__(self) -> int:
            return size

        def __getitem__(self, place: EpochIndex) -> EpochIndex:
            return place

    order = MultiEpochDatasetResampler(Places(), num_samples=num_samples, seed=seed)
    return Resampled(dataset, num_samples, seed, order.__getitem__)
