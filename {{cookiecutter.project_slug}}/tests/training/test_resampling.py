"""The order of the items: a pure function of seed and position, whatever the dataset, and told to it."""

import pickle
import sys
from types import ModuleType
from typing import NamedTuple

import numpy as np
import pytest
import torch
from stand_ins import Batches, Numbers, assert_same
from torch.utils.data import DataLoader

from {{cookiecutter.__package_name}}.contracts.item import PADDING_IDX, DataError
from {{cookiecutter.__package_name}}.contracts.view import Section, collate
from {{cookiecutter.__package_name}}.training.resampling import (
    PaddedToMultiple,
    ShuffledEpochs,
    permutation,
    resample,
)

PINNED_SEED_0 = [3, 2, 1, 8, 6, 0, 7, 4, 5, 9, 7, 4, 5, 1, 9, 8, 6, 2, 0, 3, 0, 4, 6, 3, 9]
PINNED_SEED_1 = [9, 2, 4, 7, 5, 0, 8, 6, 3, 1]
PINNED_EPOCH_7 = [2205, 1697, 8298, 9341, 5699]


def fetched(view):
    return view.__getitems__(list(range(len(view))))


def idx_of(dataset, indices=None):
    return dataset.__getitems__(list(range(len(dataset)) if indices is None else indices))["idx"].tolist()


# Shuffled epochs


def test_every_epoch_holds_every_item_once_in_an_order_of_its_own():
    n = 1_000
    order = idx_of(ShuffledEpochs(Batches(n), 3 * n, seed=1))
    epochs = [tuple(order[start : start + n]) for start in range(0, 3 * n, n)]
    for epoch in epochs:
        assert sorted(epoch) == list(range(n))
    assert len(set(epochs)) == 3
    assert tuple(range(n)) not in epochs


def test_order_never_changes():
    """Pinned: a change here means that no earlier run can be resumed or repeated."""
    assert idx_of(ShuffledEpochs(Numbers(10), 25, seed=0)) == PINNED_SEED_0
    assert idx_of(ShuffledEpochs(Numbers(10), 10, seed=1)) == PINNED_SEED_1
    assert idx_of(ShuffledEpochs(Numbers(10_000), 80_000, seed=42), range(70_000, 70_005)) == PINNED_EPOCH_7


def test_sample_k_depends_on_nothing_but_k():
    def fresh():
        return ShuffledEpochs(Numbers(50), 220, seed=3)

    expected = fetched(fresh())
    shuffled = fresh()
    for k in np.random.default_rng(0).permutation(220).tolist():
        assert_same(shuffled[k], {key: value[k] for key, value in expected.items()})
    order = expected["idx"].tolist()
    assert idx_of(shuffled, range(219, -1, -1)) == order[::-1]
    for start in range(0, 220, 30):  # as a resumed run would ask
        assert idx_of(fresh(), range(start, 220)) == order[start:]
    assert_same(fetched(pickle.loads(pickle.dumps(shuffled))), expected)  # as a worker process would


def test_a_longer_run_begins_like_the_shorter_one():
    assert idx_of(ShuffledEpochs(Numbers(50), 500, seed=3))[:70] == idx_of(ShuffledEpochs(Numbers(50), 70, seed=3))


def test_a_batch_across_epochs_shuffles_each_of_them_once():
    permutation.cache_clear()
    shuffled = ShuffledEpochs(Numbers(50), 100, seed=3)
    for _ in range(3):
        shuffled.__getitems__([48, 49, 50, 51])
    assert permutation.cache_info().misses == 2
    with pytest.raises(ValueError, match="read-only"):
        permutation(50, 3, 0)[0] = 0


def test_seeds_differ():
    assert idx_of(ShuffledEpochs(Numbers(50), 50, seed=3)) != idx_of(ShuffledEpochs(Numbers(50), 50, seed=4))


# Padding


@pytest.mark.parametrize(("size", "multiple", "length"), [(10, 4, 12), (8, 4, 8), (1, 4, 4), (5, 1, 5), (3, 8, 8)])
def test_padding_fills_up_with_marked_copies_of_the_first_item(size, multiple, length):
    padded = PaddedToMultiple(Numbers(size), multiple)
    assert len(padded) == length
    batch, extra = fetched(padded), length - size
    assert batch["idx"].tolist() == list(range(size)) + [PADDING_IDX] * extra
    assert batch["value"][:, 0].tolist() == list(range(size)) + [0] * extra
    assert_same(batch, collate([padded[index] for index in range(length)]))


def test_padding_does_not_mark_the_real_items():
    padded = PaddedToMultiple(Section(Batches(10_000), 10, 15), 8)
    assert PADDING_IDX < 0
    assert padded[7]["idx"].item() == PADDING_IDX
    assert padded[0]["idx"].item() == 10
    assert idx_of(padded) == [10, 11, 12, 13, 14, PADDING_IDX, PADDING_IDX, PADDING_IDX]
    assert idx_of(padded.dataset) == [10, 11, 12, 13, 14]


@pytest.mark.parametrize("view", [ShuffledEpochs(Numbers(5), 7, seed=0), PaddedToMultiple(Numbers(5), 7)])
def test_positions_outside_are_refused(view):
    assert len(view) == len(idx_of(view)) == 7
    for index in (-1, 7):
        with pytest.raises(IndexError, match=f"index {index} is outside of 0 to 6"):
            view[index]


# What a random part of an item is given


