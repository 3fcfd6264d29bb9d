"""`make demo`: bakes a project of a starter into build/demo, trains it there, and says where to look.

Everything is made again on every run, so that the figures in build/demo/summary.json are those of this checkout.
"""

from __future__ import annotations

import csv
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

TEMPLATE = Path(__file__).resolve().parents[1]
DEMO = TEMPLATE / "build" / "demo"
STARTERS = ("mnist", "protein")


def bake(starter: str) -> Path:
    """A fresh project of a starter, with the default answers, whatever the user's own cookiecutter settings say."""
    shutil.rmtree(DEMO, ignore_errors=True)
    DEMO.mkdir(parents=True)
    config = DEMO / "cookiecutter.yaml"
    config.write_text(json.dumps({name: str(DEMO / ".cookiecutter") for name in ("cookiecutters_dir", "replay_dir")}))
    command = [
        sys.executable,
        "-m",
        "cookiecutter",
        TEMPLATE,
        "--no-input",
        "--config-file",
        config,
        f"starter={starter}",
    ]
    subprocess.run(command, cwd=DEMO, stdout=subprocess.DEVNULL, check=True)  # its next steps are what follows here
    return DEMO / f"{starter}-megatron"  # the default answer to project_slug


def run(*command: str | Path, cwd: Path) -> float:
    """Runs the command with its output on this terminal, and returns the seconds it took; ends the demo if it fails."""
    words = [str(word) for word in command]
    print(f"\n$ {shlex.join([Path(words[0]).name, *words[1:]])}", flush=True)
    start = time.monotonic()
    status = subprocess.run(words, cwd=cwd, check=False).returncode
    if status:
        sys.exit(f"demo: the last command failed with exit status {status}, see its output above")
    return time.monotonic() - start


def losses(metrics: Path, column: str = "reduced_train_loss") -> tuple[float, float]:
    """The first and the last training loss of a run; rows of other figures leave the column blank.

    A line without its end does not count, as in contracts/reading.py of the project.
    """
    with metrics.open(newline="", encoding="utf-8") as file:
        whole = (line for line in file if line.endswith("\n"))
        values = [float(row[column]) for row in csv.DictReader(whole) if row[column]]
    return values[0], values[-1]


def write_atomically(path: Path, content: str) -> None:
    """Readers see the old file or the whole new one."""
    partial = path.with_suffix(".partial")
    partial.write_text(content, encoding="utf-8")
    os.replace(partial, path)


def summarise(project: Path, train_seconds: float) -> dict[str, Any]:
    """The figures of the finished runs: those of the test set, and those to hold them against, if there are any."""
    pretrain, finetune = project / "runs" / "pretrain", project / "runs" / "finetune"
    first, last = losses(pretrain / "metrics.csv")
    scores = json.loads((finetune / "evaluation.json").read_text(encoding="utf-8"))
    return {
        "test": {name.removeprefix("test_"): value for name, value in scores.items() if name.startswith("test_")},
        "items": scores["num_items"],
        "references": scores.get("references", {}),
        "pretrain_loss_first": first,
        "pretrain_loss_last": last,
        "train_seconds": round(train_seconds, 1),
        "report": str(finetune / "report" / "index.html"),
    }


def told(summary: dict[str, Any], project: Path) -> str:
    """The summary, for a person to read."""
    rows = {"the network": summary["test"], **summary["references"]}
    figures = [
        f"{name:36} {'  '.join(f'{figure} {value:.4f}' for figure, value in row.items())}" for name, row in rows.items()
    ]
    return f"""
On {summary["items"]:,} test items:
{chr(10).join(figures)}

pretraining     loss {summary["pretrain_loss_first"]:.4f} -> {summary["pretrain_loss_last"]:.4f}
training time   {summary["train_seconds"]:.0f} s, pretraining and finetuning
report          {summary["report"]}
project         {project}"""


def main(starter: str) -> None:
    """Bake, install, pretrain, finetune, evaluate, predict, report."""
    project = bake(starter)
    print(f"Generated {project}")
    pip = [sys.executable, "-m", "pip", "install", "--quiet"]
    run(*pip, "--no-index", "--no-deps", "--no-build-isolation", "--force-reinstall", project, cwd=project)
    cli = Path(sys.executable).parent / project.name

    train_seconds = run(cli, "pretrain", "--run_dir", "runs/pretrain", cwd=project)
    train_seconds += run(cli, "finetune", "--from", "runs/pretrain", "--run_dir", "runs/finetune", cwd=project)
    run(cli, "evaluate", "--from", "runs/pretrain", cwd=project)
    run(cli, "evaluate", "--from", "runs/finetune", cwd=project)
    run(cli, "predict", "--from", "runs/finetune", cwd=project)
    run(cli, "report", "--from", "runs/finetune", cwd=project)

    summary = summarise(project, train_seconds)
    write_atomically(DEMO / "summary.json", json.dumps(summary, indent=2) + "\n")
    print(told(summary, project))


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1] not in STARTERS:
        sys.exit(f"there is no starter {' '.join(sys.argv[1:])}: make demo STARTER=mnist, or protein")
    main(sys.argv[1])
