"""The seal of a checkpoint: a list of its files with their sizes and checksums, written when all else is.

A checkpoint that differs from it is damaged. To look at one needs no torch.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterable
from pathlib import Path

from ..contracts.files import write_whole

SEAL = "files.json"
UNFINISHED = "-unfinished"
"""how the name of NeMo's marker ends"""
LAST = "-last"
"""how the name of a checkpoint ends that is not the best one"""

Entries = dict[str, dict[str, int]]
"""Size and checksum of files, by their names in the checkpoint."""


def seal(checkpoint: Path, known: Entries) -> None:
    """Seal a folder that has been written; what is not `known` of its files is read."""
    others = [path for path in sorted(checkpoint.rglob("*")) if path.is_file()]
    others = [path for path in others if str(path.relative_to(checkpoint)) not in known]
    with write_whole(checkpoint / SEAL) as file:
        json.dump(known | entries(checkpoint, others), file, indent=2)


def entries(checkpoint: Path, files: Iterable[Path]) -> Entries:
    """Read files of a checkpoint, and return what the seal says of them."""
    return {str(path.relative_to(checkpoint)): _entry(path) for path in files}


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
        sealed = json.loads((checkpoint / SEAL).read_text(encoding="utf-8"))
        sizes = {name: entry["bytes"] for name, entry in sealed.items()}
    except OSError as error:
        return f"{SEAL} cannot be read: {error.strerror}"
    except (ValueError, AttributeError, TypeError, KeyError):
        return f"{SEAL} cannot be read"
    if not sizes:
        return f"{SEAL} lists no file"
    for name, size in sizes.items():
        path = checkpoint / name
        try:
            if not path.is_file():
                return f"{name} is missing"
            if (found := path.stat().st_size) != size:
                return f"{name} has {found} bytes, not {size}"
            if reads and _entry(path) != sealed[name]:
                return f"{name} has another checksum"
        except OSError as error:  # a bad sector; or it is being removed
            return f"{name} cannot be read: {error.strerror}"
    return None


def finished(folder: Path) -> list[Path]:
    """List the checkpoints that were saved to the end, and of which nothing has been removed since."""
    return [path for path in folder.glob("step=*") if path.is_dir() and not marker(path).exists()]


def step_of(checkpoint: Path) -> int:
    """Return the number of finished optimizer steps of a checkpoint."""
    match = re.match(r"step=(\d+)", checkpoint.name)
    return int(match.group(1)) if match else -1


def marker(checkpoint: Path) -> Path:
    """Return NeMo's marker, which lies beside a checkpoint while it is written or removed, also by a killed process."""
    return Path(f"{checkpoint}{UNFINISHED}")


def _entry(path: Path) -> dict[str, int]:
    checksum = 0
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            checksum = zlib.crc32(block, checksum)
    return {"bytes": path.stat().st_size, "crc32": checksum}
