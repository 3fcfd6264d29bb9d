"""A file of proteins, read from its beginning to its end."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from tqdm import tqdm

from ...contracts.item import DataError
from .store import Record

_BAR_AFTER = 2  # seconds
_BAR_EVERY = 1000  # proteins


def kind(path: Path) -> str:
    """Return what a file is by its name, whether packed or not: .csv, .tsv, .fasta."""
    return Path(path.name.lower().removesuffix(".gz")).suffix


def unpacked(path: Path, packed: IO[bytes]) -> IO[bytes]:
    """Return the content of an open file: unpacked, if it is called .gz."""
    return gzip.open(packed) if path.suffix.lower() == ".gz" else packed  # type: ignore[return-value]


def read_source(path: Path, parse: Callable[[IO[bytes]], Iterator[Record]]) -> Iterator[Record]:
    """Give protein after protein, with a bar on a terminal if it takes long.

    Args:
        path: the file.
        parse: reads what is in it, unpacked.

    Raises:
        DataError: the file is missing, cannot be read or is damaged; or what `parse` raises.
    """
    try:
        with path.open("rb") as packed, _bar(path) as bar:
            for number, record in enumerate(parse(unpacked(path, packed))):
                yield record
                if number % _BAR_EVERY == 0:
                    bar.update(packed.tell() - bar.n)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path} is damaged or cut short ({error}): copy it again") from error
    except OSError as error:
        raise unreadable(path, error) from error


def unreadable(path: Path, error: OSError) -> DataError:
    """Return the error that tells of a file that is missing or may not be read."""
    return DataError(f"{path} cannot be read ({error.strerror}): check its name and its permissions")


def _bar(path: Path) -> tqdm:
    size = path.stat().st_size
    return tqdm(desc=f"index of {path.name}", total=size, unit="B", unit_scale=True, delay=_BAR_AFTER, disable=None)
