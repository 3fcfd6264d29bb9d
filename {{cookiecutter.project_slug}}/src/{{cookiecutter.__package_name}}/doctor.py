"""Says what will run on this machine, and what is in the way: versions first, since a wrong one breaks imports."""

from __future__ import annotations

import os
import sys
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from packaging.requirements import Requirement

from . import machine
from .contracts.errors import UserError
from .training.run_settings import check_writable

OK, BAD, ABSENT = "ok", "WRONG", "absent"
BROUGHT = ("wandb",)
"""Packages that are used if they are there, and that others bring."""


def diagnose(runs: Path) -> int:
    """Print versions, devices and what they allow, and where this is; return 0 if this project can train here, else 1.

    Args:
        runs: where runs are to lie.
    """
    print(f"Python {sys.version.split()[0]} on {sys.platform}\n")
    packages_fit = _print_packages()
    print()
    gpus = _print_devices()
    print(f"\nHost: {machine.address()}")
    try:
        check_writable(runs)
        wrong = []
        stands = "is" if runs.exists() else "does not exist yet, and would be"
        print(f"Runs: {runs} {stands} on {machine.file_system(runs)}")
    except UserError as error:
        wrong = [str(error)]
    for line in machine.cluster(gpus or 0):
        print(line)
    wrong += machine.wrong_interfaces()
    for line in wrong:
        print(f"{BAD}  {line}")
    return 0 if packages_fit and gpus is not None and not wrong else 1


def misfits() -> list[str]:
    """Return a line for each declared dependency that is missing or of another version; quick, imports none of them."""
    try:
        return [f"{name} {text}" for name, status, text in _packages() if status == BAD]
    except UserError as error:
        return [str(error)]


def _print_packages() -> bool:
    """Print each declared dependency beside what is installed; return whether all the needed ones fit."""
    rows = _packages()
    width = max((len(name) for name, *_ in rows), default=0)
    for name, status, text in rows:
        print(f"{status:6}  {name:{width}}  {text}")
    return all(status != BAD for _, status, _ in rows)


def _packages() -> list[tuple[str, str, str]]:
    """Return name, status and what to know of each declared dependency."""
    try:
        declared = metadata.requires(_distribution()) or []
    except metadata.PackageNotFoundError:
        raise UserError(f"{_distribution()} is not installed here: make setup, or pip install -e .") from None
    return [*(_check(Requirement(line)) for line in declared), *map(_check_brought, BROUGHT)]


def _check(requirement: Requirement) -> tuple[str, str, str]:
    wanted = str(requirement.specifier) or "any version"
    extra = _extra(requirement)
    try:
        installed = metadata.version(requirement.name)
    except metadata.PackageNotFoundError:
        if extra:
            return requirement.name, ABSENT, f"optional: extra `{extra}` needs {wanted}"
        return requirement.name, BAD, f'not installed, needs {wanted}: pip install "{requirement.name}{wanted}"'
    if requirement.specifier.contains(installed, prereleases=True):
        return requirement.name, OK, installed
    return requirement.name, BAD, f'{installed}, needs {wanted}: pip install "{requirement.name}{wanted}"'


def _check_brought(name: str) -> tuple[str, str, str]:
    try:
        return name, OK, metadata.version(name)
    except metadata.PackageNotFoundError:
        return name, ABSENT, f"optional: pip install {name}"


def _extra(requirement: Requirement) -> str | None:
    """Return the extra that a requirement belongs to, from its marker `extra == "name"`."""
    marker = str(requirement.marker or "")
    return marker.split('"')[1] if "extra ==" in marker else None


def _print_devices() -> int | None:
    """Print what there is to compute on; return how many GPUs that are, None if nothing runs."""
    if find_spec("torch") is None:
        print("PyTorch is missing: nothing runs.")
        return None
    import torch

    cores, gpus = len(os.sched_getaffinity(0)), torch.cuda.device_count()
    print(f"CPU: {cores} cores. Every layout runs here, in fp32 and bf16, through gloo; one process a core is fastest.")
    if gpus == 0:
        driver = f" with NVIDIA driver {found}" if (found := machine.driver()) else ""
        print(f"GPU: none that PyTorch {torch.__version__} can use{driver}; --accelerator auto takes the CPU.")
    for number in range(gpus):
        device = torch.cuda.get_device_properties(number)
        print(f"GPU {number}: {device.name}, {device.total_memory / 2**30:.0f} GiB")
    if gpus:
        nccl = ".".join(map(str, torch.cuda.nccl.version())) if torch.distributed.is_nccl_available() else ""
        layouts = f"up to {gpus} processes through NCCL {nccl}" if nccl else "1 process (NCCL is missing)"
        print(f"--accelerator auto takes the GPU: {layouts} on this machine.")
    return gpus


def _distribution() -> str:
    return (__package__ or "").replace("_", "-")
