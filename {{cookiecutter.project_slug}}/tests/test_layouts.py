"""Layouts: two processes train, validate and predict what one process does, however the work is spread over them."""

import json
import shutil

import pytest
from conftest import TINY, change, read_rows

from {{cookiecutter.__package_name}} import names, training
from {{cookiecutter.__package_name}}.settings import save_settings

pytestmark = [pytest.mark.slow, pytest.mark.timeout(200)]

# All heads at once, and two micro batches in a step, so that pipeline stages have something to pass on.
SHORT = change(
    TINY,
    network="autoencoder_classifier",
    training={"max_steps": 8, "val_check_interval": 4, "micro_batch_size": 16},
)
LAYOUTS = {
    "tensor parallel": {"devices": 2, "tensor": 2},
    "tensor and sequence parallel": {"devices": 2, "tensor": 2, "sequence": True},
    "pipeline parallel": {"devices": 2, "pipeline": 2},
    "data parallel": {"devices": 2},
}


@pytest.fixture(scope="module")
def alone(train, tmp_path_factory):
    """The run of one process that the others are compared to."""
    return train(change(SHORT, run_dir=str(tmp_path_factory.mktemp("alone") / "run")))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_two_processes_train_to_the_figures_of_one(layout, alone, command, tmp_path):
    settings = change(SHORT, run_dir=str(tmp_path / "run"), parallel=LAYOUTS[layout])
    save_settings(settings, tmp_path)
    answer = command("pretrain", "--config", str(tmp_path / names.SETTINGS_FILE))
    assert answer.returncode == 0, answer.stderr
    rows = read_rows(tmp_path / "run")
    assert [list(row) for row in rows] == [list(row) for row in alone.rows]
    for row, expected in zip(rows, alone.rows, strict=True):
        assert {name: value and float(value) for name, value in row.items()} == {
            name: value and pytest.approx(float(value), rel=1e-5, abs=1e-5) for name, value in expected.items()
        }
    assert [line.split()[1] for line in answer.stderr.splitlines()] == ["4/8", "8/8"], "lines of the first rank only"
    assert len(answer.stdout.splitlines()) == 2
    if layout != "data parallel":  # what two processes saved in pieces, one process evaluates
        result = training.evaluate(change(settings, parallel={"devices": 1, "tensor": 1, "pipeline": 1, "sequence": False}))
        expected = training.evaluate(alone.settings)
        assert result == pytest.approx(expected, abs=1e-4)


def test_two_processes_score_and_predict_what_one_does(finetuned, command, tmp_path):
    alone, together = tmp_path / "alone", tmp_path / "together"
    for folder in (alone, together):
        shutil.copytree(finetuned.folder, folder)
    batches = {"global_batch_size": 256}
    settings = change(finetuned.settings, run_dir=str(alone), training=batches)
    expected = training.evaluate(settings)
    training.predict(settings)
    words = ["--from", str(together), "--parallel.devices", "2", "--training.global_batch_size", "256"]
    for name in ("evaluate", "predict"):
        answer = command(name, *words)
        assert answer.returncode == 0, answer.stderr
        assert answer.stderr == ""
    predictions = (together / names.PREDICTIONS_FILE).read_text()
    assert predictions == (alone / names.PREDICTIONS_FILE).read_text()
    assert len(predictions.splitlines()) == 10_001
    scores = json.loads((together / names.EVALUATION_FILE).read_text())
    assert scores == pytest.approx(expected, abs=1e-6)
