"""Losses: sums and counts, exact over micro batches and ranks whatever each of them counts."""

import math

import pytest
import torch
from stand_ins import assert_same

from {{cookiecutter.__package_name}}.contracts import loss as room
from {{cookiecutter.__package_name}}.contracts.errors import UserError
from {{cookiecutter.__package_name}}.contracts.item import PADDING_IDX
from {{cookiecutter.__package_name}}.contracts.loss import Counted, ItemLossReduction, LossReduction

LENGTH = 5


class OfItems(ItemLossReduction):
    """The squared error of each item's first position, and whether it is small."""

    names = ("loss", "small")

    def per_item(self, output, batch):
        error = (output["answer"][:, 0].float() - batch["truth"][:, 0]) ** 2
        return error, (error < 1).float()


class OfPositions(LossReduction):
    """The squared error of the positions that are asked for, and how many of the positive ones are small."""

    names = ("loss", "small")
    unit = "positions"
    derived = {"growth": lambda means: means["loss"].exp(), "odds": lambda means: means["small"] / means["loss"]}  # noqa: RUF012

    def counted(self, output, batch):
        error = (output["answer"].float() - batch["truth"]) ** 2
        positive = batch["is_asked"] & (batch["truth"] > 0)
        return Counted(error, batch["is_asked"]), Counted((error < 1).float(), positive)


EVERY_KIND = pytest.mark.parametrize("kind", [OfItems, OfPositions])


def make_batch(size=8, padding=0, seed=0, share=0.5):
    """Make a batch whose last items are padding, of which a share of the positions is asked for, and an output."""
    random = torch.Generator().manual_seed(seed)
    idx = torch.arange(size)
    idx[size - padding :] = PADDING_IDX
    truth = torch.randn(size, LENGTH, generator=random)
    batch = {"idx": idx, "truth": truth, "is_asked": torch.rand(size, LENGTH, generator=random) < share}
    return batch, {"answer": torch.randn(size, LENGTH, generator=random, requires_grad=True)}


def plain_totals(kind, batch, output):
    """Return [sum, count] of each name, one number after the other."""
    totals = [[0.0, 0], [0.0, 0]]
    answer, truth = output["answer"].tolist(), batch["truth"].tolist()
    for i, idx in enumerate(batch["idx"].tolist()):
        for k in range(LENGTH):
            is_asked = k == 0 if kind is OfItems else bool(batch["is_asked"][i, k])
            if idx >= 0 and is_asked:
                error = (answer[i][k] - truth[i][k]) ** 2
                totals[0] = [totals[0][0] + error, totals[0][1] + 1]
                if kind is OfItems or truth[i][k] > 0:
                    totals[1] = [totals[1][0] + (error < 1), totals[1][1] + 1]
    return totals


def approximately(totals):
    return [pytest.approx(pair, rel=1e-5) for pair in totals]


@EVERY_KIND
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_micro_batch_gives_sums_and_counts_of_what_counts_in_every_precision(kind, dtype):
    batch, output = make_batch(padding=3)
    output = {"answer": output["answer"].to(dtype)}
    total, count, kept = kind().forward(batch, output)
    expected = plain_totals(kind, batch, output)
    assert kept.keys() == {"totals"}
    assert kept["totals"].tolist() == approximately(expected)
    assert [float(total.detach()), int(count)] == pytest.approx(expected[0], rel=1e-5)
    assert [(value.dtype, value.shape) for value in (total, count)] == [(torch.float32, ()), (torch.int32, ())]
    assert kept["totals"].dtype == torch.float64 and not kept["totals"].requires_grad
    assert total.requires_grad and not count.requires_grad


@EVERY_KIND
def test_the_minimised_sum_leads_to_what_counts_and_not_to_padding(kind):
    batch, output = make_batch(padding=3)
    kind().forward(batch, output)[0].backward()
    counts = batch["is_asked"] if kind is OfPositions else (torch.arange(LENGTH) == 0).expand(8, LENGTH)
    assert torch.equal(output["answer"].grad != 0, counts & (batch["idx"] >= 0).unsqueeze(1))


@EVERY_KIND
def test_a_micro_batch_of_nothing_but_padding_counts_for_nothing(kind):
    batch, output = make_batch(padding=8)
    total, count, kept = kind().forward(batch, output)
    assert (float(total.detach()), int(count), kept["totals"].tolist()) == (0, 0, [[0, 0], [0, 0]])
    total.backward()
    assert not output["answer"].grad.any()


