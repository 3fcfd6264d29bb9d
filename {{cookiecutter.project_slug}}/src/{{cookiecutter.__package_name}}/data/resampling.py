"""Which item stands at a given position of a run: shuffled epochs, the validation split, padding for evaluation.

A file of its own because it knows nothing of the data: it shows any dataset in another order, and stays when you bring
your own. Megatron's sampler reads positions 0, 1, 2, ... strictly in sequence, so shuffling must live in the dataset.

Every view answers "what is sample k?" as a pure function: the same k gives the same item on every rank, in any order
of asking, before and after a restart. That is what lets a run resume from a bare count of consumed samples.
"""

import math
from functools import lru_cache
from typing import Literal, Protocol

import numpy as np
import torch
from torch.utils.data import Dataset, default_collate

from .item import PADDING_IDX, DataError, MnistItem

Resampling = Literal["epochs", "multi_epoch", "prng"]


class Indexed(Protocol):
    """What is asked of a dataset. A method `__getitems__(list[int]) -> batch` is used too, where there is one."""

    def __len__(self) -> int:
        """Return the number of items."""

    def __getitem__(self, index: int, /) -> MnistItem:
        """Return the item at a position, always the same one."""


class View(Dataset[MnistItem]):
    """Another dataset in another order. A subclass says in `positions` which of its items stands where."""

    def __init__(self, dataset: Indexed, length: int) -> None:
        """Show `length` items of `dataset`."""
        self.dataset = dataset
        self.length = length

    def positions(self, index: np.ndarray) -> np.ndarray:
        """Return where in `self.dataset` the items at `index` are; both int64 [B]."""
        raise NotImplementedError

    def __len__(self) -> int:
        """Return the number of items shown."""
        return self.length

    def __getitem__(self, index: int) -> MnistItem:
        """Return one item; IndexError if `index` is not in 0 to len - 1."""
        [position] = self._checked_positions([index])
        return self.dataset[position]

    def __getitems__(self, indices: list[int]) -> MnistItem:
        """Return B items as one batch; IndexError if an index is not in 0 to len - 1."""
        positions = self._checked_positions(indices)
        if hasattr(self.dataset, "__getitems__"):
            return collate(self.dataset.__getitems__(positions))
        return collate([self.dataset[position] for position in positions])

    def _checked_positions(self, indices: list[int]) -> list[int]:
        index = np.array(indices, dtype=np.int64)
        outside = index[(index < 0) | (index >= self.length)]
        if outside.size:
            raise IndexError(f"index {outside[0]} is outside of 0 to {self.length - 1}")
        positions: list[int] = self.positions(index).tolist()
        return positions


class Section(View):
    """The items `start` to `stop - 1` of a dataset. Their `idx` stays what it is in the whole."""

    def __init__(self, dataset: Indexed, start: int, stop: int) -> None:
        """Show a part; ValueError unless 0 <= start <= stop <= len(dataset)."""
        if not 0 <= start <= stop <= len(dataset):
            raise ValueError(f"a dataset of {len(dataset)} items has no section from {start} to {stop}")
        super().__init__(dataset, stop - start)
        self.start = start

    def positions(self, index: np.ndarray) -> np.ndarray:
        """Count from the section's start."""
        return index + self.start


def split_validation(dataset: Indexed, validation_size: int) -> tuple[Section, Section]:
    """Split a training set into (train, validation): its last `validation_size` items are for validation.

    Raises:
        ValueError: `validation_size` is negative, or leaves nothing to train on.
    """
    if not 0 <= validation_size < len(dataset):
        raise ValueError(f"validation_size is {validation_size}, and must be from 0 to {len(dataset) - 1}")
    border = len(dataset) - validation_size
    return Section(dataset, 0, border), Section(dataset, border, len(dataset))


class ShuffledEpochs(View):
    """`num_samples` samples, epoch after epoch, each epoch with every item exactly once, in an order of its own.

    For a dataset of n items, sample k stands at place k % n of epoch k // n.
    """

    def __init__(self, dataset: Indexed, num_samples: int, seed: int) -> None:
        """Shuffle; ValueError if the dataset is empty or the seed negative."""
        if len(dataset) == 0 or seed < 0:
            raise ValueError(f"cannot shuffle {len(dataset)} items with seed {seed}: need items, and a seed >= 0")
        super().__init__(dataset, num_samples)
        self.seed = seed

    def positions(self, index: np.ndarray) -> np.ndarray:
        """Look every sample up in the permutation of its epoch."""
        n = len(self.dataset)
        epochs, places = np.divmod(index, n)
        result = np.empty_like(index)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            result[here] = permutation(n, self.seed, int(epoch))[places[here]]
        return result


