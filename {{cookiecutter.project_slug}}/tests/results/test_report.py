"""The report: what it shows of a run folder, what it says of a broken one, and that it never leaves half a report.

The run folders here are small and made up, and so is what is drawn of outputs; no test needs torch.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from written_runs import FIGURES, ITEMS, text_of, write_run

from {{cookiecutter.__package_name}}.contracts import names
from {{cookiecutter.__package_name}}.contracts.errors import UserError
from {{cookiecutter.__package_name}}.drawing.theme import Drawing, Picture
from {{cookiecutter.__package_name}}.results import report
from {{cookiecutter.__package_name}}.results.report import (
    COMMAND,
    ReportError,
    make_report,
    read_chain,
    read_run,
)


@pytest.fixture(autouse=True)
def figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "figures", FIGURES)


@pytest.fixture
def drawings(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any]]]:
    """Record what would be drawn instead of drawing it, which takes nearly all the time: (function, arguments)."""
    seen: list[tuple[str, dict[str, Any]]] = []

    def record(draw: Callable[..., Any]) -> Picture:
        assert isinstance(draw, partial)
        draw = draw.args[0].draw if draw.args else draw  # a Drawing is held against its contract as it is drawn
        seen.append((draw.func.__name__, draw.keywords))
        return Picture(light=b"light", dark=b"dark")

    monkeypatch.setattr(report, "render", record)
    return seen


quick = pytest.mark.usefixtures("drawings")


def files_beside(page: Path) -> set[str]:
    return {path.name for path in page.parent.iterdir()}


def test_a_run_and_the_one_it_started_from_are_drawn(tmp_path: Path) -> None:
    first = write_run(tmp_path / "first")
    page = make_report(write_run(tmp_path / "second", finetuned=True, from_run=str(first)))
    assert page == tmp_path / "second" / "report" / "index.html"
    assert files_beside(page) == {"index.html", "loss.png", "hits.png", "cloud.png", "volts.png"}
    content = {path.name: path.read_bytes() for path in page.parent.iterdir()}
    assert content["index.html"].count(b"<img ") == 2 + 4
    assert all(png.startswith(b"\x89PNG") for name, png in content.items() if name.endswith(".png"))
    make_report(tmp_path / "second")
    assert {path.name: path.read_bytes() for path in page.parent.iterdir()} == content


@quick
def test_the_models_pictures_stand_in_its_order_with_its_captions(tmp_path: Path, drawings: Any) -> None:
    page = make_report(write_run(tmp_path / "run", finetuned=True, kinds=list("abcde")))
    assert [name for name, _ in drawings] == ["loss_curves", "metric_curves", "latent_space", "answers"]
    assert drawings[2][1]["names"] == list("abcde")
    assert drawings[-1][1]["answer"].tolist() == [n % 5 + 0.5 for n in range(ITEMS)]
    text = text_of(page)
    assert text.index(f"{ITEMS} <vectors>.") < text.index("The true numbers and the network's.")


def test_an_array_that_is_to_be_drawn_and_is_not_there_is_said(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", finetuned=True)
    with np.load(run / names.OUTPUTS_FILE) as arrays:
        np.savez(run / names.OUTPUTS_FILE, **{name: arrays[name] for name in arrays if name != "true_volts"})
    with pytest.raises(ReportError, match=r"outputs\.npz has no 'true_volts', which model/figures\.py draws: write it"):
        make_report(run)


def test_a_missing_key_of_the_models_own_is_no_lack_of_outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words: dict[str, str] = {}
    monkeypatch.setattr(FIGURES, "pictures", lambda outputs, settings: [words["vector"]])
    with pytest.raises(KeyError, match="vector"):
        make_report(write_run(tmp_path / "run"))


@quick
@pytest.mark.parametrize("name", ["loss", "hits"])
def test_a_picture_cannot_have_the_name_of_a_curve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(FIGURES, "pictures", lambda outputs, settings: [Drawing(name, "", lambda theme: Figure())])
    with pytest.raises(UserError, match=rf"model/figures\.py: pictures gives a Drawing the name {name}, which another"):
        make_report(write_run(tmp_path / "run", finetuned=True))


@quick
def test_shares_are_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FIGURES, "SHARES", "hits")
    with pytest.raises(UserError, match=r"model/figures\.py: SHARES is 'hits', not names of figures: write \("):
        make_report(write_run(tmp_path / "run"))


@quick
def test_what_other_methods_reach_stands_beside_the_figures_and_in_the_curves(tmp_path: Path, drawings: Any) -> None:
    run = write_run(tmp_path / "run", finetuned=True)
    assert "Level lines" not in text_of(make_report(run))
    evaluation = json.loads((run / names.EVALUATION_FILE).read_text())
    evaluation[names.REFERENCES] = {"a guess": {"hits": 0.5, "loss": 2}, "a rule": {"hits": 0.75, "unheard": 1}}
    (run / names.EVALUATION_FILE).write_text(json.dumps(evaluation))
    drawings.clear()
    page = make_report(run)
    assert f"{ITEMS} test items)\na guess: 50.00%\na rule: 75.00%</small>" in page.read_text()
    assert f"test loss 0.25 mean of {ITEMS} test items a guess: 2 " in text_of(page)
    assert "unheard" not in text_of(page)
    drawn = {name: keywords["references"] for name, keywords in drawings if name.endswith("curves")}
    assert drawn == {"loss_curves": {"a guess": 2}, "metric_curves": {"a guess": 0.5, "a rule": 0.75}}
    assert text_of(page).count("Level lines: other methods, on the test set.") == 2


@quick
def test_what_else_a_loss_names_is_shown(tmp_path: Path, drawings: Any) -> None:
    run = write_run(tmp_path / "run", finetuned=True)
    rows = (run / names.METRICS_FILE).read_text().splitlines()
    rows = [f"{row},{extra}" for row, extra in zip(rows, ["val_error", *["0.5"] * (len(rows) - 1)], strict=True)]
    (run / names.METRICS_FILE).write_text("\n".join(rows) + "\n")
    page = make_report(run)
    assert {"hits.png", "error.png"} <= files_beside(page)
    assert "Last values: train_hits 0.98, val_hits 0.99." in text_of(page)
    assert "Last values: val_error 0.5." in text_of(page)
    shares = {drawn["name"]: drawn["is_share"] for function, drawn in drawings if function == "metric_curves"}
    assert shares == {"hits": True, "error": False}


@quick
def test_settings_are_shown_under_their_dotted_names(tmp_path: Path) -> None:
    text = text_of(make_report(write_run(tmp_path / "run", layers=[3, 4], resume=None)))
    for row in ("parallel.tensor 2", "layers [3, 4]", "resume null", "seed 7"):
        assert row in text


@quick
def test_the_parent_comes_first(tmp_path: Path) -> None:
    first = write_run(tmp_path / "first")
    second = write_run(tmp_path / "second", finetuned=True, from_run=str(first))
    third = write_run(tmp_path / "third", finetuned=True, from_run=str(second))
    text = text_of(make_report(third))
    places = [text.index(title) for title in ("1. Pretraining", "2. Finetuning", "3. Finetuning")]
    assert places == sorted(places)
    alone = text_of(make_report(first))
    assert "Training" in alone and "1." not in alone.split("test loss")[0]


def test_a_moved_parent_is_found_beside_its_child(tmp_path: Path) -> None:
    write_run(tmp_path / "first")
    child = write_run(tmp_path / "second", from_run="/gone/runs/first")
    runs, note = read_chain(child)
    assert [run.folder.name for run in runs] == ["first", "second"] and not note


@quick
def test_a_missing_or_broken_parent_is_a_note(tmp_path: Path) -> None:
    child = write_run(tmp_path / "child", from_run=str(tmp_path / "nowhere"))
    assert "nowhere, is left out." in text_of(make_report(child))
    write_run(tmp_path / "nowhere")
    (tmp_path / "nowhere" / names.METRICS_FILE).write_text("step,loss\n0,abc\n")
    assert "could not convert string to float: 'abc'" in text_of(make_report(child))


@pytest.mark.parametrize("ring", [["a"], ["a", "b"], ["a", "b", "c"]], ids=["itself", "two", "three"])
def test_a_circle_of_runs_ends(tmp_path: Path, ring: list[str]) -> None:
    for name, parent in zip(ring, ring[1:] + ring[:1], strict=True):
        write_run(tmp_path / name, evaluated=False, from_run=str(tmp_path / parent))
    runs, note = read_chain(tmp_path / "a")
    assert len(runs) == len(ring)
    assert "closes a circle" in note


@quick
def test_a_run_that_is_not_evaluated_says_how_to_get_the_rest(tmp_path: Path) -> None:
    run = write_run(tmp_path / "my run", evaluated=False)
    page = make_report(run)
    assert files_beside(page) == {"index.html", "loss.png"}
    assert f"{COMMAND} evaluate --from '{run}'" in text_of(page)
    assert "test loss" not in text_of(page)
    write_run(run)
    assert "evaluate --from" not in text_of(make_report(run))


@quick
def test_metrics_alone_are_enough(tmp_path: Path) -> None:
    (tmp_path / names.METRICS_FILE).write_text("step,val_loss\n9,0.5\n")
    text = text_of(make_report(tmp_path))
    assert "steps 9 " in text and "Resolved settings" not in text


def test_a_resumed_run_counts_its_later_rows(tmp_path: Path) -> None:
    (tmp_path / names.METRICS_FILE).write_text("step,val_loss\n0,1\n2,3\n4,5\n2,30\n4,50\n")
    steps, values = read_run(tmp_path).curves["val_loss"]
    assert steps.tolist() == [0, 2, 4] and values.tolist() == [1, 30, 50]


@quick
def test_a_loss_that_broke_is_said_and_the_rest_drawn(tmp_path: Path, drawings: Any) -> None:
    (tmp_path / names.METRICS_FILE).write_text("step,reduced_train_loss,val_a<b\n0,1,\n1000,nan,\n1001,inf,nan\n")
    text = text_of(make_report(tmp_path))
    assert "reduced_train_loss is not finite at 2 of 3 logged steps, first at step 1,000." in text
    assert "val_a<b is not finite at 1 of 1 logged steps" in text
    assert "Last values: reduced_train_loss inf." in text
    assert [function for function, _ in drawings] == ["loss_curves"]  # of the other there is nothing to draw


class Crash(Exception):
    """Stands for whatever may go wrong while the report is written."""


@quick
@pytest.mark.parametrize("crash_at", ["second file", "move of the old", "move of the new"])
def test_a_crash_leaves_the_old_report_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, crash_at: str) -> None:
    run = write_run(tmp_path / "run")
    old = {path.name: path.read_bytes() for path in make_report(run).parent.iterdir()}
    write_run(run, evaluated=False, seed=8)
    calls = 0
    owner, name = (Path, "write_bytes") if crash_at == "second file" else (os, "replace")
    real = getattr(owner, name)

    def fail(*arguments: object) -> object:
        nonlocal calls
        calls += 1
        if calls == (1 if crash_at == "move of the old" else 2):
            raise Crash
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, fail)
        with pytest.raises(Crash):
            make_report(run)
    assert {path.name: path.read_bytes() for path in (run / names.REPORT_FOLDER).iterdir()} == old
    assert not list(run.glob(".report-*"))
    assert "seed 8" in text_of(make_report(run))


@quick
def test_a_rerun_replaces_the_old_report(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    folder = make_report(run).parent
    (folder / "loss.png").rename(folder / "stale.png")  # a picture that model/figures.py drew then
    (folder / ".DS_Store").touch()
    before = {path.name for path in run.iterdir()}
    make_report(run)
    assert not (folder / "stale.png").exists()
    assert {path.name for path in run.iterdir()} == before


@quick
@pytest.mark.parametrize("name", ["notes.md", "mine.png", "folder"])
def test_what_is_of_no_report_is_not_deleted(tmp_path: Path, name: str) -> None:
    run = write_run(tmp_path / "run")
    mine = make_report(run).parent / name
    mine.mkdir() if name == "folder" else mine.write_text("mine")
    with pytest.raises(UserError, match=f"report holds {name}, which is of no report: a new report would delete it"):
        make_report(run)
    assert mine.exists()


def test_the_report_works_without_torch(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", finetuned=True)
    script = f"""
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name in ("torch", "lightning", "megatron", "nemo", "pandas", "matplotlib.pyplot"):
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Absent())
sys.path.append({str(Path(__file__).parent)!r})
from {report.__package__} import report
from written_runs import FIGURES
report.figures = FIGURES
report.make_report({str(run)!r})
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=900)
    assert (run / names.REPORT_FOLDER / names.REPORT_PAGE).is_file()
