"""Where the time goes: of a step by cProfile, of the imports by `python -X importtime`.

Both watch Python, and make it slower: take the shares for the order of things. On a GPU the figures are those of the
CPU that drives it.
"""

from __future__ import annotations

import cProfile
import pstats
import re
import subprocess
import sys
from collections import Counter
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from generated import make_settings, module
from measures import in_ranks
from race import project

CPU_BACKEND = "what stands in for CUDA"
TORCH_KERNELS = "torch's operators"
FIRST, LAST = 10, 50  # the steps between which the profiler looks


def profile_step(device: str, folder: Path) -> list[dict[str, Any]]:
    """Return the milliseconds of a step, batch 128, by the library whose code spends them."""
    settings = make_settings(128, LAST + 10)
    [seconds] = in_ranks(profiled, settings, folder / "profile", device)
    whole = sum(seconds.values())
    return [
        {"step": place, "milliseconds": round(1000 * own / (LAST - FIRST), 3), "share": round(own / whole, 4)}
        for place, own in seconds.most_common()
    ]


def profiled(settings: Any) -> Counter[str]:
    """Train under the profiler; return the seconds of each place."""
    profile, steps = cProfile.Profile(), 0

    def tick() -> None:
        nonlocal steps
        steps += 1
        if steps == FIRST:
            profile.enable()
        if steps == LAST:
            profile.disable()

    project(settings, settings.accelerator.replace("gpu", "cuda"), Path(settings.run_dir), tick)
    seconds: Counter[str] = Counter({CPU_BACKEND: 0.0})
    for (file, _, name), (_, _, own, _, callers) in pstats.Stats(profile).stats.items():  # type: ignore[attr-defined]
        if file != "~":
            seconds[place_of(file)] += own
        elif "torch" in name:
            seconds[TORCH_KERNELS] += own
        else:  # a builtin counts for who calls it
            for (caller, _, _), (_, _, share, _) in callers.items():
                seconds[place_of(caller)] += share
    return seconds


def place_of(file: str) -> str:
    """Name the library of a source file."""
    return next((place for root, place in roots().items() if file.startswith(root)), "Python and the rest")


@cache
def roots() -> dict[str, str]:
    """Return whose code lies where: a part of a package before the whole."""
    project = module("cli").__package__
    places = {
        f"{project}.runtime.cpu": CPU_BACKEND,
        "torch.cpu": CPU_BACKEND,
        project: "this project",
        "torch": "torch's Python",
        "megatron.core": "Megatron-Core",
        "nemo": "NeMo",
        "lightning": "Lightning",
    }
    files = {name: str(import_module(name).__file__) for name in places}
    return {files[name].removesuffix("__init__.py"): place for name, place in places.items()}


def profile_imports() -> list[dict[str, Any]]:
    """Return the seconds that the packages take to be imported for a training, those of more than 0.1 s alone."""
    package = module("cli").__package__
    command = [sys.executable, "-X", "importtime", "-c", f"import {package}.training.train"]
    log = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=True).stderr
    seconds: Counter[str] = Counter()
    for own, name in re.findall(r"^import time: +(\d+) \| +\d+ \| +([\w.]+)$", log, flags=re.MULTILINE):
        seconds[name.partition(".")[0]] += int(own) / 1e6
    rows = {name: own for name, own in seconds.most_common() if own > 0.1}
    rows["all others"] = sum(seconds.values()) - sum(rows.values())
    return [{"import": name, "seconds": round(own, 2)} for name, own in rows.items()]
