"""Which proteins train, validate and test: files of the user's, or the sample in this package.

`config.py` names `prepare`, `read_training`, `read_test` and `read_predict`; what a dataset must answer says
contracts/item.py. Each dataset has `name(position)` too.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from ..contracts.item import DataError
from ..contracts.view import split_validation
from .reading.fasta import read_fasta
from .reading.index import has_index, index_of
from .reading.labels import LabelReader
from .reading.locations import read_sample
from .reading.packing import SPECIAL_TOKENS, pack
from .reading.rows import LabelledProteins, MaskedProteins
from .reading.source import kind, read_source
from .reading.store import UNLABELLED, Proteins, Record
from .reading.tables import read_table
from .settings import Settings

MOST_TO_VALIDATE = 800
"""Proteins of a training file, if nobody says how many."""

_TABLES = (".csv", ".tsv")

Items = MaskedProteins | LabelledProteins


def prepare(settings: Settings) -> None:
    """Build the index of each file that is there; one that is missing is told when it is read.

    Raises:
        DataError: a file cannot be used, or its index cannot be written.
    """
    data, is_test = settings.data, settings.input is None
    files = (data.train_file, data.validation_file, data.test_file) if is_test else (settings.input,)
    for file in dict.fromkeys(files):
        if file is not None and os.path.exists(file):
            proteins = read_proteins(file, settings, labelled=is_test)
            if not is_test or settings.network != "masked" or (file == data.train_file and data.mask_probability):
                _tell_of_long(file, proteins, settings)


def read_training(settings: Settings) -> tuple[Items, Items]:
    """Return the items to train on and those to validate with.

    The sample has proteins for validation. Of a training file the last ones are, if there is no file for it.

    Raises:
        DataError: a file is missing or cannot be used.
    """
    data = settings.data
    if data.train_file is None and (data.validation_file or data.test_file):
        raise DataError(
            "there is no --data.train_file beside the other files: give it, or leave them out too, for the sample"
        )
    train = _read(data.train_file, "train", settings)
    if data.validation_file is not None or data.train_file is None:
        validation = _read(data.validation_file, "validation", settings)
    else:
        train, validation = _split(train, data.validation_size)
    return items(train, settings), items(validation, settings)


def count_training(settings: Settings) -> int | None:
    """Return how many items there are to train on; None if a file has no index, which may take long to make.

    Nothing is built or written.

    Raises:
        DataError: see `read_training`.
    """
    data = settings.data
    files = [file for file in (data.train_file, data.validation_file) if file] if data.train_file else []
    if missing := [file for file in files if not os.path.exists(file)]:
        raise DataError(f"{missing[0]} is not on this machine")
    is_read = all(has_index(*_index(file, settings, labelled=True)) for file in files)
    return len(read_training(settings)[0]) if is_read else None


def read_test(settings: Settings) -> Items:
    """Return the items to test with.

    Raises:
        DataError: the file is missing or cannot be used, or it is not said which file.
    """
    data = settings.data
    if data.test_file is None and data.train_file is not None:
        raise DataError(f"set --data.test_file to proteins to test with: those to train with are of {data.train_file}")
    return items(_read(data.test_file, "test", settings), settings)


def read_predict(settings: Settings) -> Items:
    """Return the items to predict: of `--input`, without labels, or those to test with.

    Raises:
        DataError: the file is missing or cannot be used.
    """
    if settings.input is None:
        return read_test(settings)
    return items(read_proteins(settings.input, settings, labelled=False), settings)


def items(proteins: Proteins, settings: Settings) -> Items:
    """Return proteins as the items of the network."""
    data, longest = settings.data, settings.model.max_length
    if (labels := _labels(settings)) is not None:
        return LabelledProteins(proteins, longest, labels)
    starts = pack(proteins, data.pack, longest) if data.pack else range(len(proteins) + 1)
    return MaskedProteins(proteins, starts, settings.sequence_length, longest, data.mask_probability)


def read_proteins(file: str, settings: Settings, labelled: bool = True) -> Proteins:
    """Return the proteins of a FASTA, CSV or TSV file, by its index.

    Args:
        file: its path.
        settings: say which columns of a table are read, and how labels are written.
        labelled: read the labels that the network learns from.

    Raises:
        DataError: the file is missing or cannot be used, or its index cannot be written.
    """
    path, labels = Path(file), _labels(settings) if labelled else None

    def parse(content: IO[bytes]) -> Iterator[Record]:
        is_table = kind(path) in _TABLES
        return read_table(content, path, settings.data, labels) if is_table else read_fasta(content, path)

    return index_of(*_index(file, settings, labelled), lambda: read_source(path, parse))


def _index(file: str, settings: Settings, labelled: bool) -> tuple[Path, str | None, dict[str, Any], tuple[str, ...]]:
    """Return which index holds what is read of a file, as `index_of` takes it; DataError if it has no labels."""
    path, labels = Path(file), _labels(settings) if labelled else None
    is_table = kind(path) in _TABLES
    if labels is not None and not is_table:
        raise DataError(f"{path} has no labels, which {settings.network} needs: give a table, called .csv or .tsv")
    shape = _shape(settings, labels) if is_table else {}
    columns = UNLABELLED if labels is None else (*UNLABELLED, *labels.columns)
    return path, settings.data.index_dir, shape, columns


def _shape(settings: Settings, labels: LabelReader | None) -> dict[str, Any]:
    """Return the settings that decide what is read of a table."""
    data = settings.data
    shape: dict[str, Any] = {"sequence": data.sequence_column, "name": data.name_column}
    if labels is not None:
        shape |= {"label": data.label_column, "mask": data.mask_column}
        shape |= {"network": settings.network, "classes": settings.model.classes}
    return shape


def _labels(settings: Settings) -> LabelReader | None:
    """Return what reads the labels that the network learns from, None if it needs none."""
    return None if settings.network == "masked" else LabelReader(settings.network, settings.model.classes)


def _read(file: str | None, split: str, settings: Settings) -> Proteins:
    return read_sample(split, settings, _labels(settings)) if file is None else read_proteins(file, settings)


def _tell_of_long(file: str, proteins: Proteins, settings: Settings) -> None:
    most = settings.model.max_length - SPECIAL_TOKENS
    lengths = proteins.lengths(0, len(proteins))
    if count := int((lengths > most).sum()):
        whole = f"a network with --model.max_length {int(lengths.max()) + SPECIAL_TOKENS} reads all"
        are_cut = f"only so many are read, at both ends ({whole})"
        if settings.input is None and settings.network == "masked":
            are_cut = f"each epoch sees another window of them, of --model.max_length {most + SPECIAL_TOKENS} tokens"
        told = f"{count:,} of the {len(proteins):,} proteins in {file} have more than {most:,} residues: {are_cut}"
        print(f"warning: {told}", file=sys.stderr, flush=True)


def _split(proteins: Proteins, wished: int | None) -> tuple[Proteins, Proteins]:
    size = min(max(len(proteins) // 5, 1), MOST_TO_VALIDATE) if wished is None else wished
    train, validation = split_validation(range(len(proteins)), size)
    return proteins[: len(train)], proteins[-len(validation) :]
