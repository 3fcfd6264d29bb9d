"""The benchmark runs, and its figures fit together. How fast anything is, no test asks."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import TEMPLATE, BakedProject, run_ok

CONTESTANTS = {"torch_torchvision", "torch_memory", "lightning_torchvision", "lightning_memory", "project"}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_benchmark_writes_what_it_measured(default_project: BakedProject, tmp_path: Path):
    few = ("--device", "cpu", "--starts", "2", "--rounds", "2", "--segment", "3", "--batches", "64")
    bench = TEMPLATE / "benchmarks" / "bench.py"
    printed = run_ok(sys.executable, bench, default_project.path, "--output", tmp_path, *few, cwd=tmp_path, timeout=800)
    found = json.loads((tmp_path / "bench.json").read_text(encoding="utf-8"))
    speed = {row["name"]: row["samples_per_second"] for row in found["rows"]}
    assert speed.keys() == CONTESTANTS
    assert all(row["batch"] == 64 and row["peak_memory_mb"] > 100 for row in found["rows"])
    ratios = {f"vs_{name}": speed["project"] / other for name, other in speed.items() if name != "project"}
    overhead = found["ratios"].pop("cpu_backend_overhead")
    assert 0 <= overhead < 1
    assert found["ratios"] == pytest.approx(ratios, rel=0.02)
    grown = {(row["batch"], row["micro_batches"], row["ranks"]) for row in found["growth"]}
    assert grown >= {(32, 1, 1), (128, 8, 1), (128, 1, 4)}
    assert sum(row["share"] for row in found["step"]) == pytest.approx(1, abs=0.001)
    assert {"torch's operators", "Megatron-Core", "Lightning", "this project"} <= {row["step"] for row in found["step"]}
    assert {"torch", "all others"} <= {row["import"] for row in found["imports"]}
    assert (tmp_path / "growth.png").read_bytes().startswith(b"\x89PNG")
    assert all(name in printed for name in CONTESTANTS)


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (("--rounds", "0"), "argument --rounds: invalid positive value: '0'"),
        (("--starts", "1", "--rounds", "1"), "give more --starts, --rounds or --segment"),
        (("--segment", "1"), "give more --starts, --rounds or --segment"),
        (("--output", "file"), "--output file cannot be made: File exists"),
        ((".",), "is not a generated project: it has no src/*/cli.py"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_words(words, answer, default_project: BakedProject, tmp_path: Path):
    project = () if words == (".",) else (default_project.path,)
    command = [sys.executable, TEMPLATE / "benchmarks" / "bench.py", *project, *words]
    (tmp_path / "file").touch()
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100)
    assert ended.returncode == 2
    assert ended.stderr.splitlines()[-1].endswith(answer)
