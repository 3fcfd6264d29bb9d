"""The seal of a checkpoint: a list of its files with their sizes and checksums, written when all else is.

A checkpoint that differs from it is damaged.
"""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import torch

from ..contracts.files import write_whole

SEAL = "files.json"


def seal(checkpoint: Path) -> None:
    """Seal a folder that all ranks have written; each of them reads its share of the files, in one collective."""
    rank, world_size = torch.distributed.get_rank(), torch.distributed.get_world_size()
    files = [_files(checkpoint)]
    torch.distributed.broadcast_object_list(files)
    shares: list[Any] = [None] * world_size
    mine = {name: _entry(checkpoint / name) for name in files[0][rank::world_size]}
    torch.distributed.all_gather_object(shares, mine)
    if rank == 0:
        with write_whole(checkpoint / SEAL) as file:
            json.dump({name: entry for share in shares for name, entry in share.items()}, file, indent=2)
    torch.distributed.barrier()


def is_sealed(checkpoint: Path) -> bool:
    """Tell whether the folder was written to its end."""
    return (checkpoint / SEAL).is_file()


def damage(checkpoint: Path) -> str | None:
    """Say how a sealed folder differs from what was written, or return None if it does not."""
    try:
        entries = json.loads((checkpoint / SEAL).read_text(encoding="utf-8"))
        sizes = {name: entry["bytes"] for name, entry in entries.items()}
    except (OSError, ValueError, AttributeError, TypeError, KeyError):
        return f"{SEAL} cannot be read"
    for name, size in sizes.items():
        path = checkpoint / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != size:
            return f"{name} has {path.stat().st_size} bytes, not {size}"
        if _entry(path) != entries[name]:
            return f"{name} has another checksum"
    return None


def _files(checkpoint: Path) -> list[str]:
    return sorted(str(path.relative_to(checkpoint)) for path in checkpoint.rglob("*") if path.is_file())


def _entry(path: Path) -> dict[str, int]:
    checksum = 0
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            checksum = zlib.crc32(block, checksum)
    return {"bytes": path.stat().st_size, "crc32": checksum}
