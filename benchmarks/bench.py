"""`make bench`: how fast the generated project trains, beside plain PyTorch and plain Lightning.

    python benchmarks/bench.py PROJECT --output build

Each contestant trains in a process of its own. They take turns: a segment of steps each, round after round, so that a
machine that becomes slower becomes slower for all. A figure is the median over the rounds; the spread is that of the
middle half of them. Prints tables; writes bench.json and growth.png.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import resource
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NoReturn

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
        if self.device == "cuda":
            import torch

            torch.cuda.synchronize()
        self.turns.send(time.time())
        self.left = self.turns.recv()
        if not self.left:
            self._end()
        self.turns.send(time.time())

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
    """Train as the generated project's `pretrain` does, all callbacks and logs included."""
    training = module("training")

    class Progress(training.Progress):
        def on_train_batch_end(self, *args: Any) -> None:
            super().on_train_batch_end(*args)
            tick()

    training.Progress = Progress
    accelerator = "gpu" if device == "cuda" else "cpu"
    training.train(replace(settings, run_dir=str(folder / "run"), accelerator=accelerator))


def nemo_example(settings: Any, device: str, folder: Path, tick: Tick) -> None:
    """Train the project's network with NeMo's strategy as it comes, item by item."""
    training = module("training")
    from nemo_example import train_with_nemo
    from plain import torchvision_digits

    config = training.make_module(settings, start_weights=None).config
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
    batch: int
    process: Any
    turns: Connection
    first_step_seconds: float
    steps_per_second: list[float]

    def run(self, steps: int) -> float:
        """Let it train a segment; return the steps in a second."""
        self.turns.send(steps)
        began = self.turns.recv()
        return steps / (self.turns.recv() - began)


def race(device: str, batch: int, rounds: int, segment: int, folder: Path) -> list[dict[str, Any]]:
    """Start all contestants, let them take turns, and return a row for each."""
    context = multiprocessing.get_context("spawn")
    racers = []
    for name in contestants(device):
        near, far = context.Pipe()
        place = folder / f"{name}-{batch}"
        place.mkdir()
        process = context.Process(target=compete, args=(name, make_settings(batch, 100_000), device, place, far))
        began = time.time()
        process.start()
        far.close()
        try:
            first = near.recv()
        except EOFError:
            sys.exit(f"{name} failed:\n{(place / 'log').read_text()[-3000:]}")
        racers.append(Racer(name, batch, process, near, first - began, []))
        racers[-1].run(segment)  # to warm up
    for _ in range(rounds):
        for racer in racers:
            racer.run(3)  # wakes its caches and threads
            racer.steps_per_second.append(racer.run(segment))
    return [finish(racer) for racer in racers]


def finish(racer: Racer) -> dict[str, Any]:
    """End a contestant; return its figures: `spread` is the range of the middle half over the median."""
    racer.turns.send(0)
    megabytes = racer.turns.recv()
    racer.process.join()
    low, middle, high = statistics.quantiles(racer.steps_per_second, n=4)
    return {
        "name": racer.name,
        "batch": racer.batch,
        "samples_per_second": round(middle * racer.batch, 1),
        "milliseconds_per_step": round(1000 / middle, 3),
        "spread": round((high - low) / middle, 3),
        "first_step_seconds": round(racer.first_step_seconds, 2),
        "peak_memory_mb": round(megabytes),
    }


def ratios(rows: list[dict[str, Any]]) -> dict[str, float]:
    """How many times as fast the project is as each other contestant."""
    found = {}
    for batch in dict.fromkeys(row["batch"] for row in rows):
        speed = {row["name"]: row["samples_per_second"] for row in rows if row["batch"] == batch}
        suffix = "" if batch == rows[0]["batch"] else f"_batch_{batch}"
        ours = speed.pop("project")
        found |= {f"vs_{name}{suffix}": round(ours / other, 3) for name, other in speed.items()}
    return found


# --- what else is measured


def cpu_backend_overhead(folder: Path) -> float:
    """The share of a step that is spent in functions which stand in for CUDA's, by the profiler."""
    [share] = in_ranks(profiled, make_settings(128, 60), folder / "profile")
    return round(share, 7)


