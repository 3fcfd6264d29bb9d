"""The sample in this package: proteins and where in a cell they work, with their official splits (sample/)."""

from __future__ import annotations

import csv
import hashlib
import io
import lzma
from pathlib import Path

from ...contracts.item import DataError
from ..settings import LOCATIONS, Settings
from .encoding import encode
from .labels import LabelReader
from .store import UNLABELLED, Proteins, Record, in_memory

SAMPLE = Path(__file__).parents[1] / "sample" / "proteins.csv.xz"
SHA256 = "159e7d2e452e355b531af97e9f57aa50c7a1c91993224e0d4ecdc5f46bfd51e4"
"""Of what is in the file, unpacked."""

_REMEDY = "restore it from git, or reinstall this package"


def read_sample(split: str, settings: Settings, labels: LabelReader | None) -> Proteins:
    """Read a split of the sample into memory; for a classifier, only the proteins of its classes.

    Args:
        split: train, validation or test.
        settings: say the network and its classes.
        labels: of the network; None: no labels are read.

    Raises:
        DataError: the file is missing or damaged, or has no labels for this network.
    """
    rows = [row for row in csv.DictReader(io.StringIO(_content())) if row["split"] == split]
    if labels is None:
        return in_memory(map(_record, rows), UNLABELLED)
    _check_labels(settings)
    chosen = [row for row in rows if row["label"] in settings.model.classes]
    return in_memory((_record(row, labels) for row in chosen), (*UNLABELLED, *labels.columns))


def _check_labels(settings: Settings) -> None:
    if settings.network != "sequence_classifier":
        raise DataError(f"the sample has no labels for {settings.network}: set --data.train_file to a file that has")
    if unknown := [name for name in settings.model.classes if name not in LOCATIONS]:
        raise DataError(f"--model.classes: the sample has no {unknown[0]!r}, only {', '.join(LOCATIONS)}")


def _record(row: dict[str, str], labels: LabelReader | None = None) -> Record:
    name, tokens = row["name"].encode(), encode(row["sequence"].encode())
    if labels is None:
        return Record(name, tokens)
    return Record(name, tokens, labels.read(row["label"], None, len(tokens))[0].tobytes())


def _content() -> str:
    try:
        content = lzma.decompress(SAMPLE.read_bytes())
    except FileNotFoundError:
        raise DataError(f"{SAMPLE} is missing: {_REMEDY}") from None
    except (OSError, lzma.LZMAError) as error:
        raise DataError(f"{SAMPLE} cannot be read ({error}): {_REMEDY}") from error
    if hashlib.sha256(content).hexdigest() != SHA256:
        raise DataError(f"{SAMPLE} is damaged (its {len(content):,} bytes have another checksum): {_REMEDY}")
    return content.decode()
