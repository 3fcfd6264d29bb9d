"""The losses: per item what plain torch computes, and over micro batches and ranks the plain mean of the real items."""

import pytest
import torch
import torch.nn.functional as F
from megatron.core import parallel_state

from {{cookiecutter.__package_name}}.data.item import PADDING_IDX, SameSizeLossDict
from {{cookiecutter.__package_name}}.errors import UserError
from {{cookiecutter.__package_name}}.losses import (
    ClassifierLossReduction,
    MSELossReduction,
    MSEPlusClassifierLossReduction,
    PassthroughReduction,
    correct,
    cross_entropy,
    squared_error,
)
from {{cookiecutter.__package_name}}.names import ACCURACY, COUNT, LOSS

REDUCTIONS = [MSELossReduction, ClassifierLossReduction, MSEPlusClassifierLossReduction]
EVERY_LOSS = pytest.mark.parametrize("reduction", REDUCTIONS)


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


def plain_losses(batch, output):
    """Return (squared error, cross entropy, share of right answers) over the real items, one item after the other."""
    real = [i for i, idx in enumerate(batch["idx"].tolist()) if idx >= 0]
    pictures, scores = output["reconstruction"].detach().double(), output["logits"].detach().double()
    error = sum(((pictures[i] - batch["data"][i].double()) ** 2).mean() for i in real) / len(real)
    entropy = -sum(scores[i].log_softmax(0)[batch["label"][i]] for i in real) / len(real)
    right = sum(int(scores[i].argmax()) == int(batch["label"][i]) for i in real) / len(real)
    return float(error), float(entropy), right


