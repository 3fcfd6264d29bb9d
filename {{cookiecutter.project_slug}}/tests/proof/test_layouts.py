"""Layouts: however the work is spread, the same is trained, reported, saved, scored and predicted.

A quick part of what `make layouts` runs, with a small network; and for each promise, that breaking it is noticed.
"""

import json
import math
import shutil
import sys
from pathlib import Path

import in_ranks
import numpy as np
import pytest
import torch
from conftest import PACKAGE, TINY, change, needs_sequence_for, read_rows

from {{cookiecutter.__package_name}} import cli, names, training
from {{cookiecutter.__package_name}}.errors import UserError
from {{cookiecutter.__package_name}}.proof import differences, layouts
from {{cookiecutter.__package_name}}.proof.differences import BOUNDS, Differences, compare
from {{cookiecutter.__package_name}}.proof.layouts import Layout
from {{cookiecutter.__package_name}}.proof.ranks import RanksFailed, _context, run_ranks
from {{cookiecutter.__package_name}}.run_settings import save_settings
from {{cookiecutter.__package_name}}.settings import ParallelSettings

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

# All heads at once; a global batch that three ranks and three micro batches divide.
SHORT = change(
    TINY,
    network=cli.LAYOUTS.network,
    model={"num_layers": 4},
    training={"max_steps": 20, "val_check_interval": 10, "global_batch_size": 36, "lr": 1e-3},
)
LAYOUTS = {
    "three micro batches": ({"devices": 1}, 3),
    "data 3": ({"devices": 3}, 2),
    "tensor 2": ({"devices": 2, "tensor": 2}, 1),
    "sequence 2": ({"devices": 2, "tensor": 2, "sequence": True}, 3),
    "tensor 4, sequence": ({"devices": 4, "tensor": 4, "sequence": True}, 1),
    "pipeline 2": ({"devices": 2, "pipeline": 2}, 3),
    "pipeline 2 x 2": ({"devices": 2, "pipeline": 2, "virtual_pipeline": 2}, 6),
    "pipeline 2, data 2": ({"devices": 4, "pipeline": 2}, 3),
    "all at once": ({"devices": 4, "tensor": 2, "sequence": True, "pipeline": 2, "virtual_pipeline": 2}, 2),
}
REFERENCE = Layout(ParallelSettings(), 1, "cpu")


def layout(name):
    parallel, num_microbatches = LAYOUTS[name]
    spread = Layout(ParallelSettings(**parallel), num_microbatches, "cpu")
    needs_sequence_for(spread.settings(SHORT, Path()))
    return spread


def train(spread, run, *broken, **changes):
    """Train in the ranks of a layout; return the run's folder."""
    settings = spread.settings(change(SHORT, **changes), run)
    run_ranks(in_ranks.train, settings, *broken, processes=spread.parallel.devices, logs=run.with_name("logs"))
    return run


def check_rows(rows, expected_rows):
    """Every figure of every row is the reference's, where it is: of losses, accuracies, norms, rates and steps."""
    assert [list(row) for row in rows] == [list(row) for row in expected_rows]
    for row, expected in zip(rows, expected_rows, strict=True):
        for name, value in expected.items():
            assert (row[name] and float(row[name])) == (value and pytest.approx(float(value), rel=1e-5, abs=1e-5)), name


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    return train(REFERENCE, tmp_path_factory.mktemp("reference") / "run")


@pytest.fixture(scope="module")
def reference_bf16(tmp_path_factory):
    return train(REFERENCE, tmp_path_factory.mktemp("reference") / "run", training={"precision": "bf16"})


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_trains_to_the_figures_and_weights_of_one_process(name, reference, tmp_path):
    run = train(layout(name), tmp_path / "run")
    check_rows(read_rows(run), read_rows(reference))
    found = compare(run, reference)
    assert found.within(BOUNDS["fp32"]), found


@pytest.mark.parametrize("name", ["sequence 2", "pipeline 2"])
def test_layouts_agree_in_bf16_too(name, reference_bf16, tmp_path):
    found = compare(train(layout(name), tmp_path / "run", training={"precision": "bf16"}), reference_bf16)
    assert found.within(BOUNDS["bf16"]), found


