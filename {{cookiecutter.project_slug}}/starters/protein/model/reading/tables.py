"""Proteins of a CSV or TSV file, whose first line names the columns."""

from __future__ import annotations

import csv
import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from ...contracts.item import DataError
from ..settings import DataSettings
from .encoding import SequenceError, encode
from .labels import LabelError, LabelReader, UnknownClassError
from .source import kind, unpacked
from .store import Record

_MOST_CLASSES = 100  # more of them are no classes
_SEPARATORS = {
    ";": "semicolons: save it with commas between them, or with tabs and call it .tsv",
    "\t": "tabs: call it .tsv",
    ",": "commas: call it .csv",
}


def read_table(file: IO[bytes], path: Path, data: DataSettings, labels: LabelReader | None) -> Iterator[Record]:
    """Give protein after protein. One without a name is called by its number.

    Args:
        file: the text, unpacked.
        path: for error messages; if it is called .tsv, tabs stand between the columns.
        data: says the columns.
        labels: of the network; None: no labels are read.

    Raises:
        DataError: a column is missing, a sequence is empty or has an illegal residue, or a label cannot be used.
    """
    table = _Table(file, path)
    column = _columns(table, data, labels)
    number = 0
    for number, row in enumerate(table, 1):
        fields = {name: row[place] for name, place in column.items()}
        try:
            yield _record(fields, number, labels)
        except UnknownClassError as error:
            found = _classes(path, data.label_column, error.reader)
            raise table.error(f"{error}: this file has --model.classes {found}") from None
        except (SequenceError, LabelError) as error:
            raise table.error(error) from None
    if not number:
        raise _nothing_in(path)


class _Table:
    """The lines of a file, cut into fields."""

    def __init__(self, file: IO[bytes], path: Path) -> None:
        csv.field_size_limit(1 << 30)  # 128 KiB by default, less than the labels of a long protein
        self.path = path
        self.delimiter = "\t" if kind(path) == ".tsv" else ","
        self.header: list[str] = []
        self.reader = csv.reader(self._watched(_text(file)), delimiter=self.delimiter, strict=True)
        self.header = next(self._rows(), [])
        if len(self.header) == 1:
            self.check_separator()

    def error(self, text: object) -> DataError:
        """Return an error that names the file and the line."""
        return DataError(f"{self.path}, line {self.reader.line_num}: {text}")

    def check_separator(self) -> None:
        """Raise a DataError if something else stands between the columns of the line that was read last."""
        for sign, told in _SEPARATORS.items():
            if sign in self.line and self.delimiter not in self.line:
                raise self.error(f"its columns are separated by {told}")

    def _watched(self, lines: Iterator[str]) -> Iterator[str]:
        for line in lines:
            self.line = line
            yield line

    def __iter__(self) -> Iterator[list[str]]:
        """Give the fields of each line below the first; DataError if they are not as many as the columns."""
        for row in self._rows():
            if len(row) != len(self.header):
                raise self.error(f"{len(row)} fields for {len(self.header)} columns: mend the row, or its quotes")
            yield row

    def _rows(self) -> Iterator[list[str]]:
        try:
            yield from filter(None, self.reader)  # blank lines are empty
        except csv.Error as error:
            if not self.header:
                self.check_separator()
            raise self.error(f"{error}: check the quotation marks") from None
        except UnicodeDecodeError:
            line = self.reader.line_num + 1  # it has not come so far
            raise DataError(f"{self.path}, line {line} is not UTF-8: save the file as that") from None


def _text(lines: IO[bytes]) -> Iterator[str]:
    """Give the lines, without the byte order mark that the first may begin with."""
    yield from (line.decode("utf-8" if n else "utf-8-sig") for n, line in enumerate(lines))


def _columns(table: _Table, data: DataSettings, labels: LabelReader | None) -> dict[str, int]:
    """Return the places of the columns that are read."""
    if not table.header:
        raise _nothing_in(table.path)
    wanted = {"sequence": data.sequence_column}
    if labels is not None:
        wanted["label"] = data.label_column
        if labels.of_residues and data.mask_column is not None:
            wanted["mask"] = data.mask_column
    for name, column in wanted.items():
        if column not in table.header:
            there = ", ".join(map(repr, table.header))
            raise table.error(f"there is no column {column!r}, but {there}: set --data.{name}_column to one of them")
    if data.name_column in table.header:
        wanted["name"] = data.name_column
    for name, column in wanted.items():
        if table.header.count(column) > 1:
            raise table.error(f"there are several columns {column!r}: rename all but one, or set --data.{name}_column")
    return {name: table.header.index(column) for name, column in wanted.items()}


def _nothing_in(path: Path) -> DataError:
    return DataError(f"{path} holds no proteins: write each on a line below that with the names of the columns")


def _record(fields: dict[str, str], number: int, labels: LabelReader | None) -> Record:
    name, tokens = (fields.get("name") or str(number)).encode(), encode(fields["sequence"].encode())
    if labels is None:
        return Record(name, tokens)
    label, is_labelled = labels.read(fields["label"], fields.get("mask"), len(tokens))
    return Record(name, tokens, label.tobytes(), is_labelled.tobytes())


def _classes(path: Path, column: str, labels: LabelReader) -> str:
    """Return the classes of a file, as `--model.classes` takes them."""
    with path.open("rb") as packed:
        table = _Table(unpacked(path, packed), path)
        place = table.header.index(column)
        found = sorted(set().union(*(labels.classes_in(row[place]) for row in table)))
    if len(found) > _MOST_CLASSES:
        raise DataError(
            f"{path}: column {column!r} has {len(found):,} different labels, too many for classes: numbers need a "
            "regressor as --network"
        )
    return shlex.quote(json.dumps(found, ensure_ascii=False))
