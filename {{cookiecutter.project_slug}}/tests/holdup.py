"""Measures how long a checkpoint holds up the training: written at once, and while training goes on.

python tests/holdup.py hidden_size=1024 ffn_hidden_size=4096 num_layers=8
"""

import argparse
import statistics
import sys
import tempfile
import time
from typing import Any

from {{cookiecutter.__package_name}}.runtime import noise

if __name__ == "__main__":
    noise.quiet()  # before the libraries are imported

from conftest import TINY, change

from {{cookiecutter.__package_name}}.runtime.saving import Checkpoint
from {{cookiecutter.__package_name}}.training import train as training

SAVES = 4


def hold_ups(asynchronous: bool, sizes: dict[str, int], accelerator: str, folder: str) -> tuple[float, list[float]]:
    """Train with checkpoints some steps apart; return millions of weights, and the seconds of each save but the first.

    A save that is being written is waited for before the next one begins, as in a run that saves more seldom.
    """
    seconds: list[float] = []
    weights = 0
    save = Checkpoint._save_checkpoint

    def measured(self: Any, trainer: Any, filepath: str) -> None:
        nonlocal weights
        weights = sum(weight.numel() for weight in trainer.lightning_module.parameters())
        began = time.perf_counter()
        save(self, trainer, filepath)
        seconds.append(time.perf_counter() - began)

    steps = {"checkpoint_minutes": 1e-9, "async_checkpoints": asynchronous, "val_check_interval": 1000}
    training_settings = {**steps, "max_steps": SAVES + 2, "warmup_steps": 0}
    settings = change(TINY, run_dir=folder, accelerator=accelerator, model=sizes, training=training_settings)
    Checkpoint._save_checkpoint = measured  # type: ignore[method-assign]
    try:
        training.train(settings)
    finally:
        Checkpoint._save_checkpoint = save  # type: ignore[method-assign]
    return weights / 1e6, seconds[1 : SAVES + 1]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("sizes", nargs="*", help="of the network, as NAME=VALUE; those of the settings' model")
    parser.add_argument("--accelerator", choices=("cpu", "gpu"), default="cpu", help="where (default: cpu)")
    options = parser.parse_args()
    sizes = {name: int(value) for name, value in (word.split("=") for word in options.sizes)}
    medians = {}
    for name in ("synchronous", "asynchronous"):
        with tempfile.TemporaryDirectory() as folder:
            weights, seconds = hold_ups(name == "asynchronous", sizes, options.accelerator, f"{folder}/run")
        medians[name] = statistics.median(seconds)
        each = ", ".join(f"{value:.2f}" for value in seconds)
        print(f"{name}: {weights:.1f} M weights, {medians[name]:.2f} s ({each})", flush=True)
    print(f"asynchronous: {medians['asynchronous'] / medians['synchronous']:.1%} of that")
    return 0


if __name__ == "__main__":
    sys.exit(main())
