"""`make bench`: how fast the generated project trains, beside plain PyTorch and plain Lightning.

    python benchmarks/bench.py PROJECT --output build

Each contestant trains in a process of its own. They take turns: a segment of steps each, round after round, so that a
machine that becomes slower becomes slower for all. A figure is the median over the rounds; the spread is that of the
middle half of them. Prints tables, also of where the time of a step and of the imports goes; writes bench.json and
growth.png.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import sysconfig
import tempfile
from pathlib import Path

from generated import module
from machine import describe_machine, gpus, size_mb
from measures import checkpoint, growth, start_up
from pictures import plot_growth, print_rows
from race import race, ratios
from where import CPU_BACKEND, profile_imports, profile_step


def positive(text: str) -> int:
    """Read a whole number above zero; ValueError if it is none."""
    if (number := int(text)) < 1:
        raise ValueError
    return number


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("project", type=Path, help="folder of a generated project")
    parser.add_argument("--output", type=Path, default=Path("build"), help="folder for bench.json and growth.png")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: cuda where there is a GPU")
    parser.add_argument("--batches", type=positive, nargs="+", help="default: 128, on a GPU also 1024")
    parser.add_argument("--starts", type=positive, default=3, help="races, each with new processes")
    parser.add_argument("--rounds", type=positive, default=4, help="of a race")
    parser.add_argument("--segment", type=positive, default=60, help="steps of a contestant's turn, at least 2")
    options = parser.parse_args()
    if not any(options.project.glob("src/*/cli.py")):
        parser.error(f"{options.project} is not a generated project: it has no src/*/cli.py")
    if options.starts * options.rounds < 2 or options.segment < 2:
        parser.error("a spread needs two rounds, and a median two steps: give more --starts, --rounds or --segment")
    if options.device == "cuda" and not gpus():
        parser.error("there is no GPU here that PyTorch can use: leave --device out")
    try:
        options.output.mkdir(parents=True, exist_ok=True)  # before anything is measured that would be lost
    except OSError as error:
        parser.error(f"--output {options.output} cannot be made: {error.strerror}")
    os.environ["BENCH_PROJECT"] = str(options.project.resolve())
    paths = [str(options.project.resolve() / "src"), str(Path(__file__).parent)]
    os.environ["PYTHONPATH"] = os.pathsep.join([*paths, os.environ.get("PYTHONPATH", "")])
    sys.path[:0] = paths
    module("runtime.noise").quiet()
    device = options.device or ("cuda" if gpus() else "cpu")
    batches = list(dict.fromkeys(options.batches or ([128, 1024] if device == "cuda" else [128])))
    machine = describe_machine(device)
    print(f"{machine}\n")
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["TMPDIR"] = scratch  # what contestants leave behind goes with it
        rows = []
        for batch in batches:
            raced = race(device, batch, options.starts, options.rounds, options.segment, Path(scratch))
            print_rows(raced)
            rows += raced
        step = profile_step(device, Path(scratch))
        found = ratios(rows)
        if device == "cpu":
            found["cpu_backend_overhead"] = next(row["share"] for row in step if row["step"] == CPU_BACKEND)
        print_rows([{"ratio": name, "value": value} for name, value in found.items()])
        print_rows(step)
        imports = profile_imports()
        print_rows(imports)
        grown = growth(device, Path(scratch), options.segment)
        print_rows(grown)
        others = {
            **start_up(device, Path(scratch), times=options.starts),
            **checkpoint(Path(scratch)),
            "environment_mb": round(size_mb(Path(sysconfig.get_paths()["purelib"]))),
        }
        print_rows([{"what": name, "value": value} for name, value in others.items()])
    result = {
        "machine": machine,
        "rows": rows,
        "ratios": found,
        "growth": grown,
        "step": step,
        "imports": imports,
        **others,
    }
    with module("contracts.files").write_whole(options.output / "bench.json") as file:
        json.dump(result, file, indent=2)
    plot_growth(grown, machine, options.output / "growth.png")
    print(f"wrote {options.output / 'bench.json'} and {options.output / 'growth.png'}")


if __name__ == "__main__":
    main()
