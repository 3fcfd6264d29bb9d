"""What tools/demo.py reads from finished runs and writes for others; training itself is test_training's."""

from __future__ import annotations

import importlib.util
import json

import pytest
from conftest import TEMPLATE

spec = importlib.util.spec_from_file_location("demo", TEMPLATE / "tools" / "demo.py")
demo = importlib.util.module_from_spec(spec)
spec.loader.exec_module(demo)


@pytest.fixture
def project(tmp_path):
    for name in ("pretrain", "finetune"):
        (tmp_path / "runs" / name).mkdir(parents=True)
    metrics = "step,val_loss,reduced_train_loss\n0,,0.5\n10,0.4,\n20,,0.25\n20,0.2,\n"
    (tmp_path / "runs" / "pretrain" / "metrics.csv").write_text(metrics)
    scores = {"test_accuracy": 0.97, "test_loss": 0.1, "num_items": 9, "references": {"guessing": {"accuracy": 0.1}}}
    (tmp_path / "runs" / "finetune" / "evaluation.json").write_text(json.dumps(scores))
    return tmp_path


def test_the_summary_holds_the_figures_of_the_runs(project):
    assert demo.summarise(project, 12.345) == {
        "test": {"accuracy": 0.97, "loss": 0.1},
        "items": 9,
        "references": {"guessing": {"accuracy": 0.1}},
        "pretrain_loss_first": 0.5,
        "pretrain_loss_last": 0.25,
        "train_seconds": 12.3,
        "report": str(project / "runs" / "finetune" / "report" / "index.html"),
    }


def test_a_line_that_was_cut_off_does_not_count(project):
    metrics = project / "runs" / "pretrain" / "metrics.csv"
    metrics.write_text(metrics.read_text() + "30,,0.1")
    assert demo.losses(metrics) == (0.5, 0.25)


def test_the_summary_shows_the_network_beside_what_it_is_held_against(project):
    lines = demo.told(demo.summarise(project, 12.345), project).splitlines()
    assert lines[1:4] == [
        "On 9 test items:",
        f"{'the network':36} accuracy 0.9700  loss 0.1000",
        f"{'guessing':36} accuracy 0.1000",
    ]


def test_writing_leaves_the_whole_file_and_nothing_else(tmp_path):
    path = tmp_path / "summary.json"
    path.write_text("old")
    demo.write_atomically(path, json.dumps({"new": 1}))
    assert json.loads(path.read_text()) == {"new": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_a_failing_command_ends_the_demo_with_one_line(tmp_path):
    with pytest.raises(SystemExit, match="exit status 3"):
        demo.run("bash", "-c", "exit 3", cwd=tmp_path)
