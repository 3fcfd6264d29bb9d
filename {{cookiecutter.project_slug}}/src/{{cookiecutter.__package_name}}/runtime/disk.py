"""What a person is told when a run folder cannot be written: why, and how to go on."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeGuard

from ..contracts.errors import UserError

DISK = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE, errno.EFBIG}
"""Errors that no program is to blame for."""

VANISHED = "the folder has vanished"


class DiskError(Exception):
    """Something could not be written; the words say why, without a name."""


@contextmanager
def writing(run: Path, again: str = "run the command again") -> Iterator[None]:
    """Raise a UserError in place of what libraries make of a run folder that cannot be written.

    Args:
        run: the folder.
        again: what to do when it can be written again.
    """
    try:
        yield
    except (UserError, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # torch's CheckpointException is no Exception
        if why := reason(error, run, is_save=False):
            raise UserError(f"{run} cannot be written any more: {why}; mend that, and {again}") from error
        for cause in causes(error):
            if _is_of_a_disk(cause) and (file := _file(cause)):
                raise UserError(f"{file}: {cause.strerror}; mend that, and {again}") from error
        raise


def reason(error: BaseException | None, folder: Path, is_save: bool = True) -> str | None:
    """Find an error of the disk among the causes of another; or try, for torch loses it.

    Args:
        error: what was raised.
        folder: the one that was written; what names a file elsewhere is not its error.
        is_save: nothing else was done, so that an error that names no file is of the folder. Else it may be of
            /dev/shm, say, and is the folder's only if that cannot be written.
    """
    for cause in causes(error):
        if isinstance(cause, DiskError):
            return str(cause)
        if _is_of_a_disk(cause) and (_is_in(folder, file) if (file := _file(cause)) else is_save):
            return in_words(cause, folder)
    trial = folder / f".trial-{os.getpid()}"
    try:
        try:
            trial.write_bytes(bytes(1 << 16))
        finally:
            trial.unlink(missing_ok=True)
    except FileNotFoundError:
        return VANISHED
    except OSError as refusal:
        return in_words(refusal, folder)
    return None


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """Go from an error to what caused it, and so on; who raises one again may make it its own cause."""
    seen: list[BaseException] = []
    while error is not None and error not in seen:
        seen.append(error)
        yield error
        error = error.__cause__ or error.__context__


def _is_of_a_disk(error: BaseException) -> TypeGuard[OSError]:
    return isinstance(error, OSError) and error.errno in DISK


def _file(error: OSError) -> Path | None:
    """Return the file that an error names; some name a number, and a write that fails names none."""
    return Path(os.fsdecode(error.filename)) if isinstance(error.filename, str | bytes) else None


def _is_in(folder: Path, file: Path) -> bool:
    """Tell whether a file lies in a folder, as it is called or as links lead there."""
    return file.absolute().is_relative_to(folder.absolute()) or file.resolve().is_relative_to(folder.resolve())


def check_room(folder: Path, size: int) -> None:
    """Raise a DiskError if the file system of a folder has no room for so many bytes."""
    free = shutil.disk_usage(folder).free
    if free < size:
        raise DiskError(f"it needs {_mib(size)}, and {_mib(free)} are free")


def in_words(error: OSError, folder: Path) -> str:
    """Say what an error of the disk is, and how full that of a folder is if it is full."""
    if error.errno != errno.ENOSPC:
        return str(error.strerror)
    return f"{error.strerror} ({_mib(shutil.disk_usage(folder).free)} are free)"


def _mib(size: int) -> str:
    return f"{size / 2**20:,.1f} MiB"
