"""What a machine says of itself that matters on a cluster: address, file system, who starts processes, links of GPUs.

Standard library only. What is not there is left out.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from .runtime.launch import launcher
from .runtime.network import interfaces

SHARED = ("nfs", "lustre", "gpfs", "beegfs", "ceph", "glusterfs", "wekafs", "panfs", "orangefs", "cifs", "smb", "afs")
"""What the names of file systems begin with that all machines of a cluster see."""
UNKNOWN = ("fuse", "9p", "virtiofs")
"""The same of those that may be shared."""
VARIABLES = {
    "Slurm": "SLURM_JOB_ID SLURM_JOB_NODELIST SLURM_STEP_ID SLURM_STEP_NUM_NODES SLURM_NTASKS SLURM_PROCID",
    "torchrun": "RANK WORLD_SIZE LOCAL_RANK LOCAL_WORLD_SIZE GROUP_RANK",
    "another launcher": "NODE_RANK OMPI_COMM_WORLD_RANK OMPI_COMM_WORLD_SIZE PMI_RANK PMI_SIZE",
    "whoever said where ranks meet": "MASTER_ADDR MASTER_PORT",
}
"""What those who start processes leave in the environment."""
IFNAMES = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")
"""What tells them which network interface to use."""
SMALL = 2**30
"""Bytes of /dev/shm below which it may not do: NCCL and the workers of loaders exchange data there."""


def address() -> str:
    """Return what this machine is called, and where others would look for it."""
    name = socket.gethostname()
    others = _outside()
    try:
        found = socket.gethostbyname(name)
    except OSError:
        found = ""
    if found and not found.startswith("127."):
        return f"{name}, {found}"
    where = f"is {found}, which no other machine reaches" if found else "has no address"
    if not others or "GLOO_SOCKET_IFNAME" in os.environ:
        return f"{name} {where}"
    told = "runs over several machines take the interface by which these reach each other, or GLOO_SOCKET_IFNAME"
    return f"{name} {where} (/etc/hosts says so): {told}" if found else f"{name} {where}: {told}"


def _outside() -> dict[str, str]:
    """Return the addresses of the network interfaces, but for the one of the machine to itself."""
    return {name: number for name, number in interfaces().items() if not number.startswith("127.")}


def wrong_interfaces() -> list[str]:
    """Return a line for each variable that tells gloo or NCCL to use a network interface that is not there."""
    here = [name for _, name in socket.if_nameindex()]
    wrong = []
    for variable in IFNAMES:
        named = os.environ.get(variable, "")
        exact = named.startswith("=") or variable.startswith("GLOO")  # else NCCL takes what begins so; ^ is "not these"
        for name in filter(None, () if named.startswith("^") else named.lstrip("=").split(",")):
            if not any(other == name or (not exact and other.startswith(name)) for other in here):
                wrong.append(f"{variable} names {name}, and there is none: one of {', '.join(here)}, or unset it")
    return wrong


def file_system(folder: Path, mounts: str = "/proc/self/mountinfo") -> str:
    """Say on what kind of file system a folder is or would be, and what is free there."""
    existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists()).resolve()
    free = f"{shutil.disk_usage(existing).free / 2**30:,.1f} GiB free"
    kind = _kind_of(existing, mounts)
    if kind.startswith(SHARED):
        return f"{kind}, shared between machines, {free}"
    if kind.startswith(UNKNOWN):
        return f"{kind}, which may be shared between machines, {free}"
    return f"{kind}, of this machine only, {free}" if kind else free


def _kind_of(existing: Path, mounts: str) -> str:
    """Return the type of the file system that was mounted last over a path."""
    kind, longest = "", -1
    with suppress(OSError):
        for line in Path(mounts).read_text(encoding="utf-8", errors="replace").splitlines():
            before, _, after = line.partition(" - ")
            point = re.sub(r"\\(\d{3})", lambda octal: chr(int(octal[1], 8)), before.split()[4])
            if existing.is_relative_to(point) and len(point) >= longest:
                kind, longest = after.split()[0], len(point)
    return kind


def cluster(gpus: int) -> Iterator[str]:
    """Give the lines that say something on a machine of a cluster, or with GPUs; none on a laptop."""
    seen = {who: _set(names.split()) for who, names in VARIABLES.items()}
    if not (gpus or any(seen.values())):
        return
    yield f"Started by: {_starter()}"
    for who, variables in seen.items():
        if variables:
            yield f"Left by {who}: {' '.join(variables)}"
    chosen = " ".join(_set(IFNAMES)) or "gloo takes that of the host's address, NCCL chooses"
    yield f"Network: {', '.join(f'{name} {number}' for name, number in _outside().items()) or 'none'}; {chosen}"
    with suppress(OSError):
        size = shutil.disk_usage("/dev/shm").total
        small = "; too little for several GPUs (in a container, --shm-size 8g)" if size < SMALL else ""
        yield f"/dev/shm: {size / 2**30:,.2f} GiB{small}"
    if found := driver():
        yield f"NVIDIA driver {found}"
    if gpus > 1:
        yield from _links()


def _set(names: Iterable[str]) -> list[str]:
    return [f"{name}={os.environ[name]}" for name in names if name in os.environ]


def _starter() -> str:
    who = launcher()
    if who != "nobody":
        return f"{'a launcher' if who == 'another' else who}, as one of its processes"
    if "SLURM_JOB_ID" in os.environ:
        return "nobody, in a Slurm job: a command starts its processes here; behind srun, on all machines of the job"
    return "nobody: a command starts its processes itself"


def driver() -> str:
    """Return the version of NVIDIA's driver, nothing if there is none."""
    with suppress(OSError):
        text = Path("/proc/driver/nvidia/version").read_text(encoding="utf-8", errors="replace")
        if match := re.search(r"Kernel Module.*?\s(\d+(?:\.\d+)+)", text):
            return match[1]
    return ""


def _links() -> Iterator[str]:
    """Give the table of how GPUs are connected: NV# is NVLink, the others go over the board."""
    with suppress(OSError, subprocess.SubprocessError):
        words = ["nvidia-smi", "topo", "-m"]
        answer = subprocess.run(words, capture_output=True, text=True, timeout=20, check=True)
        table = re.sub(r"\x1b\[[\d;]*m", "", answer.stdout).partition("Legend:")[0]
        yield from (line.rstrip() for line in table.splitlines() if line.strip())
