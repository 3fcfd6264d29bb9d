"""Paths as they are meant, and files and folders that are whole or not there."""

from __future__ import annotations

import fcntl
import glob
import os
import shutil
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from .errors import UserError

_SHOWN = (".DS_Store", "Thumbs.db")
"""what a desktop leaves in a folder that it has shown"""

_LOCK = "lock"
"""held by the process that writes a folder, beside its `new`"""

_QUIET = 1800
"""seconds without a write, after which whoever holds no lock has gone"""


def at_home(text: str) -> str:
    """Return a text that begins with `~/` or `~user/`, which no shell has seen, as the path that is meant."""
    is_path = text == "~" or (text.startswith("~") and "/" in text)
    return os.path.expanduser(text) if is_path else text


def as_path(word: str) -> Path:
    """Return the path that a word of the command line means; UserError for the empty word, which is no folder."""
    if not word:
        raise UserError("a path on the command line is empty, perhaps a variable of the shell: name the folder")
    return Path(at_home(word))


@contextmanager
def write_whole(path: Path, mode: str = "w") -> Iterator[IO[Any]]:
    """Open a file that appears under its name only when the block has ended well; else the old one stays.

    Args:
        path: the file; its folder is made if need be.
        mode: "w" for text (UTF-8), "wb" for bytes.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        text = None if "b" in mode else "utf-8"
        with part.open(mode, encoding=text, newline=None if text is None else "") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        if error.errno and error.filename is None:  # a write that fails names no file
            error.filename = str(path)
        raise
    finally:
        part.unlink(missing_ok=True)


def check_only(folder: Path, ours: Collection[str], what: str, mend: str) -> None:
    """Raise a UserError if a folder that is to be replaced holds something that is not of what we write there.

    Args:
        folder: the folder, which need not be there.
        ours: names of files and folders in it that may go.
        what: what we write there.
        mend: what to do about something else.
    """
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if others := sorted(names.difference(ours, _SHOWN)):
        raise UserError(f"{folder} holds {others[0]}, which is of no {what}: {mend}")


@contextmanager
def write_whole_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty folder that takes the place of `folder` when the block has ended well; else the old one stays.

    Args:
        folder: the folder; the ones above it are made if need be.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as beside,
        Path(beside, _LOCK).open("wb") as lock,
    ):
        with suppress(OSError):  # a file system without locks
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        new, old = Path(beside, "new"), Path(beside, "old")
        new.mkdir()
        yield new
        if folder.exists():
            os.replace(folder, old)
        try:
            os.replace(new, folder)
        except BaseException:
            if old.exists():
                old.rename(folder)
            raise


def remove_leftovers(folder: Path) -> None:
    """Remove what processes that were killed in `write_whole_folder` have left, the old `folder` too if it was there.

    One that lives is safe, on whatever machine: it holds a lock, and where locks do not reach other machines, it has
    written something in the last half hour. Where the file system has no locks at all, everything stays.

    Raises:
        OSError: nothing can be written there.
    """
    locks = list(folder.parent.glob(f".{glob.escape(folder.name)}-*/{_LOCK}"))
    if not locks:
        return
    with tempfile.TemporaryFile(dir=folder.parent) as new:
        now = os.fstat(new.fileno()).st_mtime  # the clock of the file system, which may be another machine's
    for path in locks:
        with suppress(OSError):  # it is locked, or another process removes it
            if now - max((part.stat().st_mtime for part in path.parent.rglob("*")), default=now) < _QUIET:
                continue
            with path.open("r+b") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path.parent)
