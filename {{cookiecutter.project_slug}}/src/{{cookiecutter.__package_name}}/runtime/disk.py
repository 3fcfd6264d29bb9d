"""What a person is told when a run folder cannot be written: why, and how to go on."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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
        if why := reason(error, run):
            raise UserError(f"{run} cannot be written any more: {why}; mend that, and {again}") from error
        raise


def reason(error: BaseException | None, folder: Path) -> str | None:
    """Find an error of the disk among the causes of another; or try, for torch loses it."""
    seen: list[BaseException] = []
    while error is not None and error not in seen:  # who raises an error again may make it its own cause
        seen.append(error)
        if isinstance(error, DiskError):
            return str(error)
        if isinstance(error, OSError) and error.errno in DISK:
            return in_words(error, folder)
        error = error.__cause__ or error.__context__
    if not folder.exists():
        return VANISHED
    trial = folder / f".trial-{os.getpid()}"
    try:
        trial.write_bytes(bytes(1 << 16))
        trial.unlink()
    except OSError as refusal:
        return in_words(refusal, folder)
    return None


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
