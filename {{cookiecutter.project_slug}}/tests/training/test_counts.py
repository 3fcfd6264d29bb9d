"""Losses whose counts differ wildly between items: every split trains and scores what one process does."""

from pathlib import Path
from typing import Any

import in_ranks
import pytest
import torch
from conftest import TINY, change, needs_sequence_for

from {{cookiecutter.__package_name}}.contracts import loss, names
from {{cookiecutter.__package_name}}.contracts.loss import Counted
from {{cookiecutter.__package_name}}.contracts.reading import NO_NUMBERS
from {{cookiecutter.__package_name}}.model.settings import LAYOUTS
from {{cookiecutter.__package_name}}.proof.differences import BOUNDS, compare
from {{cookiecutter.__package_name}}.proof.ranks import run_ranks
from {{cookiecutter.__package_name}}.results.evaluate import evaluate
from {{cookiecutter.__package_name}}.training.train import train

pytestmark = pytest.mark.slow

MOST = 50
SETTINGS = change(
    TINY,
    network=LAYOUTS.network,
    model={"num_layers": 4},
    training={"max_steps": 12, "val_check_interval": 6, "lr": 1e-3},
)
SPLITS = {
    "four micro batches": ({}, 8),
    "data 2": ({"devices": 2}, 16),
    "data 2, two micro batches": ({"devices": 2}, 8),
    "tensor 2": ({"devices": 2, "tensor": 2}, 8),
    "sequence 2": ({"devices": 2, "tensor": 2, "sequence": True}, 8),
    "pipeline 2": ({"devices": 2, "pipeline": 2}, 8),
    "pipeline 2 x 2 virtual": ({"devices": 2, "pipeline": 2, "virtual_pipeline": 2}, 8),
    "data 2, pipeline 2": ({"devices": 4, "pipeline": 2}, 4),
}


def number(idx: torch.Tensor) -> torch.Tensor:
    """How often an item counts: 0, 1 or 2 times, and each eleventh item MOST times."""
    return torch.where(idx % 11 == 0, MOST, idx % 3)


def count_unevenly() -> None:
    """Let every value of an item count as many times as `number` says."""
    counted, forward = loss._sum_and_count, loss.LossReduction.forward

    def uneven(self: Any, batch: Any, forward_out: Any) -> Any:
        times = torch.arange(MOST) < number(batch["idx"]).unsqueeze(1)  # B MOST

        def repeated(term: Counted, is_real: torch.Tensor) -> torch.Tensor:
            values, where = (part.unsqueeze(-1).expand(*part.shape, MOST) for part in term)
            return counted(Counted(values, where & times.view(len(times), *[1] * (where.ndim - 2), MOST)), is_real)

        loss._sum_and_count = repeated
        return forward(self, batch, forward_out)

    loss.LossReduction.forward = uneven  # type: ignore[method-assign]


def train_unevenly(settings: Any, broken: str | None = None) -> int:
    count_unevenly()
    if broken:
        in_ranks.BREAK[broken]()
    return train(settings).steps


def evaluate_unevenly(settings: Any) -> dict[str, Any]:
    count_unevenly()
    return evaluate(settings)


def in_layout(target: Any, settings: Any, *arguments: Any) -> Any:
    logs = Path(f"{settings.run_dir}-logs")
    return run_ranks(target, settings, *arguments, processes=settings.parallel.devices, logs=logs)[0]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The run of one process and one micro batch."""
    run = tmp_path_factory.mktemp("whole") / "run"
    in_layout(train_unevenly, change(SETTINGS, run_dir=str(run)))
    return run


def split(name, run):
    parallel, micro_batch_size = SPLITS[name]
    settings = change(SETTINGS, run_dir=str(run), parallel=parallel, training={"micro_batch_size": micro_batch_size})
    needs_sequence_for(settings)
    return settings


@pytest.mark.parametrize("name", SPLITS)
def test_every_split_minimises_and_reports_one_sum_over_one_count(name, whole, tmp_path):
    in_layout(train_unevenly, split(name, tmp_path / "run"))
    found = compare(tmp_path / "run", whole)
    assert found.within(BOUNDS["fp32"]), found


@pytest.mark.parametrize("name", ["four micro batches", "data 2", "pipeline 2"])
def test_a_mean_of_means_is_noticed(name, whole, tmp_path):
    in_layout(train_unevenly, split(name, tmp_path / "run"), "mean of means")
    found = compare(tmp_path / "run", whole)
    assert found.beyond(BOUNDS["fp32"], times=10) == ["loss", "grad_norm", "weight"], found


def test_even_counts_are_another_training(whole, tmp_path):
    """Or else the counts above would not be uneven enough to show anything."""
    in_layout(in_ranks.train, change(SETTINGS, run_dir=str(tmp_path / "run")))
    assert compare(tmp_path / "run", whole).beyond(BOUNDS["fp32"], times=10) == ["loss", "grad_norm", "weight"]


def test_a_test_set_scores_the_same_in_any_split_and_batch(whole):
    settings = change(SETTINGS, run_dir=str(whole))
    expected = in_layout(evaluate_unevenly, settings)
    exact = [expected.pop(key) for key in NO_NUMBERS]
    assert exact[0]["test_loss"] > expected[names.NUM_ITEMS]
    for changes in (
        {"training": {"global_batch_size": 48, "micro_batch_size": 16}},
        {"parallel": {"devices": 2}, "training": {"global_batch_size": 20, "micro_batch_size": 5}},
        {"parallel": {"devices": 2, "pipeline": 2}, "training": {"micro_batch_size": 8}},
    ):
        found = in_layout(evaluate_unevenly, change(settings, **changes))
        assert [found.pop(key) for key in NO_NUMBERS] == exact
        assert found == pytest.approx(expected, rel=1e-5)
