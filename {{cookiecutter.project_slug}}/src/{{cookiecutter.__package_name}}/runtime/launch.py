"""Starts the other ranks of a command before anything heavy is imported, and ends with them.

Lightning starts them when the first rank has imported everything, one import later, and answers a rank that fails by
killing the first one, whose exit code then says nothing. Standard library only: it runs before all other imports.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time

from . import orphans

is_command = False
"""Whether this process runs one command of the command line and nothing else; only then can it be run again."""

_LAUNCHERS = ("LOCAL_RANK", "RANK", "JSM_NAMESPACE_RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK")
"""variables by which torchrun, LSF and MPI tell a process which rank it is"""

_GRACE = 5.0
"""seconds that the first rank has to end by itself after another failed; one that waits on a GPU never does"""


def start_ranks(devices: int) -> None:
    """Run this command again as ranks 1 to `devices` - 1, and end with the exit code of one that fails.

    Does nothing in a process that another launcher has started, torchrun or Slurm, say, or that is no command.
    """
    if devices == 1 or not is_command or _is_launched():
        return
    given = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(_free_port()),
        "OMP_NUM_THREADS": str(max((os.cpu_count() or 1) // devices, 1)),
    }
    for name, value in given.items():
        os.environ.setdefault(name, value)
    ranks = [
        subprocess.Popen(
            _this_command(), env={**os.environ, "LOCAL_RANK": str(rank)}, preexec_fn=orphans.die_with_the_parent
        )
        for rank in range(1, devices)
    ]
    os.environ["LOCAL_RANK"] = "0"
    threading.Thread(target=_end_with, args=(ranks,), daemon=True).start()


def _is_launched() -> bool:
    # in an interactive job of Slurm's, Lightning starts processes itself
    slurm = "SLURM_NTASKS" in os.environ and os.environ.get("SLURM_JOB_NAME") not in ("bash", "interactive")
    return slurm or any(name in os.environ for name in _LAUNCHERS)


def _free_port() -> int:
    with socket.socket() as server:
        server.bind(("", 0))
        return int(server.getsockname()[1])


def _this_command() -> list[str]:
    import __main__

    how = ["-m", __main__.__spec__.name] if __main__.__spec__ else [os.path.abspath(sys.argv[0])]
    return [sys.executable, *how, *sys.argv[1:]]


def _end_with(ranks: list[subprocess.Popen]) -> None:
    while not (failed := [rank for rank in ranks if rank.poll()]):
        if all(rank.returncode == 0 for rank in ranks):
            return
        time.sleep(1)
    time.sleep(_GRACE)
    code = failed[0].returncode
    if code < 0:
        print(f"error: rank {ranks.index(failed[0]) + 1} was killed by signal {-code}", file=sys.stderr, flush=True)
    os._exit(code if code > 0 else 128 - code)
