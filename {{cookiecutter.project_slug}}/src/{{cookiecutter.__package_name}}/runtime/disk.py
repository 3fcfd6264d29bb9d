"""What a person is told when a run folder cannot be written any more: why, and how to go on."""

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
        if reason := _reason(error, run):
            raise UserError(f"{run} cannot be written any more: {reason}; mend that, and {again}") from error
        raise


def _reason(error: BaseException | None, run: Path) -> str | None:
    """Find an error of the disk among the causes of another; or try, for Megatron loses it."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in DISK:
            return _in_words(error, run)
        error = error.__cause__ or error.__context__
    if not run.exists():
        return "the folder has vanished"
    trial = run / f".trial-{os.getpid()}"
    try:
        trial.write_bytes(bytes(1 << 16))
        trial.unlink()
    except OSError as refusal:
        return _in_words(refusal, run)
    return None


def _in_words(error: OSError, run: Path) -> str:
    if error.errno != errno.ENOSPC:
        return str(error.strerror)
    return f"{error.strerror} ({shutil.disk_usage(run).free / 2**20:,.1f} MiB are free)"
