"""The index of a file: what is in it, as arrays that are mapped into memory. Built once, next to the file.

A run reads from it only what it needs, and all processes of a machine share what was read.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...contracts.files import remove_leftovers, write_whole_folder
from ...contracts.item import DataError
from .source import unreadable
from .store import OFFSET, Column, Proteins, Record

_VERSION = 2
_META, _DIGEST = "meta.json", "digest"
_BUFFER = 1 << 20  # bytes


def index_of(
    source: Path,
    index_dir: str | None,
    shape: dict[str, Any],
    columns: tuple[str, ...],
    read: Callable[[], Iterator[Record]],
) -> Proteins:
    """Return the proteins of a file from its index, which is built if there is none or the file has changed.

    Several processes may build it at the same time: the first that is ready serves them all.

    Args:
        source: the file.
        index_dir: where indexes are; None: beside the file.
        shape: what decides what the index holds, as JSON; each shape has an index of its own.
        columns: the fields of Record that it holds.
        read: gives the proteins of the file.

    Raises:
        DataError: the file is missing or cannot be used, or the index cannot be written.
    """
    folder, about = _folder(source, index_dir, shape), _about(source, shape)
    if (found := _open(folder, about, columns)) is not None:
        return found
    if folder.exists():
        print(f"{source} has changed, or its index is damaged: building it again", file=sys.stderr, flush=True)
    reason = _build(folder, about, columns, read)
    if (found := _open(folder, about, columns)) is None:
        raise DataError(f"{folder} cannot be written ({reason}): set --data.index_dir to a folder that can")
    return found


def has_index(source: Path, index_dir: str | None, shape: dict[str, Any], columns: tuple[str, ...]) -> bool:
    """Tell whether `index_of` would find an index and build none; DataError if the file is missing."""
    return _open(_folder(source, index_dir, shape), _about(source, shape), columns) is not None


def _about(source: Path, shape: dict[str, Any]) -> dict[str, Any]:
    """Return what tells an index from that of another shape, and a file that was changed."""
    try:
        state = source.stat()
    except OSError as error:
        raise unreadable(source, error) from error
    return {"version": _VERSION, "bytes": state.st_size, "mtime_ns": state.st_mtime_ns, "shape": shape}


def _folder(source: Path, index_dir: str | None, shape: dict[str, Any]) -> Path:
    # files and links of one name share no index: the folder is the one that they lie in, wherever a link leads to
    parent = source.parent if index_dir is None else Path(index_dir, *source.parent.resolve().parts[1:])
    digest = hashlib.sha256(json.dumps([_VERSION, shape], sort_keys=True).encode()).hexdigest()[:8]
    return parent / f"{source.name}.index" / digest


def _open(folder: Path, about: dict[str, Any], columns: tuple[str, ...]) -> Proteins | None:
    """Return what an index holds, or None if it is not there, not whole, or another's."""
    try:
        meta = json.loads((folder / _META).read_text(encoding="utf-8"))
        digest = meta.pop(_DIGEST)
        if meta != {**about, "sizes": _sizes(folder, columns)}:
            return None
        mapped: dict[str, Column] = {column: _mapped(folder / column) for column in columns}
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return Proteins(mapped, 0, len(mapped["tokens"].offsets) - 1, digest)


def _sizes(folder: Path, columns: tuple[str, ...]) -> dict[str, int]:
    files = [file.name for column in columns for file in _files(folder / column)]
    return {file: (folder / file).stat().st_size for file in files}


def _build(
    folder: Path, about: dict[str, Any], columns: tuple[str, ...], read: Callable[[], Iterator[Record]]
) -> str | None:
    """Write an index, or say why not. What killed processes have left goes: before, and after, when it is older."""
    try:
        remove_leftovers(folder)
        with write_whole_folder(folder) as new:
            digest = _write(new, columns, read())
            meta = {**about, "sizes": _sizes(new, columns), _DIGEST: digest}
            (new / _META).write_text(json.dumps(meta, indent=1), encoding="utf-8")
            if _open(folder, about, columns) is not None:
                raise FileExistsError(errno.EEXIST, "another process has built it")  # and may be using it
        remove_leftovers(folder)
    except OSError as error:
        return error.strerror
    return None


def _write(folder: Path, columns: tuple[str, ...], records: Iterator[Record]) -> str:
    """Write the columns, and return a checksum of what is learned from: of all of them but the names."""
    with ExitStack() as stack:
        places = [Record._fields.index(column) for column in columns]
        writers = [stack.enter_context(_ColumnWriter(folder / column)) for column in columns]
        pairs = list(zip(places, writers, strict=True))
        for record in records:
            for place, writer in pairs:
                writer.add(record[place])
    return "-".join(f"{writer.checksum:08x}" for place, writer in pairs if Record._fields[place] != "name")


class _ColumnWriter:
    """Writes the two files of a column, one array after the other."""

    def __init__(self, path: Path) -> None:
        self.values, self.offsets = (file.open("wb", buffering=_BUFFER) for file in _files(path))
        self.end = self.checksum = 0
        self.offsets.write(self.end.to_bytes(OFFSET.itemsize, "little"))

    def add(self, array: bytes) -> None:
        self.values.write(array)
        self.end += len(array)
        offset = self.end.to_bytes(OFFSET.itemsize, "little")
        self.offsets.write(offset)
        self.checksum = zlib.crc32(offset, zlib.crc32(array, self.checksum))

    def __enter__(self) -> _ColumnWriter:
        return self

    def __exit__(self, *_: object) -> None:
        for file in (self.values, self.offsets):
            with file:
                file.flush()
                os.fsync(file.fileno())


@dataclass(frozen=True)
class _MappedColumn(Column):
    """A column in two files. A process that it is sent to opens them itself."""

    path: Path

    def __reduce__(self) -> tuple[Any, ...]:
        return _mapped, (self.path,)


def _mapped(path: Path) -> _MappedColumn:
    values, offsets = _files(path)
    return _MappedColumn(_map(values, np.dtype(np.uint8)), _map(offsets, OFFSET), path)


def _map(file: Path, dtype: np.dtype) -> np.ndarray:
    return np.memmap(file, dtype, "r").view(np.ndarray)  # slices of a memmap are slow


def _files(path: Path) -> tuple[Path, Path]:
    return path.with_suffix(".values"), path.with_suffix(".offsets")
