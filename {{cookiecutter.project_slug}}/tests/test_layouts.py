"""Layouts: two processes train, validate and predict what one process does, however the work is spread over them."""

import json
import random
import shutil
import socket
from contextlib import suppress

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

# Both ranks run this, rank 0 starts rank 1. A port for each command: none meets the other rank at the last command's.
RANKS = """
import json, os, subprocess, sys
from pathlib import Path
from {{cookiecutter.__package_name}}.cli import main

rank = sys.argv[1]
other = subprocess.Popen([sys.executable, __file__, "1"]) if rank == "0" else None
os.environ |= {"LOCAL_RANK": rank, "NODE_RANK": "0", "MASTER_ADDR": "127.0.0.1"}
for port, words in json.loads(Path(__file__).with_suffix(".json").read_text()):
    os.environ["MASTER_PORT"] = port
    assert main(words) == 0
assert other is None or other.wait() == 0
"""


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
    """Return a port below those that the system gives to connections of its own choice: it stays free for a while."""
    for port in random.SystemRandom().sample(range(20_000, 30_000), 100):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise OSError("no free port among a hundred")


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
    (folder / "commands.json").write_text(json.dumps([[str(free_port()), words] for words in commands]))
    (folder / "commands.py").write_text(RANKS)
    answer = command("0", script=folder / "commands.py", limit=250)
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
