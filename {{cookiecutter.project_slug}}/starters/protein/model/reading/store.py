"""Many proteins, whose tokens, names and labels lie in long arrays, one after the other: in memory or in a file."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

OFFSET = np.dtype("<i8")


class Record(NamedTuple):
    """A protein as it is read: bytes, whose meaning the column's name says."""

    name: bytes
    """UTF-8"""
    tokens: bytes
    """numbers of TOKENS, uint8, without <cls> and <eos>"""
    label: bytes = b""
    """of the dtype of the network's labels (labels.py): one, or one for each residue"""
    is_labelled: bytes = b""
    """bool, for each residue"""


UNLABELLED = ("name", "tokens")
"""Fields of Record that need no labels."""


@dataclass(frozen=True)
class Column:
    """Arrays of bytes of different lengths, one after the other."""

    values: np.ndarray
    """uint8, all of them"""
    offsets: np.ndarray
    """int64 [N + 1]: array n is values[offsets[n] : offsets[n + 1]]"""

    def __getitem__(self, n: int) -> np.ndarray:
        """Return array n, uint8; a view."""
        return self.values[self.offsets[n] : self.offsets[n + 1]]


class Proteins:
    """Proteins by their positions; `proteins[2:5]` are some of them."""

    def __init__(self, columns: dict[str, Column], start: int, stop: int, digest: str = "") -> None:
        """Take those from `start` to `stop - 1`; `columns` are called as the fields of Record.

        `digest` tells the columns from others; nothing is known of what changes with this package only.
        """
        self.columns, self.start, self.stop, self.digest = columns, start, stop, digest

    def __len__(self) -> int:
        """Return the number of proteins."""
        return self.stop - self.start

    def __getitem__(self, some: slice) -> Proteins:
        """Return some that stand one after the other; nothing is read."""
        start, stop, _ = some.indices(len(self))
        return Proteins(self.columns, self.start + start, self.start + stop, self.digest)

    def get(self, column: str, position: int) -> np.ndarray:
        """Return a field of Record, uint8; IndexError if there is no such protein."""
        if not 0 <= position < len(self):
            raise IndexError(f"protein {position} is outside of 0 to {len(self) - 1}")
        return self.columns[column][self.start + position]

    def all(self, column: str) -> np.ndarray:
        """Return a field of all of them, uint8, one protein after the other; a view."""
        offsets = self.columns[column].offsets
        return self.columns[column].values[offsets[self.start] : offsets[self.stop]]

    def name(self, position: int) -> str:
        """Return the name of a protein."""
        return self.get("name", position).tobytes().decode(errors="replace")

    def lengths(self, start: int, stop: int) -> np.ndarray:
        """Return the number of residues of the proteins `start` to `stop - 1`, int64."""
        offsets = self.columns["tokens"].offsets[self.start + start : self.start + min(stop, len(self)) + 1]
        return np.diff(offsets)


def in_memory(records: Iterable[Record], columns: tuple[str, ...]) -> Proteins:
    """Hold proteins in memory.

    Args:
        records: at least one.
        columns: the fields of Record that are kept.
    """
    fields = dict(zip(Record._fields, zip(*records, strict=True), strict=True))
    kept = {name: _joined(fields[name]) for name in columns}
    return Proteins(kept, 0, len(fields["tokens"]))


def _joined(fields: tuple[bytes, ...]) -> Column:
    offsets = np.cumsum([0, *map(len, fields)], dtype=OFFSET)
    return Column(np.frombuffer(b"".join(fields), np.uint8), offsets)
