"""A dataset seen in another order. Megatron's sampler reads positions 0, 1, 2, ... in sequence: the order is a view's.

Every view answers "what is sample k?" as a pure function: the same k gives the same item on every rank, in any order of
asking, before and after a restart. That is what lets a run resume from a bare count of consumed samples.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset as TorchDataset
from torch.utils.data import default_collate

from .item import DataError, Dataset, Indices


class View(TorchDataset):
    """Some items of a dataset, in some order. A subclass says in `places` which of them stands where."""

    def __init__(self, dataset: Dataset, length: int, seed: int = 0) -> None:
        """Show `length` items of `dataset`; `seed` is that of their random parts."""
        self.dataset, self.length, self.seed = dataset, length, seed

    def places(self, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return where in `self.dataset` the items at `index` are, and in which epoch; all int64 [B]."""
        raise NotImplementedError

    def __len__(self) -> int:
        """Return the number of items shown."""
        return self.length

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return one item; IndexError if `index` is not in 0 to len - 1."""
        return {key: value[0] for key, value in self.__getitems__([index]).items()}

    def __getitems__(self, indices: list[int]) -> dict[str, Any]:
        """Return B items as one batch; IndexError if an index is not in 0 to len - 1."""
        index = np.array(indices, dtype=np.int64)
        outside = index[(index < 0) | (index >= self.length)]
        if outside.size:
            raise IndexError(f"index {outside[0]} is outside of 0 to {self.length - 1}")
        positions, epochs = self.places(index)
        return self._fetch(positions, epochs, self.seed)

    def _fetch(self, positions: np.ndarray, epochs: np.ndarray, seed: int) -> dict[str, Any]:
        """Ask the dataset; one that is a view itself only says where, for the epoch is that of the view around it."""
        if isinstance(self.dataset, View):
            return self.dataset._fetch(self.dataset.places(positions)[0], epochs, seed)
        indices = Indices(positions.tolist(), epochs.tolist(), seed)
        if hasattr(self.dataset, "__getitems__"):
            batch = collate(self.dataset.__getitems__(indices))
        else:
            batch = collate([self.dataset[indices.at(n)] for n in range(len(indices))])
        return {**batch, "idx": torch.from_numpy(positions)}


def innermost(dataset: Dataset) -> Dataset:
    """Return the dataset that views stand around: `idx` counts its items."""
    return innermost(dataset.dataset) if isinstance(dataset, View) else dataset


class Section(View):
    """The items `start` to `stop - 1` of a dataset. Their `idx` stays what it is in the whole."""

    def __init__(self, dataset: Dataset, start: int, stop: int) -> None:
        """Show a part; ValueError unless 0 <= start <= stop <= len(dataset)."""
        if not 0 <= start <= stop <= len(dataset):
            raise ValueError(f"a dataset of {len(dataset)} items has no section from {start} to {stop}")
        super().__init__(dataset, stop - start)
        self.start = start

    def places(self, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Count from the section's start."""
        return index + self.start, np.zeros_like(index)


def split_validation(dataset: Dataset, validation_size: int) -> tuple[Section, Section]:
    """Split a training set into (train, validation): its last `validation_size` items are for validation.

    Raises:
        DataError: the size leaves nothing to train on, or nothing to validate with.
    """
    if len(dataset) < 2:
        raise DataError(f"{len(dataset)} training items are too few: give at least 2, one of them to validate with")
    if not 0 < validation_size < len(dataset):
        raise DataError(
            f"--data.validation_size {validation_size} must be from 1 to {len(dataset) - 1}: there are {len(dataset)} "
            "training items"
        )
    border = len(dataset) - validation_size
    return Section(dataset, 0, border), Section(dataset, border, len(dataset))


def collate(batch: Any) -> dict[str, Any]:
    """Return a ready batch as it is, and stack a list of items into one.

    Raises:
        DataError: the dataset gives something else than dicts of tensors, or items of different keys or shapes.
    """
    items = batch if isinstance(batch, list) else [batch]
    for given in items:
        if not isinstance(given, dict):
            raise DataError(f"the dataset gives a {type(given).__name__}; model/item.py says a dict")
        if some := given.keys() ^ items[0].keys():  # torch drops a key that the first item lacks
            raise DataError(f"some items have {', '.join(sorted(some))} and others have not; model/item.py says all")
    try:
        stacked: dict[str, Any] = default_collate(batch) if isinstance(batch, list) else batch
    except (RuntimeError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"items of one batch do not fit together ({reason}): model/item.py says one shape") from error
    return stacked