def profiled(settings: Any) -> float:
    """Train under the profiler; return the share of the CPU backend's functions and of `torch.cpu`."""
    import cProfile
    import pstats

    profile, steps = cProfile.Profile(), 0

    def tick() -> None:
        nonlocal steps
        steps += 1
        if steps == 10:
            profile.enable()
        if steps == 50:
            profile.disable()

    project(settings, "cpu", Path(settings.run_dir), tick)
    stats = pstats.Stats(profile).stats  # type: ignore[attr-defined]
    stand_ins = (str(Path("runtime") / "cpu.py"), str(Path("torch") / "cpu" / "__init__.py"))
    mine = sum(own for (file, _, _), (_, _, own, _, _) in stats.items() if file.endswith(stand_ins))
    return mine / sum(own for _, _, own, _, _ in stats.values())


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
            accelerator="gpu" if device == "cuda" else "cpu",
            parallel=replace(settings.parallel, devices=ranks),
            training=replace(settings.training, micro_batch_size=micro),
        )
        seconds = max(in_ranks(timed, settings, folder / f"{batch}-{micro_batches}-{ranks}"))
        milliseconds = round(1000 * seconds, 2)
        rows.append({"batch": batch, "micro_batches": micro_batches, "ranks": ranks, "milliseconds": milliseconds})
    return rows


