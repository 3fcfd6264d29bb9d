"""What must be the same on all machines of a run, looked at before anything is written."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from ..contracts.errors import UserError
from ..contracts.settings import by_name
from . import meeting
from .lock import LOCK_FILE, signature

_SHARES = 15.0
"""seconds after which another machine sees a new file"""


def check_alike(given: dict[str, Any]) -> None:
    """Raise a UserError if this machine has another package or torch, or was given something else than the first one.

    Args:
        given: what all machines must have been given alike, by name, nested or not.
    """
    if (met := _of_many_machines()) is None:
        return

    def describe() -> str:
        own = {**given, "version of torch": torch.__version__, "checksum of the package": _checksum()}
        return json.dumps(dict(by_name(own)))

    theirs = json.loads(met.from_first("alike", describe))

    def check() -> None:
        ours = json.loads(describe())
        pairs = {name: (ours.get(name), theirs.get(name)) for name in theirs | ours}
        if others := [f"{name} {own}, not {first}" for name, (own, first) in pairs.items() if own != first]:
            raise UserError(f"{'; '.join(others)}: give this machine what {met.machines[0]} has")

    _on_all_machines("alike", check, met)


def check_shared(run: Path) -> None:
    """Raise a UserError if a machine does not see the locked run folder of the first rank, but one of its own."""
    if (met := _of_many_machines()) is None:
        return
    locked_by = met.from_first("lock", signature)

    def check() -> None:
        if met.rank and not _sees(run, locked_by):  # the first rank holds the lock, and would lose it by looking
            raise UserError(
                f"{run} on {met.machines[met.rank]} is not that of {met.machines[0]}: --run_dir must lie "
                "on a file system that all machines share"
            )

    _on_all_machines("sees it", check, met)


def _of_many_machines() -> meeting.Meeting | None:
    met = meeting.current
    return met if met and met.size > met.per_machine else None


def _on_all_machines(what: str, check: Callable[[], None], met: meeting.Meeting) -> None:
    """Check something on the first rank of each machine, and wait until all have."""
    firsts = range(0, met.size, met.per_machine)
    if met.rank in firsts:
        check()
        met.store.set(f"{what} {met.rank}", "")
    for rank in firsts:
        met.said(f"{what} {rank}", rank)


def _checksum() -> int:
    checksum = 0
    for path in sorted(Path(__file__).parents[1].rglob("*.py")):
        checksum = zlib.crc32(path.read_bytes(), checksum)
    return checksum


def _sees(run: Path, locked_by: str) -> bool:
    for _ in meeting.polls(_SHARES):
        with suppress(OSError):
            os.listdir(run.parent)  # NFS then asks again what it remembers as missing
            if (run / LOCK_FILE).read_text() == locked_by:
                return True
    return False
