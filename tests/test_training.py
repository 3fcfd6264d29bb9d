"""The installed wheel trains outside the project's tree, and the project's own tests pass against it."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import pytest
from conftest import OF_A_SUITE, InstalledProject, run_ok

pytestmark = pytest.mark.slow
STEPS = ("--training.max_steps", "60", "--training.warmup_steps", "5", "--training.val_check_interval", "60")


def losses(run_dir: Path) -> list[float]:
    with (run_dir / "metrics.csv").open(newline="") as file:
        return [float(row["reduced_train_loss"]) for row in csv.DictReader(file) if row["reduced_train_loss"]]


def test_pretrain_finetune_evaluate_predict_report(installed: InstalledProject, tmp_path):
    slug = installed.project.slug

    def cli(*arguments: str) -> None:
        run_ok(slug, *arguments, cwd=tmp_path, timeout=1800, env=installed.env)

    cli("pretrain", "--run_dir", "runs/pretrain", *STEPS)
    cli("finetune", "--from", "runs/pretrain", "--run_dir", "runs/finetune", *STEPS)
    cli("evaluate", "--from", "runs/finetune")
    cli("predict", "--from", "runs/finetune")
    cli("report", "--from", "runs/finetune")

    pretrain, finetune = tmp_path / "runs" / "pretrain", tmp_path / "runs" / "finetune"
    for run_dir in (pretrain, finetune):
        assert losses(run_dir)[-1] < 0.9 * losses(run_dir)[0]
    # 60 steps of 128 digits are a long way past guessing (0.1), and a short one past chance
    assert json.loads((finetune / "evaluation.json").read_text())["test_accuracy"] > 0.5

    with (finetune / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["idx", "label", "prediction", "probability"]
    assert [int(row["idx"]) for row in rows] == list(range(10_000))
    assert (finetune / "report" / "index.html").stat().st_size > 10_000
    assert [path.name for path in tmp_path.iterdir()] == ["runs"], "the command wrote elsewhere"


@pytest.mark.timeout(OF_A_SUITE + 600)
def test_the_projects_own_tests_pass(installed: InstalledProject):
    command = (sys.executable, "-m", "pytest", "-p", "no:cacheprovider")
    output = run_ok(*command, cwd=installed.project.path, timeout=OF_A_SUITE, env=installed.env)
    assert " passed" in output and " skipped" not in output, "in the project as it is generated, every test applies"
