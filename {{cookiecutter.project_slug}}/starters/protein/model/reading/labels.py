"""Labels of proteins and of residues, as a table holds them."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np


class LabelError(ValueError):
    """A label that cannot be used; the text says why, for a person."""


class UnknownClassError(LabelError):
    """A label that is none of the classes."""

    def __init__(self, label: str, reader: LabelReader) -> None:
        """Say which label, and keep the reader that does not know it."""
        super().__init__(f"{label!r} is none of --model.classes")
        self.reader = reader


class LabelReader:
    """Reads what a network learns: a class or a finite number, of each protein or of each residue.

    The labels of residues are separated by blanks or commas: `0.1 0.25 0.3`. Classes may also be a character each, with
    nothing between: `HHHEEC`. The mask is written like that too, of 1 and 0: where it is 0, any label will do.
    """

    def __init__(self, network: str, classes: list[str]) -> None:
        """Read for a network of `Settings.network` that needs labels; `classes` are a classifier's."""
        self.of_residues = network.startswith("residue_")
        self.classes = {name: n for n, name in enumerate(classes)} if network.endswith("_classifier") else None
        self.dtype = np.dtype(np.float32 if self.classes is None else np.int64)

    @property
    def columns(self) -> tuple[str, ...]:
        """Fields of Record that hold what is read."""
        return ("label", "is_labelled") if self.of_residues else ("label",)

    def read(self, label: str, mask: str | None, residues: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the labels of one protein, [1] or [residues], and which of them count, bool.

        Raises:
            LabelError: a label is no number or no class, or there is not one for each residue.
        """
        parts = self.split(label, residues)
        is_labelled = np.ones(len(parts), bool) if mask is None else _read_mask(mask, residues)
        numbers = [self._number(part) if counts else 0 for part, counts in zip(parts, is_labelled, strict=True)]
        return np.array(numbers, self.dtype), is_labelled

    def split(self, label: str, residues: int) -> list[str]:
        """Return the single labels; LabelError if there is not one for each residue."""
        if not label.strip():
            raise LabelError("there is no label: write one, or remove the line")
        if not self.of_residues:
            return [label.strip()]
        return _split(label, residues, "labels", may_touch=self.classes is not None)

    def classes_in(self, label: str) -> set[str]:
        """Return what might be the classes of a protein with such labels."""
        parts = _parts(label) if self.of_residues else [label.strip()]
        return set(parts[0] if self.of_residues and len(parts) == 1 else parts) - {""}

    def _number(self, label: str) -> float:
        if self.classes is None:
            return _finite(label)
        if label not in self.classes:
            raise UnknownClassError(label, self)
        return self.classes[label]


def written(labels: Iterable[str], classes: list[str] | None) -> str:
    """Return the labels of residues as one text that LabelReader reads; `classes` are a classifier's."""
    is_letters = classes is not None and all(len(name) == 1 for name in classes)
    return ("" if is_letters else " ").join(labels)


def _finite(label: str) -> float:
    try:
        number = float(label)
    except ValueError:
        raise LabelError(f"the label {label!r} is no number: classes need a classifier as --network") from None
    if not abs(number) <= np.finfo(np.float32).max:
        raise LabelError(f"the label {label!r} is not finite, or too large for float32")
    return number


def _read_mask(mask: str, residues: int) -> np.ndarray:
    parts = _split(mask, residues, "entries in the mask", may_touch=True)
    if wrong := [part for part in parts if part not in ("0", "1")]:
        raise LabelError(f"the mask holds {wrong[0]!r}: write 1 for a residue with a label, 0 for one without")
    return np.array(parts) == "1"


def _parts(text: str) -> list[str]:
    return text.replace(",", " ").split()


def _split(text: str, residues: int, what: str, may_touch: bool) -> list[str]:
    parts = _parts(text)
    if may_touch and len(parts) == 1 < residues:
        parts = list(parts[0])
    if len(parts) != residues:
        raise LabelError(f"{len(parts):,} {what} for {residues:,} residues: write one for each, separated by blanks")
    return parts
