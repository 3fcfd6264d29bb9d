"""One training at a time in a run folder: a lock that goes with the process that holds it, however that ends.

It is a record lock (fcntl), which file systems of several machines know too. It also goes when its process closes the
file, however often that is open: within `locked` nothing may open it, and what it says is `signature`. No torch.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..contracts.errors import UserError
from ..contracts.names import SETTINGS_FILE
from .launch import is_first_rank

LOCK_FILE = ".lock"


def signature() -> str:
    """Return what this process writes into a lock that it holds."""
    return f"process {os.getpid()} on {socket.gethostname()}"


def check_unlocked(run: Path) -> None:
    """Raise a UserError if another process trains in a run folder; the first rank speaks for all."""
    with suppress(OSError):  # it cannot be read or written, which others tell
        if is_first_rank() and (run / LOCK_FILE).exists():
            os.close(_lock(run / LOCK_FILE))


def holder(run: Path) -> str | None:
    """Say who trains in a run folder, `process N on HOST`; None if nobody does.

    It asks and locks nothing, so that nobody who starts to train at this moment is refused.

    Raises:
        OSError: the file system has no locks.
    """
    try:
        file = os.open(run / LOCK_FILE, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        asked = struct.pack("hhqqi0q", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)  # struct flock of Linux: the whole file
        kind, *_ = struct.unpack("hhqqi0q", fcntl.fcntl(file, fcntl.F_GETLK, asked))
        return None if kind == fcntl.F_UNLCK else named(run)
    finally:
        os.close(file)


def named(run: Path) -> str:
    """Return whom the lock of a run folder names: who holds it, or who held it last and could not remove it."""
    with suppress(OSError):
        return (run / LOCK_FILE).read_text(encoding="utf-8", errors="replace") or "another process"
    return "another process"


@contextmanager
def locked(run: Path) -> Iterator[None]:
    """Hold a run folder for the ranks of this process; it is made, and removed again if nothing came into it.

    What a process that died has left in the lock stays, if no training began meanwhile.

    Raises:
        UserError: another process trains in it, or it cannot be written.
    """
    if not is_first_rank():
        yield
        return
    try:
        made = [path for path in (run, *run.parents) if not path.exists()]
        run.mkdir(parents=True, exist_ok=True)
        lock = _lock(run / LOCK_FILE)
        left, saved = os.read(lock, 200), _saved(run)
        _write(lock, signature().encode())
    except OSError as error:
        raise UserError(f"{run} cannot be written: {error.strerror}") from None
    try:
        yield
    finally:
        with suppress(OSError):  # the folder may be gone, or have become read-only
            if left and _saved(run) == saved:
                _write(lock, left)
            else:
                (run / LOCK_FILE).unlink()
            for path in made:
                path.rmdir()  # if it is empty
        os.close(lock)


def _saved(run: Path) -> int:
    """Return when the settings of a run were written, which a training does at its start."""
    with suppress(FileNotFoundError):
        return (run / SETTINGS_FILE).stat().st_mtime_ns
    return 0


def _write(lock: int, text: bytes) -> None:
    os.ftruncate(lock, 0)
    os.pwrite(lock, text, 0)


def _lock(path: Path) -> int:
    """Open and lock a file that its holder may be about to remove."""
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):  # POSIX allows both
            holder = os.read(file, 200).decode(errors="replace") or "another process"
            os.close(file)
            raise UserError(
                f"{path.parent} is being trained by {holder}: stop it, wait until it ends, or choose another --run_dir"
            ) from None
        except OSError as error:
            print(f"warning: {path} cannot be locked ({error.strerror}): train in one process only", file=sys.stderr)
            return file
        if path.exists() and os.path.samestat(os.fstat(file), path.stat()):
            return file
        os.close(file)
