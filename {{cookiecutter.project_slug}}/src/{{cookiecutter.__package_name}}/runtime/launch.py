"""Who started this process, and whether that fits the layout; starts the other ranks of a command, and ends with them.

Lightning starts them when the first rank has imported everything, one import later, and answers a rank that fails by
killing the first one, whose exit code then says nothing. Standard library only: it runs before all other imports.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from importlib.util import find_spec
from typing import Literal, NamedTuple

from ..contracts.errors import UserError
from . import orphans

_port = os.environ.get("MASTER_PORT")
"""what was left to this process, until it has been checked; Lightning puts its own there"""

_num_nodes = 1
"""machines of the run, once that has been checked"""

Launcher = Literal["torchrun", "srun", "Open MPI", "MPI", "another", "nobody"]


class _Names(NamedTuple):
    """The variables in which a launcher tells a process what it is: numbers, and 0 is the first."""

    rank: str
    local_rank: str
    size: str
    """how many processes there are"""
    local_size: str
    """how many of them are on this machine; srun says how many machines there are"""


_LAUNCHERS: dict[Launcher, _Names] = {
    "torchrun": _Names("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"),
    "srun": _Names("SLURM_PROCID", "SLURM_LOCALID", "SLURM_NTASKS", "SLURM_STEP_NUM_NODES"),
    "Open MPI": _Names(*(f"OMPI_COMM_WORLD_{name}" for name in ("RANK", "LOCAL_RANK", "SIZE", "LOCAL_SIZE"))),
    "MPI": _Names("PMI_RANK", "MPI_LOCALRANKID", "PMI_SIZE", "MPI_LOCALNRANKS"),  # MPICH, Intel's
}
_OTHERS: dict[Launcher, tuple[str, ...]] = {"another": ("RANK", "LOCAL_RANK", "NODE_RANK"), "nobody": ("NODE_RANK",)}
"""the numbers that there are without one, all 0 for the first rank"""
MPI: tuple[Launcher, ...] = ("Open MPI", "MPI")
"""which Lightning asks by way of mpi4py"""
HERE = "127.0.0.1"
"""where the ranks of one machine meet, whatever a run on several has left in MASTER_ADDR"""

_NO_DEVICE = 100
"""what CUDA answers where there is a driver and no GPU, or none that it may use"""

_POLL = 0.2
"""seconds between two looks at the other ranks"""
VERDICT = 1.0
"""seconds after which the first rank has seen that another was killed, and has ended all with a word about it"""
GO_ON = "a training can go on from its last checkpoint, with --resume true"
"""what a person may do when a rank is lost"""
_GRACE = 5.0
"""seconds that the first rank has to end by itself after another failed; one that waits on a GPU never does"""


def launcher() -> Launcher:
    """Tell who started this process as a rank.

    A shell of a Slurm job has most of Slurm's variables, but only srun starts tasks, which are in a step. A step of
    one task is nobody's rank, nor is the one process of an mpirun: it may be a shell (`srun --pty bash`), and its
    command starts others itself. "another" is this project, for its ranks, or a person who sets LOCAL_RANK.
    """
    if {"RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK"} <= os.environ.keys():
        return "torchrun"
    if {"SLURM_STEP_ID", "SLURM_PROCID"} <= os.environ.keys() and os.environ.get("SLURM_NTASKS", "1") != "1":
        return "srun"
    for who in MPI:
        if os.environ.get(_LAUNCHERS[who].size, "1") != "1":
            return who
    return "another" if "LOCAL_RANK" in os.environ else "nobody"


def is_first_rank() -> bool:
    """Tell whether no other process of the run speaks for this one.

    Where nobody started ranks, a variable that was left in the environment makes none of this process.
    """
    who = launcher()
    if who == "nobody" and _num_nodes == 1:
        return True
    names = _OTHERS.get(who) or (_LAUNCHERS[who].rank,)
    return all(os.environ.get(name, "0") == "0" for name in names)


def is_first_of_machine() -> bool:
    """Tell whether no other process on this machine speaks for this one."""
    who = launcher()
    return os.environ.get(_LAUNCHERS[who].local_rank if who in _LAUNCHERS else "LOCAL_RANK", "0") == "0"


def nodes() -> int:
    """Return how many machines a launcher started processes on; 1 if none did, or it does not say."""
    if (who := launcher()) not in _LAUNCHERS or _LAUNCHERS[who].local_size not in os.environ:
        return 1
    number = _count(_LAUNCHERS[who].local_size)
    return number if who == "srun" else max(_count(_LAUNCHERS[who].size) // number, 1)


def is_one_of_many_machines() -> bool:
    """Tell whether the run has others beside this machine, as far as what started it says."""
    return nodes() > 1 or "NODE_RANK" in os.environ


def check(devices: int, num_nodes: int) -> None:
    """Hold what started this process, and what it left in the environment, against the layout.

    Args:
        devices: processes on this machine.
        num_nodes: machines.

    Raises:
        UserError: they do not fit, and ranks would wait for others for ever, or not find each other.
    """
    global _port, _num_nodes
    who, ranks, _num_nodes = launcher(), devices * num_nodes, num_nodes
    for name in _OTHERS.get(who) or _LAUNCHERS[who]:
        if not (value := os.environ.get(name, "0")).isdecimal():
            raise UserError(f"{name} is {value!r} in the environment, which is no number: unset it, or mend it")
    if who in _LAUNCHERS:
        world, here = _count(_LAUNCHERS[who].size), tasks_of_a_node()
        if (world, here) != (ranks, devices):
            machines = f", on {world // here} machines" if world > here else ""
            raise UserError(
                f"{who} started {world} processes{machines}, and the settings want {ranks}: give --parallel.devices "
                f"{here}" + (f" --parallel.num_nodes {world // here}" if world > here or num_nodes > 1 else "")
            )
        if who in MPI and not find_spec("mpi4py"):
            raise UserError(f"{who} started this process, and mpi4py tells ranks apart: install it, or use torchrun")
    elif num_nodes > 1 and "NODE_RANK" not in os.environ:
        raise UserError(
            f"--parallel.num_nodes {num_nodes}: nothing says which of them this machine is, and it would wait for the "
            "others for ever; start the command on each with torchrun or srun, or use 1"
        )
    elif num_nodes == 1 and (number := os.environ.get("NODE_RANK", "0")) != "0":
        raise UserError(
            f"NODE_RANK is {number} in the environment, and there is one machine: set --parallel.num_nodes, or unset it"
        )
    if _port and who == "nobody" and os.environ.get("NODE_RANK", "0") == "0":
        _check_free(_port)
    _port = None
    if who == "nobody" and devices > 1:
        _check_script(devices)


def tasks_of_a_node() -> int:
    """Return how many processes a launcher started on each machine."""
    return max(_count(_LAUNCHERS[launcher()].size) // nodes(), 1)


def _count(name: str) -> int:
    """Return how many a launcher says there are; 1 if it is no number, which `check` tells, and errors before it do."""
    value = os.environ.get(name, "1")
    return max(int(value), 1) if value.isdecimal() else 1


def _check_free(port: str) -> None:
    """Raise a UserError if the first rank could not listen at a port that the environment names."""
    problem = f"MASTER_PORT is {port} in the environment"
    mend = "unset it, and a free one is taken, or name another"
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            server.bind(("", int(port)))
        except (ValueError, OverflowError):
            raise UserError(f"{problem}, which is no port: {mend}") from None
        except OSError as error:
            raise UserError(f"{problem}, and cannot be used here ({error.strerror}): {mend}") from None


def _check_script(devices: int) -> None:
    """Raise a UserError if this program is not in a file, so that it cannot be run again as the other ranks."""
    import __main__

    file = getattr(__main__, "__file__", None)
    if __main__.__spec__ is None and not (file and os.path.isfile(file)):
        raise UserError(
            f"--parallel.devices {devices} runs this program again for each process, so it must be a file: save it as "
            "one, or use 1 (a notebook, or a program from standard input, is one process)"
        )


def start_ranks(devices: int, num_nodes: int = 1) -> bool:
    """Run this program again as ranks 1 to `devices` - 1, and end with the exit code of one that fails.

    Starts nothing in a process that a launcher has started, torchrun or Slurm, say, or that has started others before.

    Returns:
        whether it started any.

    Raises:
        UserError: see `check`.
    """
    check(devices, num_nodes)
    if devices == 1 or launcher() != "nobody":
        return False
    os.environ.pop("RANK", None)  # it was left there, and would be that of all
    if num_nodes == 1:
        os.environ["MASTER_ADDR"] = HERE
    given = {
        "MASTER_ADDR": HERE,
        "MASTER_PORT": str(_free_port()),
        "OMP_NUM_THREADS": str(max(len(os.sched_getaffinity(0)) // devices, 1)),
    }
    for name, value in given.items():
        os.environ.setdefault(name, value)
    ranks = [
        subprocess.Popen(
            _this_program(), env={**os.environ, "LOCAL_RANK": str(rank)}, preexec_fn=orphans.die_with_the_parent
        )
        for rank in range(1, devices)
    ]
    os.environ["LOCAL_RANK"] = "0"
    threading.Thread(target=_end_with, args=(ranks,), daemon=True).start()
    return True


def check_gpus(accelerator: Literal["auto", "cpu", "gpu"], devices: int) -> None:
    """Refuse more processes than there are GPUs before any is started; the driver knows, without torch.

    Raises:
        UserError: there are fewer GPUs than processes.
    """
    if accelerator == "cpu" or devices == 1 or (gpus := _gpus()) is None or devices <= gpus:
        return
    if gpus:
        mend = "use as many, or --accelerator cpu; plan works for machines that are not here"
        raise UserError(f"--parallel.devices {devices} needs {devices} GPUs, but this machine has {gpus}: {mend}")
    if accelerator == "gpu":
        raise UserError("--accelerator gpu: PyTorch sees no GPU on this machine; use cpu (doctor says more)")


def _gpus() -> int | None:
    """Return how many GPUs CUDA may use here; None if it does not say."""
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int()
    if (error := cuda.cuInit(0)) or cuda.cuDeviceGetCount(ctypes.byref(count)):
        return 0 if error == _NO_DEVICE else None
    return count.value


def _free_port() -> int:
    with socket.socket() as server:
        server.bind(("", 0))
        return int(server.getsockname()[1])


def _this_program() -> list[str]:
    import __main__

    how = ["-m", __main__.__spec__.name] if __main__.__spec__ else [os.path.abspath(sys.argv[0])]
    return [sys.executable, *how, *sys.argv[1:]]


def _end_with(ranks: list[subprocess.Popen]) -> None:
    while not (failed := [rank for rank in ranks if rank.poll()]):
        if all(rank.returncode == 0 for rank in ranks):
            return
        time.sleep(_POLL)
    code = failed[0].returncode
    if code < 0:
        print(_killed(ranks.index(failed[0]) + 1, -code), file=sys.stderr, flush=True)
        os._exit(128 - code)
    time.sleep(_GRACE)
    os._exit(code)


def _killed(rank: int, number: int) -> str:
    why = ", perhaps because memory ran out" if number == signal.SIGKILL else ""
    return f"error: rank {rank} was killed by signal {number} ({signal.strsignal(number)}){why}; {GO_ON}"