def test_bf16_is_not_fp32(reference, reference_bf16):
    found = compare(reference_bf16, reference)
    assert not found.within(BOUNDS["fp32"], times=100)


@pytest.mark.parametrize(
    ("broken", "name"),
    [
        ("loss aliased", "three micro batches"),
        ("loss of one rank", "data 3"),
        ("bias on every rank", "tensor 2"),
        ("norms not summed", "sequence 2"),
        ("start weights in turn", "pipeline 2"),
        ("exchange in batches", "pipeline 2 x 2"),
    ],
)
def test_what_breaks_a_layout_is_noticed(broken, name, reference, tmp_path):
    found = compare(train(layout(name), tmp_path / "run", broken), reference)
    assert not found.within(BOUNDS["fp32"], times=10), f"{broken} in {name} changes nothing: {found}"


def test_layers_of_torchs_own_train_the_same_if_they_are_marked(tmp_path):
    reference = train(REFERENCE, tmp_path / "one" / "run", "layers of torch")
    found = compare(train(layout("sequence 2"), tmp_path / "two" / "run", "layers of torch"), reference)
    assert found.within(BOUNDS["fp32"]), found
    found = compare(train(layout("sequence 2"), tmp_path / "three" / "run", "layers of torch, unmarked"), reference)
    assert not found.within(BOUNDS["fp32"], times=10), found


def test_precision_that_is_silently_fp32_is_noticed(reference, tmp_path):
    run = train(REFERENCE, tmp_path / "run", "fp32", training={"precision": "bf16"})
    with pytest.raises(AssertionError):
        test_bf16_is_not_fp32(reference, run)


FEW_STEPS = {"max_steps": 4, "val_check_interval": 2}
FINETUNE = {"network": cli.FINETUNE.network, "new_heads": cli.FINETUNE.new_heads, "training": FEW_STEPS}


@pytest.fixture(scope="module")
def finetuned_alone(reference, tmp_path_factory):
    return train(REFERENCE, tmp_path_factory.mktemp("finetuned") / "run", from_run=str(reference), **FINETUNE)


@pytest.mark.parametrize("name", ["sequence 2", "pipeline 2", "pipeline 2 x 2"])
def test_every_layout_finetunes_from_the_weights_that_another_saved(name, reference, finetuned_alone, tmp_path):
    run = train(layout(name), tmp_path / "run", from_run=str(reference), **FINETUNE)
    found = compare(run, finetuned_alone)
    assert found.within(BOUNDS["fp32"]), found


def test_finetuning_that_starts_from_random_weights_is_noticed(finetuned_alone, tmp_path):
    run = train(REFERENCE, tmp_path / "run", **(FINETUNE | {"new_heads": ()}))
    assert not compare(run, finetuned_alone).within(BOUNDS["fp32"], times=100)


@pytest.mark.parametrize("name", ["data 3", "sequence 2", "pipeline 2"])
def test_every_layout_scores_and_predicts_every_item_once_in_order(name, finetuned, tmp_path):
    """The last batch is not full: of 10,000 digits four are left, of which one rank of three gets nothing."""
    answers = {}
    for spread, folder in ((REFERENCE, tmp_path / "alone"), (layout(name), tmp_path / "together")):
        shutil.copytree(finetuned.folder, folder)
        settings = spread.settings(change(finetuned.settings, training={"global_batch_size": 252}), folder)
        ranks = {"processes": spread.parallel.devices, "logs": tmp_path / "logs"}
        answers[folder] = run_ranks(training.evaluate, settings, **ranks)
        run_ranks(training.predict, settings, **ranks)
    [[alone], together] = answers.values()
    assert together == [pytest.approx(alone, rel=1e-6, abs=1e-6)] * len(together)  # on every rank
    files = [folder / names.PREDICTIONS_FILE for folder in answers]
    [expected, predicted] = [np.loadtxt(file, delimiter=",", skiprows=1) for file in files]
    assert np.array_equal(predicted[:, 0], np.arange(alone[names.NUM_ITEMS]))
    assert np.array_equal(predicted[:, 1], expected[:, 1])
    assert np.mean(predicted[:, 2] == expected[:, 2]) > 0.9995  # ties
    np.testing.assert_allclose(predicted[:, 3], expected[:, 3], rtol=0, atol=3e-6)  # written with six digits


