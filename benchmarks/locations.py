"""What pretraining gains: the six locations of the protein starter's sample, with and without, over several seeds.

    python benchmarks/locations.py PROJECT --output build/locations

Each seed pretrains with `configs/sample.yaml`, finetunes that with `configs/locations.yaml`, and trains the same
network from random weights with the same settings. All runs stay in the output folder, and one that has ended is not
made again. Prints the figures of the official test split beside the baseline's; writes locations.json.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from generated import module
from machine import describe_machine, gpus
from pictures import print_rows

FIGURES = ("test_accuracy", "test_auroc")


def command(*words: str | Path) -> None:
    """Run a command of the project; end if it fails."""
    package = module("cli").__name__.partition(".")[0]
    print("$", *words, flush=True)
    if subprocess.run([sys.executable, "-m", package, *map(str, words)], check=False).returncode:
        sys.exit("the last command failed")


def figures_of(run: Path) -> dict[str, Any]:
    """Evaluate a run that has ended, and return what was found."""
    if not (run / "evaluation.json").exists():
        command("evaluate", "--from", run)
    found: dict[str, Any] = json.loads((run / "evaluation.json").read_text(encoding="utf-8"))
    return found


def train(run: Path, *words: str | Path) -> None:
    """Train a run to its end, or go on with it."""
    if not (run / "evaluation.json").exists():
        command(*words, "--run_dir", run, *(("--resume", "true") if run.exists() else ()))


def scores(options: argparse.Namespace, seed: int) -> list[dict[str, Any]]:
    """Train three runs with a seed; return a row for each way to the six locations."""
    folder = options.output / f"seed-{seed}"
    pretrained, finetuned, alone = folder / "pretrain", folder / "finetune", folder / "without-pretraining"
    sample, locations = (
        ("--config", options.project / "configs" / f"{name}.yaml", "--seed", str(seed), *more)
        for name, more in (("sample", options.pretraining), ("locations", options.settings))
    )
    train(pretrained, "pretrain", *sample)
    figures_of(pretrained)
    train(finetuned, "finetune", "--from", pretrained, *locations)
    train(alone, "pretrain", "--network", "sequence_classifier", *sizes_of(pretrained), *locations)
    return [
        {"way": way, "seed": seed, **{name: round(figures_of(run)[name], 4) for name in FIGURES}}
        for way, run in (("own pretraining", finetuned), ("random weights", alone))
    ]


def sizes_of(pretrained: Path) -> list[str]:
    """Return the words that give another run the same network."""
    import yaml

    model = yaml.safe_load((pretrained / "settings.yaml").read_text(encoding="utf-8"))["model"]
    names = (*module("model.hugging_face.config").SIZES, "max_length")
    return [word for name in names for word in (f"--model.{name}", str(model[name]))]


def summary(rows: list[dict[str, Any]], references: dict[str, dict[str, float]]) -> list[dict[str, Any]]:
    """Return a row for each way, with means and standard deviations over the seeds, and one for each baseline."""
    found = []
    for way in dict.fromkeys(row["way"] for row in rows):
        row: dict[str, Any] = {"way": way}
        for name in FIGURES:
            values = [other[name] for other in rows if other["way"] == way]
            row[name] = round(statistics.mean(values), 4)
            row[f"{name}_sd"] = round(statistics.stdev(values), 4) if len(values) > 1 else ""
        found.append(row)
    for method, figures in references.items():
        values = {name: round(figures[name.removeprefix("test_")], 4) for name in FIGURES}
        found.append({"way": method, **{key: values.get(key, "") for key in found[0] if key != "way"}})
    return found


def main() -> None:
    """Train, print and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("project", type=Path, help="folder of a project generated with starter=protein")
    parser.add_argument("--output", type=Path, default=Path("build/locations"), help="folder for runs and figures")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--pretraining", default="", help="more settings of the pretraining, sizes too, in one word")
    parser.add_argument("--settings", default="", help="more settings of both ways to the locations, in one word")
    options = parser.parse_args()
    if not (options.project / "configs" / "locations.yaml").exists():
        parser.error(f"{options.project} is no project of starter=protein: it has no configs/locations.yaml")
    options.project = options.project.resolve()
    options.pretraining, options.settings = options.pretraining.split(), options.settings.split()
    options.output.mkdir(parents=True, exist_ok=True)
    os.environ["BENCH_PROJECT"] = str(options.project)
    sys.path.insert(0, str(options.project / "src"))
    os.environ["PYTHONPATH"] = os.pathsep.join([sys.path[0], os.environ.get("PYTHONPATH", "")])
    machine = describe_machine("cuda" if gpus() else "cpu")
    rows = [row for seed in options.seeds for row in scores(options, seed)]
    last = figures_of(options.output / f"seed-{options.seeds[-1]}" / "finetune")
    table = summary(rows, last["references"])
    print(f"\n{machine}; {last['num_items']:,} proteins of the official test split")
    print_rows(rows)
    print_rows(table)
    with module("contracts.files").write_whole(options.output / "locations.json") as file:
        json.dump({"machine": machine, "items": last["num_items"], "rows": rows, "summary": table}, file, indent=2)
    print(f"wrote {options.output / 'locations.json'}")


if __name__ == "__main__":
    main()