def timed(settings: Any) -> float:
    """Train; return the median seconds of the second half of the steps."""
    moments: list[float] = []
    project(
        settings,
        settings.accelerator.replace("gpu", "cuda"),
        Path(settings.run_dir),
        lambda: moments.append(time.perf_counter()),
    )
    steady = moments[len(moments) // 2 :]
    return statistics.median(later - earlier for earlier, later in pairwise(steady))


def in_ranks(target: Callable[..., Any], settings: Any, folder: Path) -> list[Any]:
    """Call `target(settings)` in the ranks of the settings; return each one's answer."""
    folder.mkdir()
    settings = replace(settings, run_dir=str(folder))
    ranks = {"processes": settings.parallel.devices, "accelerator": settings.accelerator}
    answers: list[Any] = module("proof.ranks").run_ranks(target, settings, logs=folder / "logs", **ranks)
    return answers


def checkpoint(folder: Path) -> dict[str, float]:
    """Return the seconds that a checkpoint takes, and its size."""
    [(seconds, megabytes)] = in_ranks(saved, make_settings(128, 2), folder / "checkpoint")
    return {"checkpoint_seconds": round(seconds, 3), "checkpoint_mb": round(megabytes, 2)}


def saved(settings: Any) -> tuple[float, float]:
    """Train two steps; return the seconds and the MB of the last checkpoint."""
    checkpoints = module("runtime.checkpoint")
    seconds = 0.0
    save = checkpoints.Checkpoint._save_checkpoint

    def watched(self: Any, *args: Any) -> None:
        nonlocal seconds
        began = time.perf_counter()
        save(self, *args)
        seconds = time.perf_counter() - began

    checkpoints.Checkpoint._save_checkpoint = watched
    project(settings, "cpu", Path(settings.run_dir), lambda: None)
    return seconds, size_mb(checkpoints.last_checkpoint(Path(settings.run_dir) / "run" / "checkpoints"))


def start_up() -> dict[str, float]:
    """Seconds of commands that train nothing, the median of five."""
    package = module("cli").__package__

    def seconds(*words: str) -> float:
        began = time.perf_counter()
        subprocess.run([sys.executable, "-m", package, *words], stdout=subprocess.DEVNULL, check=True)
        return time.perf_counter() - began

    return {
        "help_seconds": round(statistics.median(seconds("--help") for _ in range(5)), 3),
        "command_help_seconds": round(statistics.median(seconds("pretrain", "--help") for _ in range(5)), 3),
    }


def size_mb(folder: Path) -> float:
    """Return the size of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


# --- the project that is measured


def module(name: str) -> Any:
    """Import a module of the generated project, whatever its package is called."""
    import importlib

    [package] = [path.name for path in Path(os.environ["BENCH_PROJECT"], "src").iterdir() if (path / "cli.py").exists()]
    return importlib.import_module(f"{package}.{name}")


def sample_folder() -> Path:
    """Return the folder of the digits that ship with the project."""
    return Path(module("cli").__file__).parent / "data" / "mnist_sample"


def make_settings(batch: int, steps: int) -> Any:
    """The defaults, without validations before the last step."""
    settings = module("settings").Settings()
    training = replace(settings.training, max_steps=steps, val_check_interval=steps, global_batch_size=batch)
    return replace(settings, training=replace(training, warmup_steps=min(training.warmup_steps, steps - 1)))


def gpus() -> int:
    """Count the GPUs."""
    import torch

    return torch.cuda.device_count()


def describe_machine(device: str) -> str:
    """Say on what the figures were measured."""
    import torch

    cores = f"{os.cpu_count()} CPU cores, PyTorch {torch.__version__}, Python {platform.python_version()}"
    return f"{torch.cuda.get_device_name(0)}, {cores}" if device == "cuda" else cores


# --- what a person sees


def print_rows(rows: list[dict[str, Any]]) -> None:
    """Print a table."""
    columns = list(rows[0])
    widths = [max(len(name), *(len(str(row[name])) for row in rows)) for name in columns]
    for line in ({name: name for name in columns}, *rows):
        print("  ".join(str(line[name]).rjust(width) for name, width in zip(columns, widths, strict=True)))
    print()


def plot_growth(rows: list[dict[str, Any]], machine: str, path: Path) -> None:
    """Draw the milliseconds of a step over batch, micro batches and ranks, as far as there are several of them."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    base = {"batch": 128, "micro_batches": 1, "ranks": 1}
    titles = {
        "batch": "batch of one process",
        "micro_batches": "micro batches of a batch of 128",
        "ranks": "ranks that share a batch of 128",
    }
    points = {
        name: sorted(
            (row[name], row["milliseconds"])
            for row in rows
            if all(row[other] == value for other, value in base.items() if other != name)
        )
        for name in titles
    }
    shown = [name for name in titles if len(points[name]) > 1]  # with one GPU there is one rank
    figure, axes = plt.subplots(1, len(shown), figsize=(3.7 * len(shown), 3.4), layout="constrained")
    for axis, name in zip(axes, shown, strict=True):
        axis.plot(*zip(*points[name], strict=True), marker="o")
        axis.set(xlabel=titles[name], xscale="log", ylim=(0, None), xticks=[x for x, _ in points[name]])
        axis.set_xticks([], minor=True)
        axis.get_xaxis().set_major_formatter(matplotlib.ticker.ScalarFormatter())
    axes[0].set_ylabel("milliseconds a step")
    figure.suptitle(machine, fontsize=9)
    with module("files").write_whole(path, "wb") as file:
        figure.savefig(file, dpi=120, format="png")


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("project", type=Path, help="folder of a generated project")
    parser.add_argument("--output", type=Path, default=Path("build"), help="folder for bench.json and growth.png")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: cuda where there is a GPU")
    parser.add_argument("--batches", type=int, nargs="+", help="default: 128, on a GPU also 1024")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--segment", type=int, default=60, help="steps of a contestant's turn")
    options = parser.parse_args()
    os.environ["BENCH_PROJECT"] = str(options.project.resolve())
    paths = [str(options.project.resolve() / "src"), str(Path(__file__).parent)]
    os.environ["PYTHONPATH"] = os.pathsep.join([*paths, os.environ.get("PYTHONPATH", "")])
    sys.path[:0] = paths
    module("runtime.noise").quiet()
    device = options.device or ("cuda" if gpus() else "cpu")
    batches = options.batches or ([128, 1024] if device == "cuda" else [128])
    machine = describe_machine(device)
    print(f"{machine}\n")
    with tempfile.TemporaryDirectory() as folder:
        rows = []
        for batch in batches:
            rows += race(device, batch, options.rounds, options.segment, Path(folder))
            print_rows(rows)
        found = ratios(rows)
        if device == "cpu":
            found["cpu_backend_overhead"] = cpu_backend_overhead(Path(folder))
        print_rows([{"ratio": name, "value": value} for name, value in found.items()])
        grown = growth(device, Path(folder), options.segment)
        print_rows(grown)
        others = {
            **start_up(),
            **checkpoint(Path(folder)),
            "environment_mb": round(size_mb(Path(sysconfig.get_paths()["purelib"]))),
        }
        print_rows([{"what": name, "value": value} for name, value in others.items()])
    result = {"machine": machine, "rows": rows, "ratios": found, "growth": grown, **others}
    with module("files").write_whole(options.output / "bench.json") as file:
        json.dump(result, file, indent=2)
    plot_growth(grown, machine, options.output / "growth.png")
    print(f"wrote {options.output / 'bench.json'} and {options.output / 'growth.png'}")


if __name__ == "__main__":
    main()
