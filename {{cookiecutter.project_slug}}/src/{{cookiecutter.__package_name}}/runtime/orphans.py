"""Ends the ranks that Lightning started when their parent is killed; without this they wait for it for ever.

Standard library only, so that its test need not start a whole training.
"""

from __future__ import annotations

import ctypes
import signal
import sys

_PR_SET_PDEATHSIG = 1  # from Linux' <sys/prctl.h>


def die_with_the_parent() -> None:
    """Ask Linux to kill this process with its parent."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