def expected_of(reduction, batch, output):
    error, entropy, right = plain_losses(batch, output)
    return {
        MSELossReduction: {LOSS: error},
        ClassifierLossReduction: {LOSS: entropy, ACCURACY: right},
        MSEPlusClassifierLossReduction: {LOSS: error + entropy, ACCURACY: right},
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
def test_losses_are_computed_in_float32_in_every_precision(reduction, dtype):
    batch, output = make_batch(4)
    output = {name: value.to(dtype) for name, value in output.items()}
    loss, kept = reduction().forward(batch, output)
    assert {loss.dtype, *(value.dtype for value in kept.values())} == {torch.float32}
    assert float(loss.detach()) == pytest.approx(expected_of(reduction, batch, output)[LOSS], abs=1e-6)


@EVERY_LOSS
def test_what_is_kept_of_a_micro_batch_has_the_agreed_keys(reduction):
    loss, kept = reduction().forward(*make_batch(4))
    assert set(kept) == set(SameSizeLossDict.__annotations__)
    assert loss.shape == kept["avg"].shape == ()
    assert kept["totals"].shape == (len(reduction.names) + 1,)
    assert not any(value.requires_grad for value in kept.values())


@EVERY_LOSS
def test_dividing_the_loss_in_place_as_megatron_does_leaves_the_logged_values_alone(reduction):
    loss, kept = reduction().forward(*make_batch(4))
    before = {name: value.clone() for name, value in kept.items()}
    loss /= 4
    assert all(torch.equal(kept[name], before[name]) for name in kept)
    torch.testing.assert_close(kept["avg"], 4 * loss.detach())


@EVERY_LOSS
def test_the_minimised_loss_is_the_mean_over_the_real_items(reduction):
    batch, output = make_batch(6, padding=2)
    loss, kept = reduction().forward(batch, output)
    assert float(loss.detach()) == pytest.approx(expected_of(reduction, batch, output)[LOSS], abs=1e-6)
    loss.backward()
    for value in output.values():
        if value.grad is not None:
            assert value.grad[:4].any() and not value.grad[4:].any()
    assert kept["totals"][-1] == 4


def test_a_micro_batch_of_nothing_but_padding_counts_for_nothing():
    loss, kept = MSELossReduction().forward(*make_batch(3, padding=3))
    assert float(loss.detach()) == 0
    assert kept["totals"].tolist() == [0, 0]


@EVERY_LOSS
def test_over_micro_batches_the_reported_values_are_the_plain_means_over_all_real_items(reduction, megatron):
    parts = [make_batch(8, padding, seed) for seed, padding in enumerate([0, 0, 0, 5, 8])]
    whole_batch = {key: torch.cat([batch[key] for batch, _ in parts]) for key in parts[0][0]}
    whole_output = {key: torch.cat([output[key] for _, output in parts]) for key in parts[0][1]}
    kept = [reduction().forward(batch, output)[1] for batch, output in parts]
    reported = reduction().reduce(kept)
    assert all(value.dtype == torch.float32 and value.shape == () for value in reported.values())
    expected = {**expected_of(reduction, whole_batch, whole_output), COUNT: 27}
    assert {name: float(value) for name, value in reported.items()} == pytest.approx(expected, abs=1e-6)
    assert tuple(reported) == reduction().result_names


@EVERY_LOSS
def test_over_ranks_sums_and_counts_are_added_before_they_are_divided(reduction, megatron, monkeypatch):
    here, there = make_batch(8, 0, seed=1), make_batch(8, 6, seed=2)
    [_, mine], [_, others] = reduction().forward(*here), reduction().forward(*there)

    class Pair:
        def size(self):
            return 2

    def add_the_other_rank(totals, group):
        assert isinstance(group, Pair)
        totals += others["totals"]

    monkeypatch.setattr(parallel_state, "get_data_parallel_group", lambda with_context_parallel: Pair())
    monkeypatch.setattr(torch.distributed, "all_reduce", add_the_other_rank)
    reported = reduction().reduce([mine])
    batch = {key: torch.cat([here[0][key], there[0][key]]) for key in here[0]}
    output = {key: torch.cat([here[1][key], there[1][key]]) for key in here[1]}
    expected = {**expected_of(reduction, batch, output), COUNT: 10}
    assert {name: float(value) for name, value in reported.items()} == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("values", "gave"),
    [
        ((torch.ones(()), torch.ones(4)), r"\[\(\), \(4,\)\]"),  # a mean
        ((torch.ones(4, 1), torch.ones(4)), r"\[\(4, 1\), \(4,\)\]"),
        ((torch.ones(4),), r"\[\(4,\)\]"),
        (torch.ones(2, 4), "Tensor"),
    ],
)
def test_a_loss_that_gives_no_value_for_each_item_is_the_users_to_mend(values, gave):
    class Wrong(ClassifierLossReduction):
        def per_item(self, output, batch):
            return values

    with pytest.raises(UserError, match=rf"losses.py: Wrong.per_item gave {gave}, not a tuple with .* of shape \(4,\)"):
        Wrong().forward(*make_batch(4))


def test_a_loss_that_wants_what_is_not_there_is_told():
    class Wrong(ClassifierLossReduction):
        def per_item(self, output, batch):
            return (output["quantiles"],)

    with pytest.raises(UserError, match=r"losses.py: Wrong.per_item wants 'quantiles'; the network gives latent, and"):
        Wrong().forward({"idx": torch.arange(4)}, {"latent": torch.zeros(4)})


def test_prediction_passes_every_item_through_in_order():
    parts = [make_batch(3, seed=1), make_batch(2, padding=1, seed=2)]
    kept = [PassthroughReduction().forward(batch, {"logits": output["logits"]})[1] for batch, output in parts]
    joined = PassthroughReduction().reduce(kept)
    assert set(joined) == {"logits", "label", "idx"}
    assert joined["idx"].tolist() == [0, 1, 2, 0, PADDING_IDX]
    assert torch.equal(joined["logits"], torch.cat([output["logits"] for _, output in parts]))
    assert torch.equal(joined["label"], torch.cat([batch["label"] for batch, _ in parts]))


def test_prediction_keeps_what_the_items_themselves_say():
    batch, output = make_batch(3)
    kept = PassthroughReduction().forward({**batch, "volts": torch.arange(3.0)}, output)[1]
    assert set(kept) == {*output, "label", "idx", "true_volts"}
    assert kept["true_volts"].tolist() == [0, 1, 2]
