"""Layouts: two processes train, validate and predict what one process does, however the work is spread over them."""

import json
import shutil
import socket

import pytest
from conftest import TINY, change, read_rows

from {{cookiecutter.__package_name}} import names, training
from {{cookiecutter.__package_name}}.settings import save_settings

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

# All heads at once, and two micro batches in a step, so that pipeline stages have something to pass on.
SHORT = change(
    TINY,
    network="autoencoder_classifier",
    training={"max_steps": 8, "val_check_interval": 4, "micro_batch_size": 16},
)
LAYOUTS = {
    "tensor": {"devices": 2, "tensor": 2},
    "sequence": {"devices": 2, "tensor": 2, "sequence": True},
    "pipeline": {"devices": 2, "pipeline": 2},
    "data": {"devices": 2},
}
BATCH = {"global_batch_size": 256}  # of evaluation and prediction: 10,000 items leave a tail of 16


@pytest.fixture(scope="module")
def alone(train, finetuned, tmp_path_factory):
    """What one process trains, scores and predicts; the others are compared to it."""
    folder = tmp_path_factory.mktemp("alone")
    trained = train(change(SHORT, run_dir=str(folder / "run")))
    shutil.copytree(finetuned.folder, folder / "finetuned")
    settings = change(finetuned.settings, run_dir=str(folder / "finetuned"), training=BATCH)
    return {
        "run": trained.settings,
        "rows": trained.rows,
        "scores": training.evaluate(settings),
        "predictions": training.predict(settings),
    }


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def pretrain_words(folder, layout):
    save_settings(change(SHORT, run_dir=str(folder / "run"), parallel=LAYOUTS[layout]), folder)
    return ["pretrain", "--config", str(folder / names.SETTINGS_FILE)]


@pytest.fixture(scope="module")
def together(command, finetuned, tmp_path_factory):
    """What two processes train in every layout, score and predict: all commands in one start, which is the longest."""
    folder = tmp_path_factory.mktemp("together")
    shutil.copytree(finetuned.folder, folder / "finetuned")
    words = ["--from", str(folder / "finetuned"), "--parallel.devices", "2", "--training.global_batch_size", "256"]
    commands = [["evaluate", *words], ["predict", *words]]
    for layout in LAYOUTS:
        (folder / layout).mkdir()
        commands.append(pretrain_words(folder / layout, layout))
    script = folder / "commands.py"
    lines = ["import os", "from {{cookiecutter.__package_name}}.cli import main"]
    for words in commands:
        # every rank runs this script; with a port for each command, none waits at that of the command before
        lines += [f"os.environ['MASTER_PORT'] = '{free_port()}'", f"assert main({words}) == 0"]
    script.write_text("\n".join(lines) + "\n")
    answer = command(script=script, limit=250)
    assert answer.returncode == 0, answer.stderr
    return folder


def check_rows(rows, expected_rows):
    assert [list(row) for row in rows] == [list(row) for row in expected_rows]
    for row, expected in zip(rows, expected_rows, strict=True):
        for name, value in expected.items():
            assert (row[name] and float(row[name])) == (value and pytest.approx(float(value), rel=1e-5, abs=1e-5)), name


@pytest.mark.parametrize("layout", LAYOUTS)
def test_two_processes_train_to_the_figures_of_one(layout, alone, together):
    check_rows(read_rows(together / layout / "run"), alone["rows"])


def test_what_two_processes_saved_in_pieces_one_process_continues(alone, together, train, tmp_path):
    shutil.copytree(together / "sequence" / "run", tmp_path / "together")
    shutil.copytree(alone["run"].run_dir, tmp_path / "alone")
    longer = {"resume": True, "training": {"max_steps": 10}}
    [one, two] = [train(change(SHORT, run_dir=str(tmp_path / name), **longer)) for name in ("alone", "together")]
    assert [row["step"] for row in one.rows[-2:]] == ["9", "10"]
    check_rows(two.rows, one.rows)


def test_two_processes_score_as_one(alone, together):
    scores = json.loads((together / "finetuned" / names.EVALUATION_FILE).read_text())
    assert scores == pytest.approx(alone["scores"], abs=1e-6)


def test_two_processes_predict_the_same_file_as_one(alone, together):
    predictions = (together / "finetuned" / names.PREDICTIONS_FILE).read_text()
    assert predictions == alone["predictions"].read_text()
    assert len(predictions.splitlines()) == 10_001


def test_the_command_starts_its_processes_itself_and_only_the_first_one_speaks(alone, command, tmp_path):
    answer = command(*pretrain_words(tmp_path, "tensor"))
    assert answer.returncode == 0, answer.stderr
    assert [line.split()[1] for line in answer.stderr.splitlines()] == ["4/8", "8/8"]
    assert len(answer.stdout.splitlines()) == 2
    check_rows(read_rows(tmp_path / "run"), alone["rows"])
