"""Layouts: however the work is spread, the same is trained, reported, saved, scored and predicted.

A quick part of what `make layouts` runs, with a small network; and for each promise, that breaking it is noticed.
"""

import csv
import shutil
from contextlib import suppress
from itertools import count

import in_ranks
import numpy as np
import pytest
import torch
from conftest import change, read_rows
from splits import REFERENCE, SHORT, SPLITS, layout

from {{cookiecutter.__package_name}}.contracts import names
from {{cookiecutter.__package_name}}.model.config import NETWORKS
from {{cookiecutter.__package_name}}.model.settings import FINETUNE
from {{cookiecutter.__package_name}}.proof.differences import BOUNDS, compare, saved_tensors
from {{cookiecutter.__package_name}}.proof.ranks import run_ranks
from {{cookiecutter.__package_name}}.results.evaluate import evaluate, predict
from {{cookiecutter.__package_name}}.training.run_settings import save_settings
from {{cookiecutter.__package_name}}.training.train import make_module

pytestmark = pytest.mark.slow


def train(spread, run, *broken, **changes):
    """Train in the ranks of a layout; return the run's folder."""
    settings = spread.settings(change(SHORT, **changes), run)
    run_ranks(in_ranks.train, settings, *broken, processes=spread.parallel.devices, logs=run.with_name("logs"))
    return run


def check_rows(rows, expected_rows):
    """Every figure of every row is the reference's, where it is."""
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


@pytest.mark.parametrize("name", SPLITS)
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
    reference = train(layout("pipeline 2 x 2"), tmp_path / "one" / "run", "layers of torch")
    found = compare(train(layout("all at once"), tmp_path / "two" / "run", "layers of torch"), reference)
    assert found.within(BOUNDS["fp32"]), found
    found = compare(train(layout("all at once"), tmp_path / "three" / "run", "layers of torch, unmarked"), reference)
    assert not found.within(BOUNDS["fp32"], times=10), found


def test_precision_that_is_silently_fp32_is_noticed(reference, tmp_path):
    run = train(REFERENCE, tmp_path / "run", "fp32", training={"precision": "bf16"})
    with pytest.raises(AssertionError):
        test_bf16_is_not_fp32(reference, run)


FINETUNED = {
    "network": FINETUNE.network,
    "new_heads": FINETUNE.new_heads,
    "training": {"max_steps": 4, "val_check_interval": 2},
}


@pytest.fixture(scope="module")
def finetuned_alone(reference, tmp_path_factory):
    return train(REFERENCE, tmp_path_factory.mktemp("finetuned") / "run", from_run=str(reference), **FINETUNED)


@pytest.mark.parametrize("name", ["sequence 2", "pipeline 2", "pipeline 2 x 2"])
def test_every_layout_finetunes_from_the_weights_that_another_saved(name, reference, finetuned_alone, tmp_path):
    run = train(layout(name), tmp_path / "run", from_run=str(reference), **FINETUNED)
    found = compare(run, finetuned_alone)
    assert found.within(BOUNDS["fp32"]), found


@pytest.fixture(scope="module")
def trained_head(reference, tmp_path_factory):
    """A finetuned run whose best checkpoint is its last."""
    start = FINETUNED | {"from_run": str(reference), "redraw_heads": True}
    steps = {"max_steps": 2, "warmup_steps": 1, "val_check_interval": 2}
    return train(REFERENCE, tmp_path_factory.mktemp("head") / "run", **(start | {"training": steps}))


def finetune_in(spread, run, start, **changes):
    """Finetune with a learning rate that changes no bit; return the weights and what the first rank says of the start.

    The seed is another: heads that are drawn anew are others.
    """
    still = {"max_steps": 1, "warmup_steps": 0, "val_check_interval": 1, "lr": 1e-30, "min_lr": 0.0}
    train(spread, run, from_run=str(start), seed=99, **(FINETUNED | {"training": still}), **changes)
    said = [rank.read_text().splitlines() for rank in sorted(run.with_name("logs").glob("rank*.log"))]
    lines = [[line for line in lines if line.startswith("starting from")] for lines in said]
    assert not any(lines[1:])
    return saved_tensors(run, "module."), lines[0]


@pytest.mark.parametrize("name", [None, "tensor 2", "pipeline 2", "pipeline 2 x 2"])
def test_every_layout_starts_from_trained_heads_and_says_so_once(name, trained_head, tmp_path):
    found, said = finetune_in(layout(name) if name else REFERENCE, tmp_path / "run", trained_head)
    assert said == [
        f"starting from the best weights of {trained_head}"
        + "".join(f"; {head}: loaded from it" for head in FINETUNE.new_heads)
    ]
    expected = saved_tensors(trained_head, "module.")
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], weight) for name, weight in expected.items())