def test_ranks_drop_what_they_should(tmp_path):
    """Other items, other random numbers; the same activations, the same ones; other rows of them, others again."""

    def drops(name):
        one_step = {"max_steps": 1, "warmup_steps": 0, "val_check_interval": 1}
        dropping = change(SHORT, model={"hidden_dropout": 0.5}, training=one_step)
        settings = layout(name).settings(dropping, tmp_path / name)
        ranks = settings.parallel.devices
        return run_ranks(in_ranks.dropped, settings, processes=ranks, logs=tmp_path / f"{name}-logs")

    first, second, third = drops("data 3")
    assert first != second != third != first
    [one, two] = drops("tensor 2")
    assert one == two
    [one, two] = drops("sequence 2")
    assert one != two
    [one, two] = drops("pipeline 2")
    assert one != two


def test_the_command_starts_its_processes_itself_and_only_the_first_one_speaks(command, reference, tmp_path):
    settings = layout("tensor 2").settings(SHORT, tmp_path / "run")
    save_settings(settings, tmp_path)
    answer = command("pretrain", "--config", str(tmp_path / names.SETTINGS_FILE))
    assert answer.returncode == 0, answer.stderr
    begins, *validations = answer.stderr.splitlines()
    assert begins == "training steps 1 to 20 in 2 processes on cpu, validation every 10 steps"
    assert [line.split()[1] for line in validations] == ["10/20", "20/20"]
    assert len(answer.stdout.splitlines()) == 2
    check_rows(read_rows(tmp_path / "run"), read_rows(reference))


# --- the command


def test_the_command_tries_every_way_to_split(monkeypatch):
    monkeypatch.setattr(f"{PACKAGE}.settings.SEQUENCE_LENGTH", 28)  # whatever yours is
    tried = list(layouts.enumerate_layouts(4, "cpu"))
    assert tried[0] == REFERENCE
    assert len(tried) == len(set(tried)) >= 24
    assert {spread.data for spread in tried} == {1, 2, 3, 4}
    assert {spread.parallel.tensor for spread in tried} == {spread.parallel.pipeline for spread in tried} == {1, 2, 4}
    assert all(spread.problem(cli.LAYOUTS) is None for spread in tried if spread.parallel.pipeline < 4)
    assert [str(spread) for spread in layouts.enumerate_layouts(1, "gpu")] == ["one process"] * 3


