"""optimizer.py: new heads learn by a factor faster or slower, in every layout and after a resume."""

import math
from pathlib import Path
from types import SimpleNamespace

import in_ranks
import kills
import pytest
import torch
from conftest import TINY, change

from {{cookiecutter.__package_name}}.contracts import names
from {{cookiecutter.__package_name}}.contracts.errors import UserError
from {{cookiecutter.__package_name}}.model.settings import FINETUNE
from {{cookiecutter.__package_name}}.proof.differences import BOUNDS, compare
from {{cookiecutter.__package_name}}.proof.ranks import run_ranks
from {{cookiecutter.__package_name}}.training import train as training
from {{cookiecutter.__package_name}}.training.optimizer import base_rate

pytestmark = pytest.mark.slow

STEPS, WARMUP, LR, MIN_LR, DECAY = 4, 1, 1e-3, 5e-4, 0.1


@pytest.fixture
def finetuning(pretrained, tmp_path):
    """Make settings of a finetuning whose new heads learn by a factor, a small one below the lowest rate."""

    def make(factor, run="run", **changes):
        rates = {"lr": LR, "min_lr": MIN_LR, "warmup_steps": WARMUP, "max_steps": STEPS, "val_check_interval": 2}
        training = {**rates, "weight_decay": DECAY, "clip_grad": 0.0, "head_lr_factor": factor}
        start = {"network": FINETUNE.network, "new_heads": FINETUNE.new_heads, "from_run": str(pretrained.folder)}
        settings = change(TINY, run_dir=str(tmp_path / run), **start, training=training)
        return change(settings, **changes)

    return make


@pytest.fixture
def gradients(monkeypatch):
    """Return a list that gets the gradients of each step, by the names of the weights."""
    found = []
    original = training.Progress.on_train_batch_end

    def watched(self, trainer, pl_module, *arguments):
        network = pl_module
        while hasattr(network, "module"):
            network = network.module
        found.append({name: weight.main_grad.clone() for name, weight in network.named_parameters()})
        original(self, trainer, pl_module, *arguments)

    monkeypatch.setattr(training.Progress, "on_train_batch_end", watched)
    return found


def rate(step):
    """Return the learning rate of a step, counted from 0: linear warm-up, then a cosine from LR to MIN_LR."""
    if step <= WARMUP:
        return LR * (step + 1) / (WARMUP + 1)
    return MIN_LR + (LR - MIN_LR) * (1 + math.cos(math.pi * (step - WARMUP) / (STEPS - WARMUP))) / 2


def with_plain_adamw(start, gradients, heads, factor):
    """Return the weights after torch's own AdamW, with groups for heads and for what is decayed."""
    weights = {name: torch.nn.Parameter(weight.clone()) for name, weight in start.items()}
    groups = [
        {
            "params": [weight],
            "weight_decay": DECAY if weight.ndim > 1 else 0.0,
            "factor": factor if name.startswith(tuple(f"{head}." for head in heads)) else 1.0,
        }
        for name, weight in weights.items()
    ]
    optimizer = torch.optim.AdamW(groups, lr=LR)
    for step, given in enumerate(gradients):
        for name, weight in weights.items():
            weight.grad = given[name]
        for group in optimizer.param_groups:
            group["lr"] = rate(step) * group["factor"]
        optimizer.step()
    return weights


@pytest.mark.parametrize("factor", [1.0, 5.0, 0.25])
def test_new_heads_learn_by_the_factor_as_two_groups_of_plain_adamw_do(factor, finetuning, gradients, train):
    trained = train(finetuning(factor))
    expected = with_plain_adamw(trained.start, gradients, FINETUNE.new_heads, factor)
    assert len(gradients) == STEPS and expected.keys() == trained.end.keys()
    for name, weight in expected.items():
        torch.testing.assert_close(trained.end[name], weight.detach(), rtol=1e-6, atol=1e-7, msg=name)
    logged = [float(row[names.LEARNING_RATE]) for row in trained.rows if row[names.LEARNING_RATE]]
    assert logged == pytest.approx([rate(step) for step in range(STEPS)], rel=1e-6)


def test_the_logged_rate_is_without_the_factor_also_where_only_heads_learn():
    groups = [{"lr": LR * 5, "pre_lr_mult": 5.0}]
    assert base_rate(SimpleNamespace(param_groups=groups)) == pytest.approx(LR)


LAYOUTS = {
    "data 2": {"devices": 2},
    "tensor 2": {"devices": 2, "tensor": 2},
    "pipeline 2": {"devices": 2, "pipeline": 2},
}


def in_layout(target, settings, *arguments):
    logs = Path(f"{settings.run_dir}-logs")
    return run_ranks(target, settings, *arguments, processes=settings.parallel.devices, logs=logs)


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_factor_holds_in_every_layout(name, finetuning, train, tmp_path):
    train(finetuning(5.0, "alone"))
    split = finetuning(5.0, "split", parallel=LAYOUTS[name])
    in_layout(in_ranks.train, change(split, training={"micro_batch_size": 16}))
    found = compare(tmp_path / "split", tmp_path / "alone")
    assert found.within(BOUNDS["fp32"]), found


@pytest.mark.parametrize("parallel", [{"devices": 1}, LAYOUTS["pipeline 2"]], ids=["one process", "pipeline 2"])
def test_a_stopped_and_resumed_run_keeps_the_factor(parallel, finetuning, tmp_path):
    def settings(run):
        return finetuning(0.25, run, parallel=parallel, resume=True)

    in_layout(in_ranks.train, settings("whole"))
    assert in_layout(in_ranks.stop, settings("stopped"), 2)[0] == (2, True)
    in_layout(in_ranks.train, settings("stopped"))
    assert kills.equal(tmp_path / "stopped", tmp_path / "whole")


def test_another_factor_or_other_heads_are_not_resumed(finetuning, train):
    settings = change(finetuning(5.0), training={"max_steps": 2})
    train(settings)
    longer = change(settings, resume=True, training={"max_steps": 4})
    with pytest.raises(UserError, match=r"has --training\.head_lr_factor 5\.0, not 2\.0"):
        train(change(longer, training={"head_lr_factor": 2.0}))
    with pytest.raises(UserError, match=r"has --new_heads \(.*\), not \('trunk',\)"):
        train(change(longer, new_heads=("trunk",)))