@EVERY_KIND
def test_what_does_not_count_adds_nothing_even_if_it_is_not_finite(kind):
    batch, output = make_batch(padding=3)
    right = kind().forward(batch, output)[2]
    counts = batch["is_asked"] & (batch["idx"] >= 0).unsqueeze(1)
    if kind is OfItems:
        counts[:, 0] = batch["idx"] >= 0
    for broken in (math.nan, math.inf):
        spoilt = {"answer": output["answer"].where(counts, broken)}
        assert_same(kind().forward(batch, spoilt)[2], right)


def test_changing_the_loss_in_place_as_megatron_may_leaves_the_totals_alone():
    total, count, kept = OfItems().forward(*make_batch())
    before = kept["totals"].clone()
    total *= 4
    count *= 4
    assert torch.equal(kept["totals"], before)


PARTS = [
    {"seed": 1, "share": 0.9},
    {"seed": 2, "share": 0.05},
    {"seed": 3, "padding": 7},
    {"seed": 4, "padding": 8},
    {"seed": 5, "padding": 2, "share": 0.0},
]


def joined(parts):
    """Return the parts as one batch and output."""
    return [{key: torch.cat([part[which][key] for part in parts]) for key in parts[0][which]} for which in (0, 1)]


def means_of(totals):
    return [total / max(count, 1) for total, count in totals]


@EVERY_KIND
def test_over_micro_batches_of_uneven_counts_a_mean_is_sum_over_count(kind, megatron):
    parts = [make_batch(**part) for part in PARTS]
    kept = [kind().forward(*part)[2] for part in parts]
    reduced = kind().reduce(kept)
    expected = plain_totals(kind, *joined(parts))
    assert reduced["totals"].tolist() == approximately(expected)
    assert reduced["totals"].dtype == torch.float64
    assert (reduced["loss"].dtype, reduced["loss"].shape) == (torch.float32, ())
    assert float(reduced["loss"]) == pytest.approx(means_of(expected)[0], rel=1e-5)
    of_means = sum(means_of(part["totals"].tolist())[0] for part in kept) / len(parts)
    assert abs(float(reduced["loss"]) - of_means) > 0.1, "or else this would show nothing"


@EVERY_KIND
def test_over_ranks_sums_and_counts_are_added_before_they_are_divided(kind, megatron, monkeypatch):
    here, there = make_batch(**PARTS[0]), make_batch(**PARTS[2])
    mine, others = kind().forward(*here)[2], kind().forward(*there)[2]

    class Pair:
        def size(self):
            return 2

    def add_the_other_rank(totals, group):
        assert isinstance(group, Pair)
        totals += others["totals"]

    monkeypatch.setattr(room.parallel_state, "get_data_parallel_group", lambda with_context_parallel: Pair())
    monkeypatch.setattr(torch.distributed, "all_reduce", add_the_other_rank)
    before = mine["totals"].clone()
    reduced = kind().reduce([mine])
    expected = plain_totals(kind, *joined([here, there]))
    assert reduced["totals"].tolist() == approximately(expected)
    assert float(reduced["loss"]) == pytest.approx(means_of(expected)[0], rel=1e-5)
    assert torch.equal(mine["totals"], before)


def test_figures_are_the_means_by_name_and_what_is_derived_from_them():
    totals = torch.tensor([[6.0, 4.0], [3.0, 4.0]], dtype=torch.float64)
    figures = OfPositions().figures(totals)
    assert {name: float(value) for name, value in figures.items()} == pytest.approx(
        {"loss": 1.5, "small": 0.75, "growth": math.exp(1.5), "odds": 0.5}
    )
    assert list(figures) == ["loss", "small", "growth", "odds"]
    assert {value.dtype for value in figures.values()} == {torch.float32}
    nothing = OfItems().figures(torch.zeros(2, 2, dtype=torch.float64))
    assert list(nothing) == ["loss", "small"] and all(value.isnan() for value in nothing.values())


# What a person is told