def test_the_command_prints_a_table_and_writes_the_same(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    some = [layout(name) for name in ("three micro batches", "tensor 2", "pipeline 2", "pipeline 2 x 2")]
    monkeypatch.setattr(layouts, "enumerate_layouts", lambda *_: [REFERENCE, *some])
    settings = ["--accelerator", "cpu", "--parallel.devices", "2", "--model.num_layers", "3"]
    sizes = ["--model.hidden_size", "16", "--model.ffn_hidden_size", "32", "--model.latent_size", "8"]
    steps = ["--training.max_steps", "4", "--training.warmup_steps", "0", "--training.val_check_interval", "2"]
    assert cli.main(["layouts", *settings, *sizes, *steps, "--data.root", TINY.data.root]) == 0
    out = capfd.readouterr().out
    written = json.loads((tmp_path / names.LAYOUTS_FILE).read_text())
    assert list(written["left_out"]) == ["pipeline 2", "pipeline 2 x 2 virtual"]
    assert "left out: pipeline 2: --parallel.pipeline 2 does not divide --model.num_layers 3" in out
    assert written["not_tried"] == ["pipeline", "virtual pipeline"]
    assert "NOT tried, and so not proved: pipeline, virtual pipeline parallel" in out
    rows = [line for line in out.splitlines() if line.startswith(("one process", "tensor"))]
    assert [row["layout"] for row in written["layouts"]] == [row[:42].strip() for row in rows]
    assert len(rows) == 3
    assert written["holds"]
    assert 0 < written["max_loss_diff"] == max(row["max_loss_diff"] for row in written["layouts"]) <= 1e-5
    assert 0 < written["max_weight_diff"] <= 1e-5


def test_a_layout_that_differs_or_fails_is_not_passed_over(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(layouts, "enumerate_layouts", lambda *_: [REFERENCE, layout("tensor 2"), layout("data 3")])

    def trained(settings):
        if settings.parallel.tensor == 2:
            raise RanksFailed("rank 1 ended with exit code 1; the end of its log")
        return 1.0

    monkeypatch.setattr(layouts, "train_in_ranks", trained)
    monkeypatch.setattr(layouts, "compare", lambda run, first: Differences(0.0, 0.0, (run != first) * 2e-5))
    assert cli.main(["layouts", "--accelerator", "cpu"]) == 1
    out, err = capfd.readouterr()
    assert "rank 1 ended with exit code 1" in out
    assert "DIFFERS in weight\n" in out
    assert err.endswith("than the bounds above, which were measured with this command's own settings\n")
    written = json.loads((tmp_path / names.LAYOUTS_FILE).read_text())
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


def test_what_cannot_be_compared_is_never_equal():
    bounds = Differences(1.0, 1.0, 1.0)
    assert not Differences(differences._largest_difference([1.0], [1.0, 2.0]), 0.0, 0.0).within(bounds)
    assert not Differences(0.0, differences._largest_difference([math.nan], [1.0]), 0.0).within(bounds)
    weights = ({"a": torch.ones(1)}, {"b": torch.ones(1)})
    assert not Differences(0.0, 0.0, differences._largest_weight_difference(*weights)).within(bounds)
    assert differences._largest_difference([2.0, 1000.0], [2.0, 1001.0]) == pytest.approx(1 / 1001)


# --- ranks


def sleep_for_ever():
    import time

    time.sleep(600)


def answer_at_length():
    return "word " * 100_000


def fail_on_the_second():
    import os

    if os.environ["LOCAL_RANK"] == "1":
        raise ValueError("no such luck")
    sleep_for_ever()


def test_ranks_answer_at_any_length(tmp_path):
    assert run_ranks(answer_at_length, processes=2, logs=tmp_path, limit=60) == ["word " * 100_000] * 2


def test_ranks_fail_together_and_say_why(tmp_path):
    with pytest.raises(RanksFailed, match=r"(?s)rank 1 ended with exit code 1; the end of .*ValueError: no such luck"):
        run_ranks(fail_on_the_second, processes=2, logs=tmp_path)


def fail_in_words():
    raise UserError("it cannot be, because it may not be")


def test_a_rank_that_fails_for_the_user_to_mend_it_says_only_that(tmp_path):
    with pytest.raises(RanksFailed, match=r"rank 0 ended with exit code 1; the end of .*:\nit cannot be, because"):
        run_ranks(fail_in_words, processes=1, logs=tmp_path)


def test_a_rank_that_cannot_even_begin_is_named(tmp_path, monkeypatch):
    main = sys.modules["__main__"]
    monkeypatch.setattr(main, "__spec__", None)
    monkeypatch.setattr(main, "__file__", str(tmp_path / "gone.py"))  # which every rank reads first
    with pytest.raises(RanksFailed, match=r"rank 0 ended with exit code 1; the end of .*rank0\.log"):
        run_ranks(fail_in_words, processes=1, logs=tmp_path)


def test_ranks_that_use_cuda_are_forked_where_that_is_possible():
    assert _context("cpu").get_start_method() == "forkserver"
    assert _context("gpu").get_start_method() == ("forkserver" if torch.cuda.device_count() else "spawn")


def test_ranks_have_a_limit(tmp_path):
    with pytest.raises(RanksFailed, match="rank 0, rank 1 not done after 1 s"):
        run_ranks(sleep_for_ever, processes=2, logs=tmp_path, limit=1)
