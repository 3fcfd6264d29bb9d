"""The race: contestants that train in processes of their own and take turns, a segment of steps each."""

from __future__ import annotations

import multiprocessing
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NoReturn

from generated import make_settings, module, sample_folder
from machine import wait_for

Tick = Callable[[], None]


# --- in the process of a contestant


class Pacer:
    """Counts a contestant's steps: after each segment it reports the seconds, and waits for its next turn."""

    def __init__(self, turns: Connection, device: str) -> None:
        """Report to `turns`; the first segment is one step long."""
        self.turns, self.device, self.left = turns, device, 1

    def __call__(self) -> None:
        """Count a step."""
        self.left -= 1
        if self.left:
            return
        wait_for(self.device)
        self.turns.send(time.perf_counter())
        self.left = self.turns.recv()
        if not self.left:
            self._end()
        self.turns.send(time.perf_counter())

    def _end(self) -> NoReturn:
        self.turns.send(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
        os._exit(0)  # in the middle of a training; nothing of it is wanted


def contestants(device: str) -> dict[str, Callable[..., None]]:
    """Return what takes part on this device; `torchvision` fetches item by item, `memory` takes batches of a tensor."""
    everywhere = {
        "torch_torchvision": plain_way("torch", memory=False),
        "torch_memory": plain_way("torch", memory=True),
        "lightning_torchvision": plain_way("lightning", memory=False),
        "lightning_memory": plain_way("lightning", memory=True),
        "project": project,
    }
    on_gpu = {"nemo_example": nemo_example, "cuda_graph": plain_way("cuda_graph", memory=True)}
    return everywhere | (on_gpu if device == "cuda" else {})


def plain_way(way: str, memory: bool) -> Callable[..., None]:
    """Return a training without Megatron: `torch`, `lightning`, or the bare `cuda_graph` of a step."""

    def train(settings: Any, device: str, folder: Path, tick: Tick) -> None:
        import plain

        digits: Any = plain.torchvision_digits(folder, sample_folder())
        batches = plain.loader(
            plain.InMemory(digits) if memory else digits, settings.training.global_batch_size, device
        )
        sizes = settings.model
        network = plain.Autoencoder(sizes.num_layers, sizes.hidden_size, sizes.ffn_hidden_size, sizes.latent_size)
        if way == "lightning":
            plain.train_with_lightning(network, batches, settings.training, device, tick, folder)
        else:
            loop = plain.train_with_torch if way == "torch" else plain.train_with_cuda_graph
            loop(network, batches, settings.training, device, tick)

    return train


def project(settings: Any, device: str, folder: Path, tick: Tick) -> None:
    """Train as the generated project's `pretrain` does, with its callbacks and logs; a race has no validation."""
    training = module("training.train")

    class Progress(training.Progress):
        def on_train_batch_end(self, *args: Any) -> None:
            super().on_train_batch_end(*args)
            tick()

    training.Progress = Progress
    accelerator = "gpu" if device == "cuda" else "cpu"
    training.train(replace(settings, run_dir=str(folder / "run"), accelerator=accelerator))


def nemo_example(settings: Any, device: str, folder: Path, tick: Tick) -> None:
    """Train the project's network with NeMo's strategy as it comes, item by item."""
    from nemo_example import train_with_nemo
    from plain import torchvision_digits

    config = module("training.train").make_module(settings, start_weights=None).config
    config.calculate_per_token_loss = False  # the example's loss is a mean
    train_with_nemo(config, torchvision_digits(folder, sample_folder()), settings.training, tick, folder)


def compete(name: str, settings: Any, device: str, folder: Path, turns: Connection) -> None:
    """Train until the race is over; what is printed goes into a file."""
    with (folder / "log").open("w") as log:
        os.dup2(log.fileno(), sys.stdout.fileno())
        os.dup2(log.fileno(), sys.stderr.fileno())
    module("runtime.noise").quiet()
    contestants(device)[name](settings, device, folder, Pacer(turns, device))


# --- the race


@dataclass
class Racer:
    """A contestant, seen from outside."""

    name: str
    folder: Path
    process: Any
    turns: Connection

    def hear(self) -> float:
        """Wait for the moment that it reports; end the benchmark if it failed."""
        try:
            return float(self.turns.recv())
        except EOFError:
            sys.exit(f"{self.name} failed:\n{(self.folder / 'log').read_text()[-3000:]}")

    def run(self, steps: int) -> float:
        """Let it train a segment; return the steps in a second."""
        self.turns.send(steps)
        began = self.hear()
        return steps / (self.hear() - began)

    def end(self) -> float:
        """End it; return its peak memory in MB."""
        self.turns.send(0)
        megabytes = self.hear()
        self.process.join()
        return megabytes


def race(device: str, batch: int, starts: int, rounds: int, segment: int, folder: Path) -> list[dict[str, Any]]:
    """Race `starts` times, each time with new processes; return a row for each contestant.

    So no figure hangs on one process, which may be faster or slower than its twin for as long as it lives.
    """
    names = list(contestants(device))
    speeds: dict[str, list[float]] = {name: [] for name in names}
    memory: dict[str, float] = {}
    for number in range(starts):
        place = folder / f"batch-{batch}-start-{number}"
        racers = [start(name, batch, device, place / name) for name in names]
        for racer in racers:
            racer.hear()
            racer.run(segment)  # to warm up
        for turn in range(rounds):
            first = (number * rounds + turn) % len(racers)  # nobody always follows the same one
            for racer in racers[first:] + racers[:first]:
                racer.run(3)  # wakes its caches and threads
                speeds[racer.name].append(racer.run(segment))
        memory = {racer.name: max(racer.end(), memory.get(racer.name, 0)) for racer in racers}
    return [figures(name, batch, speeds[name], memory[name]) for name in names]


def start(name: str, batch: int, device: str, folder: Path) -> Racer:
    """Start a contestant; it reports its first step."""
    context = multiprocessing.get_context("spawn")
    near, far = context.Pipe()
    folder.mkdir(parents=True)
    process = context.Process(target=compete, args=(name, make_settings(batch, 100_000), device, folder, far))
    process.start()
    far.close()
    return Racer(name, folder, process, near)


def figures(name: str, batch: int, steps_per_second: list[float], megabytes: float) -> dict[str, Any]:
    """Return a row: medians, and as `spread` the range of the middle half over the median."""
    low, middle, high = statistics.quantiles(steps_per_second, n=4, method="inclusive")
    return {
        "name": name,
        "batch": batch,
        "samples_per_second": round(middle * batch, 1),
        "milliseconds_per_step": round(1000 / middle, 3),
        "spread": round((high - low) / middle, 3),
        "peak_memory_mb": round(megabytes),
    }


def ratios(rows: list[dict[str, Any]]) -> dict[str, float]:
    """How many times as fast the project is as each other contestant."""
    found = {}
    for batch in dict.fromkeys(row["batch"] for row in rows):
        speed = {row["name"]: row["samples_per_second"] for row in rows if row["batch"] == batch}
        suffix = "" if batch == rows[0]["batch"] else f"_batch_{batch}"
        ours = speed.pop("project")
        found |= {f"vs_{name}{suffix}": float(f"{ours / other:.4g}") for name, other in speed.items()}
    return found
