"""The few figures that sum a run up, in its report: what they are means of, and of which step."""

import json
from pathlib import Path
from typing import Any

import pytest
from written_runs import FIGURES, ITEMS, text_of, write_run

from {{cookiecutter.__package_name}}.contracts import names
from {{cookiecutter.__package_name}}.drawing.theme import Picture
from {{cookiecutter.__package_name}}.results import report
from {{cookiecutter.__package_name}}.results.report import COMMAND, make_report


@pytest.fixture(autouse=True)
def figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw nothing, which takes nearly all the time."""
    monkeypatch.setattr(report, "figures", FIGURES)
    monkeypatch.setattr(report, "render", lambda draw: Picture(light=b"light", dark=b"dark"))


def test_headline_figures(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", finetuned=True)
    text = text_of(make_report(run))
    error = (0.95 * 0.05 / ITEMS) ** 0.5
    assert f"test hits 95.00% ± {error:.2%} (standard error, {ITEMS} test items)" in text
    assert f"test loss 0.25 mean of {ITEMS} test items" in text
    assert "steps 99 " in text
    assert "best step 99 lowest val_loss: its weights are evaluated and exported" in text
    assert "samples seen 792 " in text  # 8 in each global batch


def test_headlines_tell_the_speed(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    (run / names.METRICS_FILE).write_text("step,reduced_train_loss,items_per_second\n1,2,\n2,1,20\n3,1,40\n")
    assert "items per second 30.0 median of 2 measurements" in text_of(make_report(run))


def test_headlines_say_what_a_loss_counts_and_nothing_of_what_has_no_count(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    counts = {"test_loss": 4321, "test_hits": 1000}
    evaluation = {"test_loss": 2, "test_hits": 0.5, "test_perplexity": 7.5, "num_items": ITEMS, "counts": counts}
    (run / names.EVALUATION_FILE).write_text(json.dumps({**evaluation, "counted": "masked tokens"}))
    text = text_of(make_report(run))
    assert "test loss 2 mean of 4,321 masked tokens of the test set" in text
    assert "test hits 50.00% ± 1.58% (standard error, 1,000 values of the test set)" in text
    assert "test perplexity 7.5 steps" in text
    assert "num items" not in text and "counted" not in text.split("samples seen")[0]


def test_figures_of_a_checkpoint_that_is_no_longer_the_best_are_told(tmp_path: Path, capsys: Any) -> None:
    run = write_run(tmp_path / "run")
    evaluation = json.loads((run / names.EVALUATION_FILE).read_text())
    for step in (None, 99, 49):  # of an older version, the best one, one before
        if step is not None:
            (run / names.EVALUATION_FILE).write_text(json.dumps({**evaluation, names.STEP: step}))
        text, told = text_of(make_report(run)), capsys.readouterr().err
        line = "The test figures are those of step 49, and the lowest val_loss is that of step 99. For its figures: "
        assert told == (f"{line}{COMMAND} evaluate --from {run}\n" if step == 49 else "")
        assert (line in text) == (step == 49)
        assert "step 49 " not in text.split("samples seen")[0].replace(line, "")


def test_the_best_step_is_the_one_of_the_lowest_loss_of_a_validation(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    (run / names.METRICS_FILE).write_text("step,val_loss\n10,2\n20,1\n30,nan\n40,1.5\n")
    assert "best step 20 " in text_of(make_report(run))
    (run / names.METRICS_FILE).write_text("step,reduced_train_loss\n10,2\n")
    assert "best step" not in text_of(make_report(run))