@lru_cache(maxsize=2)  # two, because a batch can reach across the border of two epochs
def permutation(n: int, seed: int, epoch: int) -> np.ndarray:
    """Return 0 to n - 1 in the order of one epoch, int64 [n], read-only.

    NumPy promises the raw stream of a bit generator for all its versions, but not what `Generator.permutation` makes
    of it (NEP 19). Sorting raw numbers keeps an old run's order when NumPy is upgraded; "stable" settles ties.
    """
    order = np.argsort(np.random.PCG64([seed, epoch]).random_raw(n), kind="stable")
    order.setflags(write=False)  # the cache hands the same array to everybody
    return order


class PaddedToMultiple(View):
    """A dataset filled up to a multiple of the global batch: the extra items repeat item 0, with idx PADDING_IDX.

    For evaluation. With an uneven tail some data-parallel ranks get an empty batch, which cannot be collated; dropping
    the tail would score another test set.
    """

    def __init__(self, dataset: Indexed, multiple: int) -> None:
        """Fill up; ValueError unless `multiple` is at least 1."""
        if multiple < 1:
            raise ValueError(f"cannot pad to a multiple of {multiple}: need at least 1")
        super().__init__(dataset, math.ceil(len(dataset) / multiple) * multiple)

    def positions(self, index: np.ndarray) -> np.ndarray:
        """Send whatever is past the end to item 0."""
        return np.where(index < len(self.dataset), index, 0)

    def __getitem__(self, index: int) -> MnistItem:
        """Return one item, marked if it is an extra one; IndexError if `index` is not in 0 to len - 1."""
        return self._marked(super().__getitem__(index), torch.tensor(index))

    def __getitems__(self, indices: list[int]) -> MnistItem:
        """Return B items as one batch, extra ones marked; IndexError if an index is not in 0 to len - 1."""
        return self._marked(super().__getitems__(indices), torch.tensor(indices))

    def _marked(self, batch: MnistItem, index: torch.Tensor) -> MnistItem:
        return {**batch, "idx": batch["idx"].masked_fill(index >= len(self.dataset), PADDING_IDX)}


def collate(batch: MnistItem | list[MnistItem]) -> MnistItem:
    """Return a ready batch as it is, and stack a list of items into one (for datasets without `__getitems__`).

    Raises:
        DataError: the dataset gives something else than dicts.
    """
    given = batch[0] if isinstance(batch, list) else batch
    if not isinstance(given, dict):
        raise DataError(f"the dataset gives a {type(given).__name__}; data/item.py says a dict")
    stacked: MnistItem = default_collate(batch) if isinstance(batch, list) else batch
    return stacked


def resample(dataset: Indexed, num_samples: int, seed: int, kind: Resampling = "epochs") -> Dataset[MnistItem]:
    """Show `num_samples` samples of `dataset` in random order.

    Args:
        dataset: What to sample from.
        num_samples: The length of the result; more than `len(dataset)` means several epochs.
        seed: The same seed gives the same order; at least 0.
        kind: "epochs" is `ShuffledEpochs`. The other two come from bionemo-core and fetch item by item, so they are
            slower: "multi_epoch" is its MultiEpochDatasetResampler (epochs, permuted by a hash, in constant memory),
            "prng" its PRNGResampleDataset (drawn with replacement: an epoch misses a third of the items).

    Raises:
        DataError: bionemo-core is needed and not installed.
        ValueError: There is nothing to sample from, or no such kind.
    """
    if kind == "epochs":
        return ShuffledEpochs(dataset, num_samples, seed)
    if kind not in ("multi_epoch", "prng"):
        raise ValueError(f"resampling is {kind!r}, and must be epochs, multi_epoch or prng")
    try:
        from bionemo.core.data.multi_epoch_dataset import IdentityMultiEpochDatasetWrapper, MultiEpochDatasetResampler
        from bionemo.core.data.resamplers import PRNGResampleDataset
    except ModuleNotFoundError as error:
        project = __name__.partition(".")[0].replace("_", "-")
        raise DataError(f'resampling {kind!r} needs bionemo-core: pip install "{project}[bionemo]"') from error
    samples: Dataset[MnistItem] = (
        PRNGResampleDataset(dataset, seed=seed, num_samples=num_samples)
        if kind == "prng"
        else MultiEpochDatasetResampler(IdentityMultiEpochDatasetWrapper(dataset), num_samples=num_samples, seed=seed)
    )
    return samples
