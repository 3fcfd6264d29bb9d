"""Kills a training at random moments, resumes it each time, and compares its end with that of an undisturbed one.

    python tests/kills.py --kills 20 --seed 1

It is killed with `kill -9`, in runs of one process, and of two of which one is killed. They save a checkpoint every two
steps, so that many kills fall into that; every other run while it trains. The seed decides when a kill comes; what the
run is at by then, the machine.
"""

import argparse
import random
import sys
import tempfile
import time
from itertools import count
from multiprocessing.connection import wait
from pathlib import Path

from {{cookiecutter.__package_name}}.runtime import noise

if __name__ == "__main__":
    noise.quiet()  # before the libraries are imported

import in_ranks
import torch
from conftest import TINY, change, read_rows

from {{cookiecutter.__package_name}}.contracts import names
from {{cookiecutter.__package_name}}.model.settings import LAYOUTS, Settings
from {{cookiecutter.__package_name}}.proof.differences import saved_tensors
from {{cookiecutter.__package_name}}.proof.ranks import Ranks, start_ranks
from {{cookiecutter.__package_name}}.runtime.checkpoint import last_checkpoint
from {{cookiecutter.__package_name}}.runtime.seal import UNFINISHED, step_of

OFTEN = change(
    TINY,
    resume=True,
    network=LAYOUTS.network,
    model={"hidden_dropout": 0.1},
    training={"max_steps": 16, "val_check_interval": 2, "micro_batch_size": 8},
)
SPLITS = [
    split
    for split in (
        {"devices": 1},
        {"devices": 2},
        {"devices": 2, "tensor": 2, "sequence": True},
        {"devices": 2, "pipeline": 2},
    )
    if not change(OFTEN, parallel=split).problems()
]


def start(settings: Settings) -> Ranks:
    logs = Path(f"{settings.run_dir}-logs")
    ranks = settings.parallel.devices
    return start_ranks(in_ranks.train, settings, processes=ranks, logs=logs, accelerator=settings.accelerator)


def kill(ranks: Ranks, chance: random.Random) -> None:
    """Kill one rank, give the others a moment to notice, and make sure."""
    chance.choice(ranks.processes).kill()
    wait([process.sentinel for process in ranks.processes], timeout=5)
    ranks.kill()


def where(run: Path) -> str:
    """Say what the run was doing when it was killed."""
    saving = [path.name for path in run.glob(f"{names.CHECKPOINTS_FOLDER}/*{UNFINISHED}")]
    if saving:
        return f"while {saving[0].removesuffix(UNFINISHED)} was being written or removed"
    rows = read_rows(run)
    return f"after step {rows[-1][names.STEP]}" if rows else "before the first step"


def has_finished(run: Path) -> bool:
    """Tell whether the last step has been saved; there is nothing to resume then."""
    checkpoint = last_checkpoint(run / names.CHECKPOINTS_FOLDER)
    return checkpoint is not None and step_of(checkpoint) == OFTEN.training.max_steps


def equal(run: Path, reference: Path) -> bool:
    """Tell whether all figures (but speeds), weights and optimizer states are the same, to the last bit."""
    ours, theirs = saved_tensors(run), saved_tensors(reference)
    same_tensors = ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in theirs)
    return same_tensors and read_rows(run) == read_rows(reference)


def splits(accelerator: str) -> list[dict[str, int | bool]]:
    """Return the layouts that this machine has devices for."""
    most = torch.cuda.device_count() if accelerator == "gpu" else 2
    return [split for split in SPLITS if split["devices"] <= most]


def try_kills(kills: int, seed: int, folder: Path, asynchronous: bool = False, accelerator: str = "cpu") -> bool:
    """Kill that many times, over as many runs as it takes; print each, and return whether every run ended exactly.

    Args:
        kills: how many.
        seed: of their moments.
        folder: of the runs.
        asynchronous: write the checkpoints of all runs while they train, not only of every other one.
        accelerator: "cpu" or "gpu".
    """
    chance = random.Random(seed)
    layouts = splits(accelerator)
    done = 0
    for number in count():
        layout = layouts[number % len(layouts)]
        settings = change(OFTEN, accelerator=accelerator, parallel=layout)
        began = time.monotonic()
        reference = folder / f"{number}-undisturbed"
        start(change(settings, run_dir=str(reference))).results()
        beside = asynchronous or (number + number // len(layouts)) % 2 == 1
        settings = change(settings, training={"async_checkpoints": beside})
        usual = time.monotonic() - began
        run = folder / f"{number}-killed"
        while not has_finished(run):
            ranks = start(change(settings, run_dir=str(run)))
            delay = chance.uniform(0, usual) if done < kills else None
            if wait([process.sentinel for process in ranks.processes], timeout=delay):
                ranks.results()  # it was faster
                continue
            kill(ranks, chance)
            done += 1
            ways = f"{layout}{', asynchronous' if beside else ''}"
            print(f"kill {done:3}: run {number}, {ways}, after {delay:4.1f} s, {where(run)}", flush=True)
        if not equal(run, reference):
            print(f"run {number} did not end as the undisturbed one: {run}")
            return False
        print(f"run {number}: ended bit for bit as the undisturbed one", flush=True)
        if done >= kills:
            print(f"{done} kills in {number + 1} runs: every run ended exactly")
            return True
    raise AssertionError("unreachable")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=20, help="how many (default: 20)")
    parser.add_argument("--seed", type=int, default=1, help="of the moments (default: 1)")
    parser.add_argument("--async_checkpoints", action="store_true", help="in all runs, not in every other one")
    parser.add_argument("--accelerator", choices=("cpu", "gpu"), default="cpu", help="where (default: cpu)")
    options = parser.parse_args()
    if options.accelerator == "gpu" and not torch.cuda.is_available():
        parser.error("--accelerator gpu: PyTorch sees no GPU on this machine")
    ways = (options.async_checkpoints, options.accelerator)
    with tempfile.TemporaryDirectory() as folder:
        return 0 if try_kills(options.kills, options.seed, Path(folder), *ways) else 1


if __name__ == "__main__":
    sys.exit(main())
