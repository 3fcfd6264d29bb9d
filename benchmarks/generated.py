"""The generated project that is measured, whatever its package is called; BENCH_PROJECT says where it lies."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any


def module(name: str) -> Any:
    """Import a module of the generated project, whatever its package is called."""
    import importlib

    [package] = [path.name for path in Path(os.environ["BENCH_PROJECT"], "src").iterdir() if (path / "cli.py").exists()]
    return importlib.import_module(f"{package}.{name}")


def sample_folder() -> Path:
    """Return the folder of the digits that ship with the project."""
    return Path(module("cli").__file__).parent / "model" / "sample"


def make_settings(batch: int, steps: int) -> Any:
    """The defaults, without validations before the last step."""
    settings = module("model.settings").Settings()
    training = replace(settings.training, max_steps=steps, val_check_interval=steps, global_batch_size=batch)
    return replace(settings, training=replace(training, warmup_steps=min(training.warmup_steps, steps - 1)))
