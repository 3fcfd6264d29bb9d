"""What a person is told of a run of many ranks: everything once.

A mistake of the user's that one rank finds is told by that rank, and ends all of them.

On the last stage alone a network's outputs or a new head can be wrong. The other ranks then see a closed connection,
or wait on their GPU for ever; what they would say explains nothing.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from lightning.pytorch.utilities import rank_zero_only
from torch.distributed.distributed_c10d import _get_default_store

from ..contracts.errors import ToldError, UserError
from .launch import VERDICT

_REASON = "why the run ends"


@rank_zero_only
def tell(line: str) -> None:
    """Print a line that a person should read during a run; on the first rank only."""
    print(line, file=sys.stderr, flush=True)


@contextmanager
def told_once() -> Iterator[None]:
    """Let the first of many ranks that fails tell why.

    Raises:
        ToldError: instead of a UserError of any rank, and of what the others say when that one is gone.
    """
    try:
        yield
    except Exception as error:
        if not torch.distributed.is_initialized() or torch.distributed.get_world_size() == 1:
            raise
        reason = _told(error)
        if reason is None:
            time.sleep(VERDICT)  # that a rank was killed says more than what its connections do
            raise
        raise ToldError(reason) from error


def _told(error: Exception) -> str | None:
    """Tell a UserError if no rank has told one; return the reason why the run ends, or None if it is a defect."""
    store = _get_default_store()
    own = f"error on rank {torch.distributed.get_rank()}: {error}" if isinstance(error, UserError) else None
    try:
        if own is None:
            return store.get(_REASON).decode() if store.check([_REASON]) else None
        reason = store.compare_set(_REASON, "", own).decode()  # sets it if nobody has
    except torch.distributed.DistError:  # the first rank has ended, and with it the store
        return own
    if reason == own:
        print(own, file=sys.stderr, flush=True)
    return reason
