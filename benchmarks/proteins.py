"""How fast the protein starter pretrains: packed, padded, and beside Hugging Face's own model, compiled.

    python benchmarks/proteins.py PROJECT --output build

Each contestant trains in a process of its own, one after the other, since one fills a GPU; the order turns with the
rounds. The project pretrains through its command, on random proteins of about the lengths of Swiss-Prot, and its
figures are those that it logs. Only the checkpoint at the end is left out. Prints a table; writes proteins.json.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from generated import module
from machine import describe_machine, gpus
from pictures import print_rows

HERE = Path(__file__).parent
CONTESTANTS = ("packed", "padded", "hugging_face")
"""Rows packed with proteins, a protein a row, and rows that are full."""
FIGURES = {
    "tokens": "tokens_per_second",
    "useful": "useful_tokens_per_second",
    "mfu": "mfu",
    "gib": "memory_gib",
}
"""Ours, and the column of metrics.csv."""
WITHOUT_CHECKPOINT = """
import sys
from PACKAGE.__main__ import main
from PACKAGE.runtime.saving import Checkpoint
Checkpoint._save_checkpoint = lambda self, trainer, filepath: None
sys.exit(main(sys.argv[1:]))
"""


def write_proteins(path: Path, number: int) -> None:
    """Write random proteins as FASTA. Their lengths are log-normal: half are below 290, the mean is near 360."""
    import numpy as np

    random = np.random.default_rng(1)
    letters = np.frombuffer(b"ACDEFGHIKLMNPQRSTVWY", dtype=np.uint8)
    with path.open("wb") as file:
        for index, length in enumerate(random.lognormal(np.log(290), 0.65, number).astype(int) + 1):
            file.write(b">protein%d\n%s\n" % (index, random.choice(letters, length).tobytes()))


def pretrain(options: argparse.Namespace, packed: bool, folder: Path) -> dict[str, float]:
    """Pretrain through the project's command; return the medians of what it logged."""
    rows = options.tokens // (options.row if packed else options.length)
    settings = {
        "config": options.config.resolve(),
        "run_dir": folder / "run",
        "data.train_file": folder / "proteins.fasta",
        "data.pack": options.row if packed else 0,
        "data.validation_size": 100,
        "model.max_length": options.length,
        "training.precision": options.precision,
        "training.global_batch_size": rows,
        "training.micro_batch_size": 1 if packed else min(options.micro_batch_size, rows),
        "training.max_steps": options.steps,
        "training.val_check_interval": options.steps,
        "training.warmup_steps": 1,
        "training.log_every_n_steps": 5,
    }
    write_proteins(folder / "proteins.fasta", number=max(100 * options.tokens // options.length, 1000))
    package = module("cli").__name__.partition(".")[0]
    command = [sys.executable, "-c", WITHOUT_CHECKPOINT.replace("PACKAGE", package), "pretrain"]
    run([*command, *(word for name, value in settings.items() for word in (f"--{name}", str(value)))])
    with (folder / "run" / "metrics.csv").open(newline="", encoding="utf-8") as file:
        measured = [row for row in csv.DictReader(file) if row[FIGURES["tokens"]]]
    return {
        ours: statistics.median(float(row[theirs]) for row in measured)
        for ours, theirs in FIGURES.items()
        if theirs in measured[0]
    }


def hugging_face(options: argparse.Namespace) -> dict[str, float]:
    """Train their network of the same sizes on rows that are full."""
    import yaml

    names = module("model.hugging_face.config").SIZES
    sizes = yaml.safe_load(options.config.read_text(encoding="utf-8"))["model"]
    theirs = json.dumps({names[name]: value for name, value in sizes.items() if name in names})
    rows = options.tokens // options.length
    numbers = [rows, min(options.micro_batch_size, rows), options.length, options.steps]
    printed = run([sys.executable, str(HERE / "hugging_face.py"), theirs, *map(str, numbers)])
    found: dict[str, float] = json.loads(printed.splitlines()[-1])
    return found


def run(command: list[str]) -> str:
    """Run a contestant; return what it printed, and end the benchmark if it failed."""
    ended = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if ended.returncode:
        sys.exit(f"a contestant failed:\n{ended.stdout[-3000:]}")
    return ended.stdout


def race(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Let all run in each round; return a row for each, with medians over the rounds."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name in options.contestants}
    for number in range(options.rounds):
        for name in options.contestants[number % len(found) :] + options.contestants[: number % len(found)]:
            with TemporaryDirectory() as folder:
                ours = name != "hugging_face"
                figures = pretrain(options, name == "packed", Path(folder)) if ours else hugging_face(options)
            found[name].append(figures)
            print(f"round {number + 1}: {name}", json.dumps(figures), flush=True)
    return [
        {"name": name, **{key: round(statistics.median(row[key] for row in rows), 4) for key in rows[0]}}
        for name, rows in found.items()
    ]


def ratios(rows: list[dict[str, Any]]) -> dict[str, float]:
    """How many times as fast the packed training is: in useful tokens as the padded one, in all as full rows."""
    by_name = {row["name"]: row for row in rows}
    pairs = {"useful": "padded", "tokens": "hugging_face"}
    return {
        f"{kind}_vs_{other}": float(f"{by_name['packed'][kind] / by_name[other][kind]:.4g}")
        for kind, other in pairs.items()
        if {"packed", other} <= by_name.keys()
    }


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("project", type=Path, help="folder of a project generated with starter=protein")
    parser.add_argument("--config", type=Path, help="its sizes; default: esm2-650M.yaml of the project")
    parser.add_argument("--output", type=Path, default=Path("build"), help="folder for proteins.json")
    parser.add_argument("--contestants", nargs="+", choices=CONTESTANTS, default=list(CONTESTANTS))
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=30, help="of each training")
    parser.add_argument("--tokens", type=int, default=65536, help="of a step")
    parser.add_argument("--row", type=int, default=16384, help="tokens of a packed row")
    parser.add_argument("--length", type=int, default=1024, help="tokens of a padded row")
    parser.add_argument("--micro_batch_size", type=int, default=16, help="padded rows of a micro batch")
    options = parser.parse_args()
    if not (options.project / "configs" / "esm2-650M.yaml").exists():
        parser.error(f"{options.project} is no project of starter=protein: it has no configs/esm2-650M.yaml")
    options.config = options.config or options.project / "configs" / "esm2-650M.yaml"
    options.precision = "bf16" if gpus() else "fp32"
    options.output.mkdir(parents=True, exist_ok=True)
    os.environ["BENCH_PROJECT"] = str(options.project.resolve())
    paths = [str(options.project.resolve() / "src"), str(HERE)]
    os.environ["PYTHONPATH"] = os.pathsep.join([*paths, os.environ.get("PYTHONPATH", "")])
    sys.path[:0] = paths
    machine = describe_machine("cuda" if gpus() else "cpu")
    print(f"{machine}; {options.config.stem}, {options.tokens:,} tokens a step", flush=True)
    rows = race(options)
    found = ratios(rows)
    print_rows([{key: row.get(key, "") for key in ("name", *FIGURES)} for row in rows])
    if found:
        print_rows([{"ratio": name, "value": value} for name, value in found.items()])
    told = {"machine": machine, "config": options.config.stem, "tokens": options.tokens}
    with module("contracts.files").write_whole(options.output / "proteins.json") as file:
        json.dump({**told, "rows": rows, "ratios": found}, file, indent=2)
    print(f"wrote {options.output / 'proteins.json'}")


if __name__ == "__main__":
    main()