@pytest.mark.parametrize("name", [None, "pipeline 2 x 2"])
def test_every_layout_draws_heads_anew_if_it_is_to(name, trained_head, tmp_path):
    spread = layout(name) if name else REFERENCE
    found, said = finetune_in(spread, tmp_path / "run", trained_head, redraw_heads=bool(FINETUNE.new_heads))
    news = "".join(f"; {head}: new" for head in FINETUNE.new_heads)
    assert said == [f"starting from the best weights of {trained_head}{news}"]
    prefixes = tuple(f"module.{head}." for head in FINETUNE.new_heads)
    for name, weight in saved_tensors(trained_head, "module.").items():
        assert torch.equal(found[name], weight) != f"{name}.".startswith(prefixes), name


def test_finetuning_that_starts_from_random_weights_is_noticed(finetuned_alone, tmp_path):
    run = train(REFERENCE, tmp_path / "run", **(FINETUNED | {"new_heads": ()}))
    assert not compare(run, finetuned_alone).within(BOUNDS["fp32"], times=100)


def score(spread, finetuned, run, batch):
    """Evaluate and predict a copy of the run in the ranks of a layout; return what each rank answered."""
    shutil.copytree(finetuned.folder, run)
    settings = spread.settings(change(finetuned.settings, training={"global_batch_size": batch}), run)
    ranks = {"processes": spread.parallel.devices, "logs": run.with_name("logs")}
    answers = run_ranks(evaluate, settings, **ranks)
    if make_module(settings, start_weights=None).config.predictions(outputs(run)):
        run_ranks(predict, settings, **ranks)
    return answers


def outputs(run):
    with np.load(run / names.OUTPUTS_FILE) as file:
        return dict(file)


def predictions(run):
    """Read the columns of the predictions, as numbers where they are some."""
    with (run / names.PREDICTIONS_FILE).open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return {name: column([row[name] for row in rows]) for name in rows[0]}


def column(texts):
    for kind in (int, float):
        with suppress(ValueError):
            return np.array([kind(text) for text in texts])
    return np.array(texts)


def check_same(found, expected):
    """The same names, and but for rounding the same values; rounding decides ties."""
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        if values.dtype.kind == "f":
            np.testing.assert_allclose(found[name], values, rtol=1e-5, atol=1e-5, err_msg=name)
        else:
            assert np.mean(found[name] == values) > 0.9995, name


@pytest.fixture(scope="module")
def scored_alone(finetuned, tmp_path_factory):
    """The number of items, a batch, what one process says of them, and its run."""
    run = tmp_path_factory.mktemp("alone") / "run"
    items = len(NETWORKS[finetuned.settings.network].read_test(finetuned.settings))
    batch = next(size for size in count(36, 36) if 0 < items % size <= size // 3)
    [answer] = score(REFERENCE, finetuned, run, batch)
    del answer[names.REFERENCES]  # of the first rank alone, and of no network
    return items, batch, answer, run


@pytest.mark.parametrize("name", ["data 3", "sequence 2", "pipeline 2"])
def test_every_layout_scores_and_predicts_every_item_once_in_order(name, finetuned, scored_alone, tmp_path):
    """The last batch is not full: one rank of three gets nothing of it."""
    items, batch, expected, alone = scored_alone
    together, within = tmp_path / "run", max(1e-5, 0.1 / items)  # rounding decides ties of ranks, an item more
    for answer in score(layout(name), finetuned, together, batch):  # on every rank
        for key, value in expected.items():
            assert answer[key] == (pytest.approx(value, rel=1e-6, abs=within) if isinstance(value, float) else value)
    assert np.array_equal(outputs(together)[names.IDX], np.arange(items))
    check_same(outputs(together), outputs(alone))
    if (alone / names.PREDICTIONS_FILE).exists():
        check_same(predictions(together), predictions(alone))


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
    items, begins, *validations = answer.stderr.splitlines()
    assert items.startswith("training on ")
    assert begins == "training steps 1 to 20 in 2 processes on cpu, validation every 10 steps"
    assert [line.split()[1] for line in validations] == ["10/20", "20/20"]
    assert len(answer.stdout.splitlines()) == 2
    check_rows(read_rows(tmp_path / "run"), read_rows(reference))
