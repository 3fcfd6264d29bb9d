"""The benchmark runs, and its figures fit together. How fast anything is, no test asks."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import TEMPLATE, BakedProject, Baker, run_ok

CONTESTANTS = {"torch_torchvision", "torch_memory", "lightning_torchvision", "lightning_memory", "project"}


@pytest.mark.slow
def test_the_benchmark_writes_what_it_measured(default_project: BakedProject, tmp_path: Path):
    few = ("--device", "cpu", "--starts", "1", "--rounds", "2", "--segment", "3", "--batches", "64")
    bench = TEMPLATE / "benchmarks" / "bench.py"
    printed = run_ok(
        sys.executable, bench, default_project.path, "--output", tmp_path, *few, cwd=tmp_path, timeout=1800
    )
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


@pytest.fixture(scope="module")
def protein_project(baker: Baker, tmp_path_factory) -> BakedProject:
    return baker.bake(tmp_path_factory.mktemp("protein"), starter="protein")


@pytest.mark.slow
def test_the_protein_race_writes_what_it_measured(protein_project: BakedProject, tmp_path: Path):
    sizes = tmp_path / "sizes.yaml"
    sizes.write_text("model: {num_layers: 1, hidden_size: 16, num_attention_heads: 2, ffn_hidden_size: 32}\n")
    race = (TEMPLATE / "benchmarks" / "proteins.py", protein_project.path, "--config", sizes, "--output", tmp_path)
    few = ("--rounds", "1", "--steps", "10", "--tokens", "640", "--row", "320", "--length", "128")
    run_ok(sys.executable, *race, *few, cwd=tmp_path, timeout=1800)
    found = json.loads((tmp_path / "proteins.json").read_text(encoding="utf-8"))
    assert [row["name"] for row in found["rows"]] == ["packed", "padded", "hugging_face"]
    packed, padded, theirs = found["rows"]
    assert packed["useful"] < packed["tokens"]
    assert found["ratios"]["useful_vs_padded"] == pytest.approx(packed["useful"] / padded["useful"], rel=0.01)
    assert found["ratios"]["tokens_vs_hugging_face"] == pytest.approx(packed["tokens"] / theirs["tokens"], rel=0.01)


def test_the_race_of_one_has_no_ratios(protein_project: BakedProject, tmp_path: Path):
    """It is how a size is measured alone; the training itself is left out here."""
    alone = "import proteins; proteins.race = lambda options: [{'name': 'packed', 'tokens': 5.0}]; proteins.main()"
    words = (protein_project.path, "--contestants", "packed", "--output", tmp_path)
    run_ok(sys.executable, "-c", alone, *words, cwd=TEMPLATE / "benchmarks", timeout=600)
    found = json.loads((tmp_path / "proteins.json").read_text(encoding="utf-8"))
    assert (found["rows"], found["ratios"]) == ([{"name": "packed", "tokens": 5.0}], {})


@pytest.mark.slow
def test_a_seed_learns_the_locations_in_both_ways(protein_project: BakedProject, tmp_path: Path):
    steps = "--training.max_steps 2 --training.val_check_interval 2 --training.warmup_steps 1"
    sizes = "--model.num_layers 1 --model.hidden_size 16 --model.ffn_hidden_size 32 --model.max_length 66"
    few = ("--seeds", "1", "--pretraining", f"{steps} {sizes} --data.pack 80", "--settings", steps)
    learn = (TEMPLATE / "benchmarks" / "locations.py", protein_project.path, "--output", tmp_path, *few)
    run_ok(sys.executable, *learn, cwd=tmp_path, timeout=1800)
    written = (tmp_path / "locations.json").read_text(encoding="utf-8")
    found = json.loads(written)
    assert [row["way"] for row in found["rows"]] == ["own pretraining", "random weights"]
    assert found["summary"][0]["test_auroc"] == found["rows"][0]["test_auroc"]
    baseline = found["summary"][-1]
    assert (baseline["test_accuracy"], baseline["test_auroc"]) == pytest.approx((0.61, 0.875), abs=0.01)
    run_ok(sys.executable, *learn, cwd=tmp_path, timeout=1800)  # nothing is trained again
    assert (tmp_path / "locations.json").read_text(encoding="utf-8") == written


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
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=1800)
    assert ended.returncode == 2
    assert ended.stderr.splitlines()[-1].endswith(answer)
