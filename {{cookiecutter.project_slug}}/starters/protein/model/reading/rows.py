"""Proteins as the items that the networks read (item.py)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

from ...contracts.item import Index, Indices
from ..item import CLS, EOS, PAD
from .labels import LabelReader
from .masking import mask, termini, window
from .packing import SPECIAL_TOKENS
from .store import Proteins

Arrays = dict[str, np.ndarray]

_CHUNK = 1 << 20  # labels


class _Rows:
    """A dataset of rows. What is drawn for a protein depends on its position, not on its row."""

    def __init__(self, proteins: Proteins, row: int, max_length: int) -> None:
        self.proteins, self.row, self.most = proteins, row, max_length - SPECIAL_TOKENS

    def fingerprint(self) -> str:
        """Tell these proteins from others, wherever their file lies."""
        return f"{self.proteins.digest} {self.proteins.start}-{self.proteins.stop}"

    def __getitem__(self, index: Index) -> dict[str, torch.Tensor]:
        """Return the item at a position; IndexError if there is none."""
        batch = self.__getitems__(Indices([index], [index.epoch], index.seed))
        return {key: value[0] for key, value in batch.items()}

    def __getitems__(self, indices: Indices) -> dict[str, torch.Tensor]:
        """Return B items as one batch; IndexError if a position is not in 0 to len - 1."""
        batch = self._padding(len(indices))
        for n in range(len(indices)):
            self._fill(batch, n, indices.at(n))
        return {key: torch.from_numpy(values) for key, values in batch.items()}

    def _padding(self, size: int) -> Arrays:
        """Return a batch of `size` rows without proteins."""
        shape = (size, self.row)
        tokens, sequence = np.full(shape, PAD, np.int64), np.zeros(shape, np.int64)
        return {"tokens": tokens, "sequence": sequence, "left_out": np.zeros(size, np.int64)}

    def _fill(self, batch: Arrays, n: int, index: Index) -> None:
        """Write the item at an index into row n."""
        raise NotImplementedError


class MaskedProteins(_Rows):
    """For pretraining: rows of one protein or of several, some of whose residues are masked (MaskedItem)."""

    def __init__(
        self,
        proteins: Proteins,
        starts: Sequence[int] | np.ndarray,
        row: int,
        max_length: int,
        mask_probability: float,
    ) -> None:
        """Keep what a row is made of.

        Args:
            proteins: of the rows.
            starts: the first protein of each row, and the number of proteins (packing.py).
            row: tokens of a row.
            max_length: tokens of a protein; of a longer one a window is seen, drawn anew in each epoch.
            mask_probability: of a residue; 0: nothing is drawn, and of a protein that is too long both ends are seen.
        """
        super().__init__(proteins, row, max_length)
        self.starts, self.mask_probability = starts, mask_probability

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.starts) - 1

    def name(self, position: int) -> str:
        """Return the names of the proteins of a row."""
        return " ".join(map(self.proteins.name, self._positions(position)))

    def _positions(self, row: int) -> range:
        if not 0 <= row < len(self):
            raise IndexError(f"row {row} is outside of 0 to {len(self) - 1}")
        return range(int(self.starts[row]), int(self.starts[row + 1]))

    def _padding(self, size: int) -> Arrays:
        batch = super()._padding(size)
        return {**batch, "targets": batch["tokens"].copy(), "is_masked": np.zeros((size, self.row), bool)}

    def _fill(self, batch: Arrays, n: int, index: Index) -> None:
        start = 0
        for number, position in enumerate(self._positions(index), 1):
            residues, seen, is_masked = self._drawn(Index(position, index.epoch, index.seed))
            stop = start + len(residues) + SPECIAL_TOKENS
            batch["tokens"][n, start:stop] = with_ends(seen)
            batch["targets"][n, start:stop] = with_ends(residues)
            batch["sequence"][n, start:stop] = number
            batch["is_masked"][n, start + 1 : stop - 1] = is_masked
            if not self.mask_probability:
                batch["left_out"][n] = len(self.proteins.get("tokens", position)) - len(residues)
            start = stop

    def _drawn(self, protein: Index) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the residues of a protein that are seen, as they are and as the network reads them, and the masks."""
        tokens = self.proteins.get("tokens", protein)
        if not self.mask_probability:
            ends = termini(tokens, self.most)
            return ends, ends, np.zeros(len(ends), bool)
        random = protein.random().bit_generator
        residues = window(tokens, self.most, random)
        return residues, *mask(residues, self.mask_probability, random)


class LabelledProteins(_Rows):
    """For finetuning: a protein a row, with its label or with those of its residues (item.py)."""

    def __init__(self, proteins: Proteins, max_length: int, labels: LabelReader) -> None:
        """Keep what an item is made of.

        Args:
            proteins: one for each item; if they have no labels, all labels are 0, and nothing is labelled.
            max_length: tokens of an item; of a longer protein both ends are seen.
            labels: of the network.
        """
        super().__init__(proteins, max_length, max_length)
        self.labels = labels

    def __len__(self) -> int:
        """Return the number of proteins."""
        return len(self.proteins)

    def name(self, position: int) -> str:
        """Return the name of a protein."""
        return self.proteins.name(position)

    def units(self) -> tuple[float, float]:
        """Return the mean and the standard deviation of the labels that count; 1 in place of a deviation of 0."""
        values = self.proteins.all("label").view(self.labels.dtype)
        counts = self.proteins.all("is_labelled").view(bool) if self.labels.of_residues else np.ones(len(values), bool)
        places = range(0, len(values), _CHUNK)
        parts = [(values[n : n + _CHUNK], counts[n : n + _CHUNK]) for n in places]  # views: they may be many
        number = max(int(counts.sum()), 1)
        mean = sum(float(some[where].sum(dtype=np.float64)) for some, where in parts) / number
        squares = sum(float(np.square(some[where].astype(np.float64) - mean).sum()) for some, where in parts)
        return mean, math.sqrt(squares / number) or 1.0

    def _padding(self, size: int) -> Arrays:
        batch, dtype = super()._padding(size), self.labels.dtype
        shape = (size, self.row) if self.labels.of_residues else (size,)
        return {**batch, "label": np.zeros(shape, dtype), "is_labelled": np.zeros(shape, bool)}

    def _fill(self, batch: Arrays, n: int, index: Index) -> None:
        residues = self._seen("tokens", np.dtype(np.uint8), index)
        stop = len(residues) + SPECIAL_TOKENS
        batch["tokens"][n, :stop] = with_ends(residues)
        batch["sequence"][n, :stop] = 1
        batch["left_out"][n] = len(self.proteins.get("tokens", index)) - len(residues)
        if "label" not in self.proteins.columns:
            return
        if self.labels.of_residues:
            batch["label"][n, 1 : stop - 1] = self._seen("label", self.labels.dtype, index)
            batch["is_labelled"][n, 1 : stop - 1] = self._seen("is_labelled", np.dtype(bool), index)
        else:
            batch["label"][n] = self.proteins.get("label", index).view(self.labels.dtype)[0]
            batch["is_labelled"][n] = True

    def _seen(self, column: str, dtype: np.dtype, position: int) -> np.ndarray:
        """Return what a column says of the residues that are seen."""
        return termini(self.proteins.get(column, position).view(dtype), self.most)


def with_ends(residues: np.ndarray) -> np.ndarray:
    """Return <cls>, the residues, <eos>."""
    return np.concatenate(([CLS], residues, [EOS]))
