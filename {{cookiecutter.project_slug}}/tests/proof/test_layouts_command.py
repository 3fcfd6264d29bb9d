"""The `layouts` command: it tries every way to split, and tells what it finds."""

import json
from pathlib import Path

import pytest
from conftest import change
from splits import REFERENCE, SHORT, layout

from {{cookiecutter.__package_name}} import cli
from {{cookiecutter.__package_name}}.contracts import names
from {{cookiecutter.__package_name}}.contracts.settings import PROOF, ModelSettings, RunSettings
from {{cookiecutter.__package_name}}.proof import layouts
from {{cookiecutter.__package_name}}.proof.differences import Differences
from {{cookiecutter.__package_name}}.proof.ranks import RanksFailed
from {{cookiecutter.__package_name}}.training.run_settings import save_settings

pytestmark = pytest.mark.slow


class Sizes(ModelSettings):
    sequence_length = 24


def test_the_command_tries_every_way_to_split():
    tried = list(layouts.enumerate_layouts(4, "cpu"))
    assert tried[0] == REFERENCE
    assert len(tried) == len(set(tried)) >= 24
    assert {spread.data for spread in tried} == {1, 2, 3, 4}
    assert {spread.parallel.tensor for spread in tried} == {spread.parallel.pipeline for spread in tried} == {1, 2, 4}
    assert all(spread.problem(RunSettings(model=Sizes(num_layers=8), training=PROOF)) is None for spread in tried)
    assert [str(spread) for spread in layouts.enumerate_layouts(1, "gpu")] == ["one process"] * 3


@pytest.fixture
def prove(tmp_path, monkeypatch):
    """Run the command over the reference and some more layouts, in the folder of this test; return its exit code."""

    def run(*some, **changes):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(layouts, "enumerate_layouts", lambda *_: [REFERENCE, *map(layout, some)])
        save_settings(change(SHORT, parallel={"devices": 2}, **changes), tmp_path)
        return cli.main(["layouts", "--config", names.SETTINGS_FILE])

    return run


def test_the_command_prints_a_table_and_writes_the_same(prove, capfd):
    # In its first steps Adam moves a weight by the whole rate even where the gradient is nothing but rounding.
    steps = {"max_steps": 4, "warmup_steps": 0, "val_check_interval": 2, "lr": 1e-4}
    some = ("three micro batches", "tensor 2", "pipeline 2", "pipeline 2 x 2")
    assert prove(*some, model={"num_layers": 3}, training=steps) == 0
    out = capfd.readouterr().out
    written = json.loads(Path(names.LAYOUTS_FILE).read_text())
    assert list(written["left_out"]) == ["pipeline 2", "pipeline 2 x 2 virtual"]
    assert "left out: pipeline 2: --parallel.pipeline 2 does not divide --model.num_layers 3" in out
    assert written["not_tried"] == ["pipeline", "virtual pipeline"]
    assert "NOT tried, and so not proved: pipeline, virtual pipeline parallel" in out
    rows = [line for line in out.splitlines() if line.startswith(("one process", "tensor"))]
    assert [row["layout"] for row in written["layouts"]] == [row[:42].strip() for row in rows]
    assert len(rows) == 3
    assert written["holds"]
    largest = {f"max_{name}_diff" for name in ("loss", "grad_norm", "weight")}
    assert all(written[name] == max(row[name] for row in written["layouts"]) for name in largest)
    assert 0 < max(written[name] for name in largest) <= 1e-5


def test_a_layout_that_differs_or_fails_is_not_passed_over(prove, monkeypatch, capfd):
    def trained(settings):
        if settings.parallel.tensor == 2:
            raise RanksFailed("rank 1 ended with exit code 1; the end of its log")
        return 1.0

    monkeypatch.setattr(layouts, "train_in_ranks", trained)
    monkeypatch.setattr(layouts, "compare", lambda run, first: Differences(0.0, 0.0, (run != first) * 2e-5))
    assert prove("tensor 2", "data 3") == 1
    out, err = capfd.readouterr()
    assert "rank 1 ended with exit code 1" in out
    assert "DIFFERS in weight\n" in out
    assert err.endswith("than the bounds above, which were measured with this command's own settings\n")
    written = json.loads(Path(names.LAYOUTS_FILE).read_text())
    assert [row["holds"] for row in written["layouts"]] == [True, False, False]
    assert [row["max_loss_diff"] for row in written["layouts"]] == [0.0, None, 0.0]  # JSON has no NaN
    assert written["max_loss_diff"] is None
    assert not written["holds"]


def test_a_reference_that_fails_ends_the_command(tmp_path, monkeypatch, capfd):
    def fail(settings):
        raise RanksFailed("rank 0 ended with exit code 1; the end of its log")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(layouts, "train_in_ranks", fail)
    assert cli.main(["layouts", "--accelerator", "cpu"]) == 2
    assert capfd.readouterr().err.endswith(
        "error: the reference itself cannot be trained: rank 0 ended with exit code 1; the end of its log\n"
    )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "words",
    [
        ["--parallel.tensor", "2"],
        ["--parallel.devices", "0"],
        ["--training.micro_batch_size", "4"],
        ["--training.global_batch_size", "0"],
        ["--resume", "true"],
    ],
)
def test_what_the_command_would_not_follow_is_refused(words, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["layouts", "--accelerator", "cpu", *words]) == 2
    [line] = capfd.readouterr().err.splitlines()
    assert words[0].partition(".")[0] in line
