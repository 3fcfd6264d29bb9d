"""Trains a run, says what it has left, and whether two of them trained the same."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import InstalledProject

LIMIT = 1200.0
"""seconds that no training here should take, on a busy machine either"""


def pretrain(installed: InstalledProject, folder: Path, name: str, *settings: str) -> Path:
    """Trains undisturbed, and returns the run."""
    answer = installed.cli("pretrain", "--run_dir", name, *settings, cwd=folder, timeout=LIMIT)
    assert answer.status == 0, answer.output
    return folder / name


def figures(run: Path) -> dict[str, dict[str, float]]:
    """A run's figures by step; speeds differ."""
    found: dict[str, dict[str, float]] = {}
    with (run / "metrics.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            kept = {name: float(row[name]) for name in ("reduced_train_loss", "val_loss", "grad_norm") if row[name]}
            found.setdefault(row["step"], {}).update(kept)
    return found


def same(run: Path, other: Path) -> None:
    assert figures(run).keys() == figures(other).keys()
    for step, row in figures(run).items():
        assert row == pytest.approx(figures(other)[step], abs=1e-5)


def is_saved(run: Path) -> Callable[[], bool]:
    return lambda: any(run.glob("checkpoints/*-last/files.json"))
