"""The generated project's docs/make-it-yours.md and docs/sequences.md, done as they say, from top to bottom."""

from __future__ import annotations

import csv
import json
import math
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import BakedProject
from pages import Block, blocks, environment_of, perform

WAVES, SEQUENCES = Path("docs", "make-it-yours.md"), Path("docs", "sequences.md")
ALONE = {"data 2", "tensor 2", "tensor 2, sequence", "pipeline 2", "pipeline 2 x 2 virtual"}


@pytest.fixture(scope="module")
def follow(default_project: BakedProject, tmp_path_factory) -> Callable[[Path], Path]:
    """Make a project in which somebody has followed a page from the first to the last block."""

    def follow(page: Path) -> Path:
        project = tmp_path_factory.mktemp("walk") / default_project.slug
        shutil.copytree(default_project.path, project)
        environment = environment_of(default_project, project, tmp_path_factory.mktemp("bin") / "bin")
        for block in blocks(project / page):
            if "make check" in block.text:
                (project / "data").rename(project / "out-of-git")  # a clone has no data/, and must pass its tests
            perform(block, project, environment)
        return project

    return follow


@pytest.fixture(scope="module")
def waves(follow) -> Path:
    return follow(WAVES)


@pytest.fixture(scope="module")
def sequences(follow) -> Path:
    return follow(SEQUENCES)


@pytest.fixture(params=["waves", "sequences"])
def walked(request: pytest.FixtureRequest) -> Path:
    return request.getfixturevalue(request.param)


def read_rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def scores_of(project: Path) -> dict:
    return json.loads((project / "runs" / "pretrain" / "evaluation.json").read_text())


slow = pytest.mark.slow


@slow
def test_the_loss_falls(walked: Path):
    rows = [row for row in read_rows(walked / "runs" / "pretrain" / "metrics.csv") if row["val_loss"]]
    assert float(rows[-1]["val_loss"]) < 0.5 * float(rows[0]["val_loss"])


@slow
def test_waves_are_answered_far_better_than_by_guessing(waves: Path):
    scores = scores_of(waves)
    assert scores["test_accuracy"] > 0.8  # of eight frequencies
    assert scores["test_error"] < 0.2  # volts; always saying the mean is 0.375 off
    assert scores["num_items"] == 1_012 and set(scores["counts"].values()) == {1_012}


@slow
def test_every_wave_is_predicted_once_in_order(waves: Path):
    rows, scores = read_rows(waves / "runs" / "pretrain" / "predictions.csv"), scores_of(waves)
    assert list(rows[0]) == ["idx", "frequency", "true_frequency", "amplitude", "true_amplitude"]
    assert [int(row["idx"]) for row in rows] == list(range(1_012))
    accuracy = sum(row["frequency"] == row["true_frequency"] for row in rows) / len(rows)
    assert accuracy == pytest.approx(scores["test_accuracy"], abs=0.002)
    off = sum(abs(float(row["amplitude"]) - float(row["true_amplitude"])) for row in rows) / len(rows)
    assert off == pytest.approx(scores["test_error"], abs=1e-3)


@slow
def test_masked_letters_are_guessed_and_counted(sequences: Path):
    rows, scores = read_rows(sequences / "runs" / "pretrain" / "predictions.csv"), scores_of(sequences)
    assert [int(row["idx"]) for row in rows] == list(range(1_012))
    masked, right = (sum(int(row[name]) for row in rows) for name in ("masked", "right"))
    assert scores["counted"] == "masked letters" and set(scores["counts"].values()) == {masked}
    assert right / masked == pytest.approx(scores["test_accuracy"], abs=1e-3)
    assert scores["test_accuracy"] > 0.5  # of twenty letters
    assert scores["test_perplexity"] == pytest.approx(math.exp(scores["test_loss"]))


@slow
def test_the_report_shows_what_the_model_says(waves: Path, sequences: Path):
    reports = [project / "runs" / "pretrain" / "report" for project in (waves, sequences)]
    shown = [{path.stem for path in report.iterdir()} for report in reports]
    assert shown[0] == {"index", "loss", "accuracy", "error", "latent", "frequency", "amplitude"}
    assert shown[1] == {"index", "loss", "accuracy", "perplexity"}
    assert "masked letters" in (reports[1] / "index.html").read_text(encoding="utf-8")


@slow
def test_what_is_exported_loads_in_plain_torch(walked: Path):
    assert (walked / "runs" / "pretrain" / "export" / "load.py").exists()  # it computes what the network does


@slow
def test_the_network_trains_the_same_however_it_is_split(walked: Path):
    proof = json.loads((walked / "layouts.json").read_text())
    assert proof["holds"] and proof["left_out"] == {} and proof["not_tried"] == []
    assert {row["layout"] for row in proof["layouts"]} == {"one process", *ALONE}


@slow
def test_no_source_speaks_of_mnist_any_more(walked: Path):
    sources = {path.name: path.read_text(encoding="utf-8").lower() for path in (walked / "src").rglob("*.py")}
    assert sources and not [name for name, text in sources.items() if re.search("mnist|digit|pixel", text)]


def test_the_pages_are_short_and_begin_with_a_table_of_files(default_project: BakedProject):
    for page, most in ((WAVES, 250), (SEQUENCES, 250)):
        lines = (default_project.path / page).read_text(encoding="utf-8").splitlines()
        assert len(lines) <= most, page
        assert sum(line.startswith("| `") for line in lines[:20]) >= 6, page


def test_a_block_that_stands_nowhere_is_noticed(tmp_path: Path):
    (tmp_path / "a.py").write_text("A = 1\n")
    perform(Block("python", "A = 1\n", "a.py"), tmp_path, {})
    with pytest.raises(AssertionError, match=r"not in a\.py"):
        perform(Block("python", "B = 2\n", "a.py"), tmp_path, {})
    with pytest.raises(pytest.fail.Exception, match="nobody would know"):
        perform(Block("python", "A = 1\n"), tmp_path, {})
    with pytest.raises(AssertionError, match="exit status 1"):
        perform(Block("bash", "false\ntrue\n"), tmp_path, {})
