"""What a person is told of a run of many ranks: everything once.

A mistake of the user's that one rank finds is told by that rank, and ends all of them.

On the last stage alone a network's outputs or a new head can be wrong. The other ranks then see a closed connection,
or wait on their GPU for ever; what they would say explains nothing.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ..contracts.errors import LostError, ToldError, UserError
from . import loader, meeting
from .launch import GO_ON, VERDICT, is_first_rank

_TIMED_OUT = "Timed out waiting"
"""words of gloo; NCCL's watchdog ends the process"""
_CLOSED = re.compile(r"gloo.*(closed by peer|reset by peer|Broken pipe|pair closure)|ncclRemoteError")
"""what the others of a rank that has ended say"""


def tell(line: str) -> None:
    """Print a line that a person should read during a run; on the first rank only."""
    if is_first_rank():
        print(line, file=sys.stderr, flush=True)


@contextmanager
def told_once() -> Iterator[None]:
    """Let the first of many ranks that fails tell why.

    Raises:
        ToldError: instead of a UserError of any rank, and of what the others say when that one is gone.
        LostError: instead of what they say when a rank is gone that has told nothing, or stands still; and of what
            torch says when a process that loads data is.
        KeyboardInterrupt: instead of the SystemExit that Lightning makes of it.
    """
    try:
        yield
    except SystemExit as end:
        if isinstance(end.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from end
        raise
    except Exception as error:
        lost = loader.lost(error)
        if meeting.current is None:
            if lost is None:
                raise
            print(f"error: {lost}", file=sys.stderr, flush=True)
            raise LostError(lost) from error
        if meeting.current.has_lost:  # and has been told: its watch ends this process
            time.sleep(600)
        reason = _told(error, meeting.current, lost)
        if reason is None:
            time.sleep(VERDICT)  # that a rank was killed says more than what its connections do
            if not _CLOSED.search(str(error)):
                raise
            _tell_closed(meeting.current)
            raise LostError(str(error)) from error
        raise (ToldError if reason.startswith(meeting.MISTAKE) else LostError)(reason) from error


def _told(error: Exception, met: meeting.Meeting, lost: str | None) -> str | None:
    """Tell a UserError if no rank has told one; return the reason why the run ends, or None if it is a defect."""
    own = f"{meeting.MISTAKE} {met.name(met.rank)}: {error}" if isinstance(error, UserError) else None
    own = f"error: {met.name(met.rank)}: {lost}" if lost else own
    try:
        if own is None and _TIMED_OUT in str(error):
            own = _stuck(met)
        reason = met.failure() if own is None else met.fail(own)
    except torch.distributed.DistError:  # the first rank has ended, and with it the store
        reason = own
    if reason is not None and (reason == own or met.repeats(reason)):
        print(reason, file=sys.stderr, flush=True)
    return reason


def _tell_closed(met: meeting.Meeting) -> None:
    """Say on each machine that another rank has ended; what it said itself, or its machine, says why."""
    if met.tells_of_others:
        print(f"error on {met.name(met.rank)}: another rank has ended; {GO_ON}", file=sys.stderr, flush=True)


def _stuck(met: meeting.Meeting) -> str:
    """Say who lives, but did not come to where the others waited for it."""
    met.store.set(f"waited {met.rank}", "")
    time.sleep(2 * VERDICT)  # the others waited no longer
    stuck = [rank for rank in range(met.size) if not met.store.check([f"waited {rank}"])]
    who = ", ".join(map(met.name, stuck)) or "some rank"
    return (
        f"error: {who} did something else for {meeting.in_minutes(met.limit)} while others waited for it in a step; "
        "`py-spy dump` shows what a process does"
    )
