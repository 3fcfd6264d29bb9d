"""The machine that the figures are of."""

from __future__ import annotations

import os
import platform
from pathlib import Path


def gpus() -> int:
    """Count the GPUs."""
    import torch

    return torch.cuda.device_count()


def describe_machine(device: str) -> str:
    """Say on what the figures were measured."""
    import torch

    cores = f"{len(os.sched_getaffinity(0))} CPU cores, PyTorch {torch.__version__}, Python {platform.python_version()}"
    return f"{gpus()} {torch.cuda.get_device_name(0)}, {cores}" if device == "cuda" else cores


def wait_for(device: str) -> None:
    """Wait until the device has done what it was told, so that a clock sees it."""
    if device == "cuda":
        import torch

        torch.cuda.synchronize()


def size_mb(folder: Path) -> float:
    """Return the size of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6
