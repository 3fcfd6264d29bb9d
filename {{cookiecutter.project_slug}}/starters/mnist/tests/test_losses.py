"""The losses: of each item what plain torch computes, in float32 whatever the precision; and the figures they name."""

import pytest
import torch
import torch.nn.functional as F

from {{cookiecutter.__package_name}}.contracts.item import PADDING_IDX
from {{cookiecutter.__package_name}}.model.losses import (
    ClassifierLossReduction,
    MSELossReduction,
    MSEPlusClassifierLossReduction,
    correct,
    cross_entropy,
    squared_error,
)

FIGURES = {
    MSELossReduction: ("loss",),
    ClassifierLossReduction: ("loss", "accuracy"),
    MSEPlusClassifierLossReduction: ("loss", "accuracy"),
}
EVERY_LOSS = pytest.mark.parametrize("reduction", FIGURES)


def make_batch(size, padding=0, seed=0):
    """Make a batch whose last items are padding, and what a network with every head might say of it."""
    random = torch.Generator().manual_seed(seed)
    idx = torch.arange(size)
    idx[size - padding :] = PADDING_IDX
    images = torch.rand(size, 1, 28, 28, generator=random)
    batch = {"data": images, "label": torch.randint(10, (size,), generator=random), "idx": idx}
    reconstruction = torch.rand(size, 1, 28, 28, generator=random, requires_grad=True)
    logits = torch.randn(size, 10, generator=random, requires_grad=True)
    return batch, {"reconstruction": reconstruction, "logits": logits}


def plain_sums(reduction, batch, output):
    """Return the sum of each figure over the real items, one item after the other."""
    real = [i for i, idx in enumerate(batch["idx"].tolist()) if idx >= 0]
    pictures, scores = output["reconstruction"].detach().double(), output["logits"].detach().double()
    error = sum(float(((pictures[i] - batch["data"][i].double()) ** 2).mean()) for i in real)
    entropy = -sum(float(scores[i].log_softmax(0)[batch["label"][i]]) for i in real)
    right = sum(int(scores[i].argmax()) == int(batch["label"][i]) for i in real)
    return {
        MSELossReduction: [error],
        ClassifierLossReduction: [entropy, right],
        MSEPlusClassifierLossReduction: [error + entropy, right],
    }[reduction]


def test_each_items_values_are_those_of_plain_torch():
    batch, output = make_batch(7)
    for i in range(7):
        one = F.mse_loss(output["reconstruction"][i], batch["data"][i])
        torch.testing.assert_close(squared_error(output, batch)[i], one)
        torch.testing.assert_close(
            cross_entropy(output, batch)[i], F.cross_entropy(output["logits"][i], batch["label"][i])
        )
        assert correct(output, batch)[i] == float(output["logits"][i].argmax() == batch["label"][i])
    assert correct({"logits": F.one_hot(batch["label"], 10)}, batch).tolist() == [1.0] * 7


@EVERY_LOSS
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_loss_sums_its_figures_over_the_real_items_in_float32(reduction, dtype):
    batch, output = make_batch(6, padding=2)
    output = {name: value.to(dtype) for name, value in output.items()}
    assert {value.dtype for value in reduction().per_item(output, batch)} == {torch.float32}
    total, count, kept = reduction().forward(batch, output)
    expected = plain_sums(reduction, batch, output)
    assert kept["totals"].tolist() == [pytest.approx([value, 4], rel=1e-6) for value in expected]
    assert (float(total.detach()), int(count)) == (pytest.approx(expected[0], rel=1e-6), 4)
    assert tuple(reduction().figures(kept["totals"])) == FIGURES[reduction]


@EVERY_LOSS
def test_every_loss_leads_to_the_real_items_of_the_outputs_that_it_is_of(reduction):
    batch, output = make_batch(6, padding=2)
    reduction().forward(batch, output)[0].backward()
    used = {MSELossReduction: ["reconstruction"], ClassifierLossReduction: ["logits"]}.get(reduction, list(output))
    assert [name for name, value in output.items() if value.grad is not None] == used
    for name in used:
        gradient = output[name].grad.flatten(1).any(dim=1)
        assert gradient.tolist() == [True] * 4 + [False] * 2
