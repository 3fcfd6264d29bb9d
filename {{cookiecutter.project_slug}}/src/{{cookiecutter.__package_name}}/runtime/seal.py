"""The seal of a checkpoint: a list of its files with their sizes and checksums, written when all else is.

A checkpoint that differs from it is damaged. To look at one needs no torch.
"""

from __future__ import annotations

import json
import re
import zlib
from pathlib import Path
from typing import Any

from ..contracts.files import write_whole

SEAL = "files.json"
UNFINISHED = "-unfinished"
"""ends the name of NeMo's marker, which lies beside a checkpoint while that is written or removed"""


def seal(checkpoint: Path) -> None:
    """Seal a folder that all ranks have written; each of them reads its share of the files, in one collective."""
    import torch

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


def damage(checkpoint: Path, reads: bool = True) -> str | None:
    """Say how a sealed folder differs from what was written, or return None if it does not.

    Args:
        checkpoint: the folder.
        reads: all of it, for the checksums; else files are only held against their sizes.
    """
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
        if reads and _entry(path) != entries[name]:
            return f"{name} has another checksum"
    return None


def finished(folder: Path) -> list[Path]:
    """List the checkpoints that were saved to the end, and of which NeMo has not begun to remove anything."""
    return [path for path in folder.glob("step=*") if path.is_dir() and not is_unfinished(path)]


def is_unfinished(checkpoint: Path) -> bool:
    """Tell whether a checkpoint is being written or removed, or was when its process was killed."""
    return Path(f"{checkpoint}{UNFINISHED}").exists()


def step_of(checkpoint: Path) -> int:
    """Return the number of finished optimizer steps of a checkpoint."""
    match = re.match(r"step=(\d+)", checkpoint.name)
    return int(match.group(1)) if match else -1


def _files(checkpoint: Path) -> list[str]:
    return sorted(str(path.relative_to(checkpoint)) for path in checkpoint.rglob("*") if path.is_file())


def _entry(path: Path) -> dict[str, int]:
    checksum = 0
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            checksum = zlib.crc32(block, checksum)
    return {"bytes": path.stat().st_size, "crc32": checksum}