@pytest.mark.parametrize("kind", [Numbers, Batches])
def test_the_dataset_is_given_the_runs_seed_and_the_epoch(kind):
    assert fetched(ShuffledEpochs(kind(10), 25, seed=7))["given"].tolist() == [[7, k // 10] for k in range(25)]
    assert fetched(PaddedToMultiple(kind(10), 4, seed=7))["given"].tolist() == [[7, 0]] * 12


@pytest.mark.parametrize("kind", [Numbers, Batches])
def test_of_a_section_the_epochs_of_the_shuffling_around_it_count(kind):
    shuffled = ShuffledEpochs(Section(kind(100), 90, 100), 25, seed=7)
    batch = fetched(shuffled)
    assert batch["given"].tolist() == [[7, k // 10] for k in range(25)]
    assert batch["value"][:, 0].tolist() == batch["idx"].tolist() == [90 + place for place in idx_of_plain(25, 7)]


def idx_of_plain(num_samples, seed):
    return idx_of(ShuffledEpochs(Numbers(10), num_samples, seed=seed))


# Batches


def test_a_data_loader_fetches_ready_batches(monkeypatch):
    monkeypatch.setattr(Batches, "__getitem__", lambda self, index: pytest.fail("fetched item by item"))
    shuffled = ShuffledEpochs(Batches(10_000), 100, seed=5)
    batches = list(DataLoader(shuffled, batch_size=32, collate_fn=collate))
    assert [len(batch["idx"]) for batch in batches] == [32, 32, 32, 4]
    assert torch.cat([batch["idx"] for batch in batches]).tolist() == idx_of(shuffled)


# The choice of resampling


def test_resampling_is_ours_by_default():
    assert isinstance(resample(Numbers(10), 25, seed=0), ShuffledEpochs)
    assert idx_of(resample(Numbers(10), 25, seed=0)) == PINNED_SEED_0


def test_there_must_be_something_to_sample_from():
    with pytest.raises(DataError, match=r"^there are no training items$"):
        resample(Numbers(0), 25, seed=0)


class EpochIndex(NamedTuple):
    epoch: int
    idx: int


class MultiEpochDatasetResampler:
    """Turned epochs, in place of bionemo-core's, which need not be installed."""

    def __init__(self, dataset, *, num_samples, seed):
        self.dataset, self.num_samples, self.seed = dataset, num_samples, seed

    def __getitem__(self, k):
        epoch, place = divmod(k, len(self.dataset))
        return self.dataset[EpochIndex(epoch, (place + self.seed + epoch) % len(self.dataset))]


class PRNGResampleDataset:
    """Every third item, likewise."""

    def __init__(self, dataset, *, seed, num_samples):
        self.dataset, self.seed, self.num_samples = dataset, seed, num_samples

    def __getitem__(self, k):
        return self.dataset[3 * (k + self.seed) % len(self.dataset)]


@pytest.fixture
def bionemo(monkeypatch):
    """A small bionemo-core, of the interface that is used."""
    modules = {
        "bionemo.core.data.multi_epoch_dataset": (EpochIndex, MultiEpochDatasetResampler),
        "bionemo.core.data.resamplers": (PRNGResampleDataset,),
    }
    for name in ("bionemo", "bionemo.core", "bionemo.core.data", *modules):
        module = ModuleType(name)
        for each in modules.get(name, ()):
            setattr(module, each.__name__, each)
        monkeypatch.setitem(sys.modules, name, module)


ORDERS = {
    "multi_epoch": lambda k: (k % 10 + 7 + k // 10) % 10,
    "prng": lambda k: 3 * (k + 7) % 10,
}


@pytest.mark.parametrize("kind", ORDERS)
@pytest.mark.parametrize("dataset", [Numbers, Batches])
def test_bionemos_orders_are_taken_over_with_their_epochs(dataset, kind, bionemo):
    view = resample(Section(dataset(100), 50, 60), 25, 7, kind)
    batch = fetched(view)
    assert len(view) == 25
    assert batch["idx"].tolist() == batch["value"][:, 0].tolist() == [50 + ORDERS[kind](k) for k in range(25)]
    assert batch["given"].tolist() == [[7, k // 10] for k in range(25)]
    assert [view[k]["idx"].item() for k in (24, 3, 12)] == [50 + ORDERS[kind](k) for k in (24, 3, 12)]
    with pytest.raises(IndexError, match="index 25 is outside of 0 to 24"):
        view[25]


@pytest.mark.parametrize("kind", ["multi_epoch", "prng"])
def test_bionemos_own_resamplers(kind):
    pytest.importorskip("bionemo.core", reason="bionemo-core is an extra")
    n, num_samples = 100, 250
    part = Section(Batches(10_000), 0, n)

    def order(seed):
        batches = list(DataLoader(resample(part, num_samples, seed, kind), batch_size=32, collate_fn=collate))
        given = torch.cat([batch["given"] for batch in batches])
        assert given.tolist() == [[seed, k // n] for k in range(num_samples)]
        return torch.cat([batch["idx"] for batch in batches]).tolist()

    first = order(seed=1)
    assert len(first) == num_samples
    assert first == order(seed=1)
    assert first != order(seed=2)
    samples = resample(part, num_samples, 1, kind)
    assert [samples[k]["idx"].item() for k in (249, 3, 120)] == [first[k] for k in (249, 3, 120)]
    is_permutation = sorted(first[:n]) == sorted(first[n : 2 * n]) == list(range(n))
    assert is_permutation == (kind == "multi_epoch"), "prng draws with replacement"


@pytest.mark.parametrize("kind", ["multi_epoch", "prng"])
def test_a_bionemo_that_is_missing_is_told(monkeypatch, kind):
    for module in ("multi_epoch_dataset", "resamplers"):
        monkeypatch.setitem(sys.modules, f"bionemo.core.data.{module}", None)
    with pytest.raises(DataError) as caught:
        resample(Numbers(10), 25, seed=0, kind=kind)
    command = 'pip install "{{ cookiecutter.project_slug }}[bionemo]"'
    assert str(caught.value) == f"resampling {kind!r} needs bionemo-core: {command}"
