"""What else is measured of the project: how a step grows, checkpoints, start-up."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from generated import make_settings, module
from machine import gpus, size_mb, wait_for
from race import project


def growth(device: str, folder: Path, steps: int) -> list[dict[str, Any]]:
    """Time steps of the project with other batches, micro batches and ranks."""
    most = gpus() if device == "cuda" else 4
    cases = [(batch, 1, 1) for batch in (32, 128, 512, 2048)]
    cases += [(128, number, 1) for number in (2, 4, 8)]
    cases += [(128, 1, ranks) for ranks in (2, 4) if ranks <= most]
    rows = []
    for batch, micro_batches, ranks in cases:
        settings = make_settings(batch, 2 * steps)
        micro = batch // (ranks * micro_batches)
        settings = replace(
            settings,
            parallel=replace(settings.parallel, devices=ranks),
            training=replace(settings.training, micro_batch_size=micro),
        )
        seconds = max(in_ranks(timed, settings, folder / f"{batch}-{micro_batches}-{ranks}", device))
        milliseconds = round(1000 * seconds, 2)
        rows.append({"batch": batch, "micro_batches": micro_batches, "ranks": ranks, "milliseconds": milliseconds})
    return rows


def timed(settings: Any) -> float:
    """Train; return the median seconds of the second half of the steps."""
    moments: list[float] = []
    device = settings.accelerator.replace("gpu", "cuda")

    def tick() -> None:
        wait_for(device)
        moments.append(time.perf_counter())

    project(settings, device, Path(settings.run_dir), tick)
    steady = moments[len(moments) // 2 :]
    return statistics.median(later - earlier for earlier, later in pairwise(steady))


def in_ranks(target: Callable[..., Any], settings: Any, folder: Path, device: str = "cpu") -> list[Any]:
    """Call `target(settings)` in the ranks of the settings; return each one's answer."""
    folder.mkdir()
    settings = replace(settings, run_dir=str(folder), accelerator="gpu" if device == "cuda" else "cpu")
    ranks = {"processes": settings.parallel.devices, "accelerator": settings.accelerator}
    answers: list[Any] = module("proof.ranks").run_ranks(target, settings, logs=folder / "logs", **ranks)
    return answers


def checkpoint(folder: Path) -> dict[str, float]:
    """Return the seconds that a checkpoint takes, and its size."""
    [(seconds, megabytes)] = in_ranks(saved, make_settings(128, 2), folder / "checkpoint")
    return {"checkpoint_seconds": round(seconds, 3), "checkpoint_mb": round(megabytes, 2)}


def saved(settings: Any) -> tuple[float, float]:
    """Train two steps; return the seconds and the MB of the last checkpoint."""
    saving, seconds = module("runtime.saving"), 0.0
    save = saving.Checkpoint._save_checkpoint

    def watched(self: Any, *args: Any) -> None:
        nonlocal seconds
        began = time.perf_counter()
        save(self, *args)
        seconds = time.perf_counter() - began

    saving.Checkpoint._save_checkpoint = watched
    project(settings, "cpu", Path(settings.run_dir), lambda: None)
    last = module("runtime.checkpoint").last_checkpoint(Path(settings.run_dir) / "run" / "checkpoints")
    return seconds, size_mb(last)


def start_up(device: str, folder: Path, times: int) -> dict[str, float]:
    """Return medians of the seconds of whole commands: help, and one step with validation and checkpoint."""
    package = module("cli").__package__
    accelerator = "gpu" if device == "cuda" else "cpu"
    one_step = ("--accelerator", accelerator, "--training.max_steps", "1", "--training.warmup_steps", "0")

    def seconds(*words: str) -> float:
        began = time.perf_counter()
        subprocess.run([sys.executable, "-m", package, *words], capture_output=True, check=True)
        return time.perf_counter() - began

    def trained(ranks: int, number: int) -> float:
        run = str(folder / f"one-step-{ranks}-{number}")
        return seconds("pretrain", *one_step, "--parallel.devices", str(ranks), "--run_dir", run)

    found = {
        "help_seconds": [seconds("--help") for _ in range(times)],
        "command_help_seconds": [seconds("pretrain", "--help") for _ in range(times)],
        "one_step_seconds": [trained(1, number) for number in range(times)],
    }
    if device == "cpu" or gpus() > 1:
        found["one_step_2_ranks_seconds"] = [trained(2, number) for number in range(times)]
    return {name: round(statistics.median(each), 3) for name, each in found.items()}