@pytest.mark.parametrize(
    ("values", "gave"),
    [
        ((torch.ones(()), torch.ones(4)), r"\[\(\), \(4,\)\]"),  # a mean
        ((torch.ones(4, 1), torch.ones(4)), r"\[\(4, 1\), \(4,\)\]"),
        ((torch.ones(4),), r"\[\(4,\)\]"),
        (torch.ones(2, 4), "Tensor"),
    ],
)
def test_a_loss_of_items_that_gives_no_value_for_each_item_is_told(values, gave):
    class Wrong(OfItems):
        def per_item(self, output, batch):
            return values

    line = rf"^model/losses\.py: Wrong\.per_item gave {gave}, not a tuple with .* of shape \(4,\).* for each of .*small"
    with pytest.raises(UserError, match=line):
        Wrong().forward(*make_batch(4))


VALUES, WHERE = torch.ones(4, LENGTH), torch.ones(4, LENGTH, dtype=torch.bool)
RIGHT = Counted(VALUES, WHERE)


@pytest.mark.parametrize(
    ("given", "gave"),
    [
        ((RIGHT,), r"\['\(float32 \(4, 5\), bool \(4, 5\)\)'\]"),
        ((RIGHT, RIGHT, RIGHT), r"\['\(float32 \(4, 5\).*"),
        ((RIGHT, Counted(VALUES, WHERE[:, 0])), r"\[.*, '\(float32 \(4, 5\), bool \(4,\)\)'\]"),
        ((RIGHT, Counted(VALUES[:2], WHERE[:2])), r"\[.*, '\(float32 \(2, 5\), bool \(2, 5\)\)'\]"),
        ((RIGHT, Counted(VALUES.mean(), WHERE.all())), r"\[.*, '\(float32 \(\), bool \(\)\)'\]"),
        ((RIGHT, Counted(VALUES, VALUES)), r"\[.*, '\(float32 \(4, 5\), float32 \(4, 5\)\)'\]"),
        ((RIGHT, VALUES), r"\[.*, 'Tensor'\]"),
        ((RIGHT, Counted(VALUES, None)), r"\[.*, '\(float32 \(4, 5\), NoneType\)'\]"),
        ((RIGHT, Counted(1.0, WHERE)), r"\[.*, '\(float, bool \(4, 5\)\)'\]"),
        ((RIGHT, (VALUES, WHERE)), r"\[.*, 'tuple'\]"),
        (RIGHT, r"\['Tensor', 'Tensor'\]"),
        (VALUES, "Tensor"),
    ],
)
def test_a_loss_that_does_not_say_what_counts_is_told(given, gave):
    class Wrong(OfPositions):
        def counted(self, output, batch):
            return given

    line = rf"^model/losses\.py: Wrong\.counted gave {gave}, not for each of .*small.* of one shape \(4, \.\.\.\)$"
    with pytest.raises(UserError, match=line):
        Wrong().forward(*make_batch(4))


@pytest.mark.parametrize("where", ["output", "batch"])
def test_a_loss_that_wants_what_is_not_there_is_told(where):
    class Wrong(OfItems):
        def per_item(self, output, batch):
            return {"output": output, "batch": batch}[where]["quantiles"]

    line = (
        r"^model/losses\.py: Wrong wants 'quantiles'; the network gives answer, and an item has idx, truth, is_asked$"
    )
    with pytest.raises(UserError, match=line):
        Wrong().forward(*make_batch(4))


def test_a_missing_key_of_the_losss_own_is_no_lack_of_outputs():
    class Wrong(OfItems):
        def per_item(self, output, batch):
            return {}["answer"]

    with pytest.raises(KeyError, match="answer"):
        Wrong().forward(*make_batch(4))


def test_a_loss_that_would_teach_nothing_is_told_in_training_only():
    class Detached(OfPositions):
        def counted(self, output, batch):
            error, small = super().counted(output, batch)
            return Counted(error.values.detach(), error.where), small

    with torch.no_grad():
        Detached().forward(*make_batch(4))
    batch, output = make_batch(4)
    Detached().forward(batch, {name: value.detach() for name, value in output.items()})  # as a test of a loss may
    with pytest.raises(UserError, match=r"^model/losses\.py: Detached gives a loss that is detached from the network"):
        Detached().forward(*make_batch(4))


@pytest.mark.parametrize("kind", [LossReduction, ItemLossReduction])
def test_a_loss_must_say_what_it_is(kind):
    with pytest.raises(NotImplementedError):
        kind().forward(*make_batch(4))
