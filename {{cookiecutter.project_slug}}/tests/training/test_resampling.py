"""The order of the items: a pure function of seed and position, whatever the dataset."""

import pickle
import sys

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from {{cookiecutter.__package_name}}.data.item import PADDING_IDX, DataError
from {{cookiecutter.__package_name}}.data.resampling import (
    PaddedToMultiple,
    Section,
    ShuffledEpochs,
    collate,
    permutation,
    resample,
    split_validation,
)

PINNED_SEED_0 = [3, 2, 1, 8, 6, 0, 7, 4, 5, 9, 7, 4, 5, 1, 9, 8, 6, 2, 0, 3, 0, 4, 6, 3, 9]
PINNED_SEED_1 = [9, 2, 4, 7, 5, 0, 8, 6, 3, 1]
PINNED_EPOCH_7 = [2205, 1697, 8298, 9341, 5699]


class Numbers:
    """A dataset of somebody else's: one item at a time, no `__getitems__`; item i holds i everywhere."""

    def __init__(self, size):
        self.size = size

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        assert type(index) is int
        return {"data": torch.full((1, 2, 2), float(index)), "label": torch.tensor(index), "idx": torch.tensor(index)}


class Batches(Numbers):
    """The same numbers from a dataset that also gives ready batches."""

    def __getitems__(self, indices):
        idx = torch.tensor(indices)
        return {"data": idx.float().view(-1, 1, 1, 1).expand(-1, 1, 2, 2), "label": idx.clone(), "idx": idx}


def assert_same(a, b):
    """Equal keys, dtypes, shapes and bits."""
    assert a.keys() == b.keys()
    for key in a:
        assert a[key].dtype == b[key].dtype, key
        assert torch.equal(a[key], b[key]), key


def idx_of(dataset, indices=None):
    return dataset.__getitems__(list(range(len(dataset)) if indices is None else indices))["idx"].tolist()


# Shuffled epochs


def test_every_epoch_holds_every_item_once_in_an_order_of_its_own():
    n = 1_000
    order = idx_of(ShuffledEpochs(Numbers(n), num_samples=3 * n, seed=1))
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
        return ShuffledEpochs(Numbers(50), num_samples=220, seed=3)

    expected = idx_of(fresh())
    shuffled = fresh()
    for k in np.random.default_rng(0).permutation(220).tolist():
        assert shuffled[k]["idx"].item() == expected[k]
    backwards = list(range(219, -1, -1))
    assert idx_of(shuffled, backwards) == expected[::-1]
    for start in range(0, 220, 30):  # as a resumed run would ask
        assert idx_of(fresh(), range(start, 220)) == expected[start:]
    assert idx_of(pickle.loads(pickle.dumps(shuffled))) == expected  # as a worker process would


def test_longer_run_begins_like_the_shorter_one():
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


def test_shuffled_batch_is_the_items():
    shuffled = ShuffledEpochs(Batches(10_000), num_samples=30_000, seed=0)
    indices = [0, 9_999, 10_000, 25_000, 5]
    batch = shuffled.__getitems__(indices)
    assert_same(batch, collate([shuffled[k] for k in indices]))
    assert_same(batch, Batches(10_000).__getitems__(batch["idx"].tolist()))


def test_shuffling_refuses_nonsense():
    with pytest.raises(ValueError, match="0 items"):
        ShuffledEpochs(Numbers(0), 10, seed=0)
    with pytest.raises(ValueError, match="seed -1"):
        ShuffledEpochs(Numbers(5), 10, seed=-1)


# Sections, padding, bounds


@pytest.mark.parametrize("validation_size", [0, 1, 3, 9])
def test_split_is_disjoint_and_complete(validation_size):
    train, validation = split_validation(Numbers(10), validation_size)
    assert idx_of(train) == list(range(10 - validation_size))
    assert idx_of(validation) == list(range(10 - validation_size, 10)) if validation_size else len(validation) == 0


def test_split_keeps_positions_of_the_file():
    _, validation = split_validation(Batches(10_000), 1_000)
    assert_same(validation[0], Batches(10_000)[9_000])
    assert_same(validation.__getitems__([0, 999]), Batches(10_000).__getitems__([9_000, 9_999]))
    assert sorted(idx_of(ShuffledEpochs(validation, 1_000, seed=0))) == list(range(9_000, 10_000))


def test_split_refuses_nonsense():
    for validation_size in (-1, 10, 11):
        with pytest.raises(ValueError, match=f"validation_size is {validation_size}, and must be from 0 to 9"):
            split_validation(Numbers(10), validation_size)
    for start, stop in ((-1, 5), (5, 11), (6, 5)):
        with pytest.raises(ValueError, match=f"from {start} to {stop}"):
            Section(Numbers(10), start, stop)


@pytest.mark.parametrize(("size", "multiple", "length"), [(10, 4, 12), (8, 4, 8), (1, 4, 4), (5, 1, 5), (3, 8, 8)])
def test_padding_fills_up_with_marked_items(size, multiple, length):
    padded = PaddedToMultiple(Numbers(size), multiple)
    batch = padded.__getitems__(list(range(length)))
    assert len(padded) == length
    assert batch["idx"].tolist() == list(range(size)) + [PADDING_IDX] * (length - size)
    assert batch["label"].tolist() == list(range(size)) + [0] * (length - size)
    assert batch["data"][:, 0, 0, 0].tolist() == list(range(size)) + [0] * (length - size)
    assert_same(batch, collate([padded[index] for index in range(length)]))


def test_padding_does_not_mark_the_real_items():
    padded = PaddedToMultiple(Section(Batches(10_000), 0, 5), 8)
    assert PADDING_IDX < 0
    assert padded[7]["idx"].item() == PADDING_IDX
    assert padded[0]["idx"].item() == 0
    assert idx_of(padded) == [0, 1, 2, 3, 4, PADDING_IDX, PADDING_IDX, PADDING_IDX]
    assert idx_of(padded.dataset) == [0, 1, 2, 3, 4]


def test_padding_refuses_nonsense():
    with pytest.raises(ValueError, match="multiple of 0"):
        PaddedToMultiple(Numbers(10), 0)


@pytest.mark.parametrize(
    "view",
    [Section(Numbers(20), 5, 12), ShuffledEpochs(Numbers(5), 7, seed=0), PaddedToMultiple(Numbers(5), 7)],
    ids=lambda view: type(view).__name__,
)
def test_views_refuse_positions_outside(view):
    assert len(view) == len(idx_of(view)) == 7
    for index in (-1, 7):
        with pytest.raises(IndexError, match=f"index {index} is outside of 0 to 6"):
            view[index]
        with pytest.raises(IndexError, match=f"index {index} is outside of 0 to 6"):
            view.__getitems__([0, index])


# Batches


def test_collate_passes_a_ready_batch_and_stacks_items():
    batch = Batches(10_000).__getitems__([1, 2])
    assert collate(batch) is batch
    assert_same(collate([Batches(10_000)[1], Batches(10_000)[2]]), batch)


def test_data_loader_fetches_ready_batches(monkeypatch):
    monkeypatch.setattr(Batches, "__getitem__", lambda self, index: pytest.fail("fetched item by item"))
    shuffled = ShuffledEpochs(Batches(10_000), num_samples=100, seed=5)
    batches = list(DataLoader(shuffled, batch_size=32, collate_fn=collate))
    assert [len(batch["idx"]) for batch in batches] == [32, 32, 32, 4]
    assert torch.cat([batch["idx"] for batch in batches]).tolist() == idx_of(shuffled)


# The choice of resampling


def test_resample_is_ours_by_default():
    assert isinstance(resample(Numbers(10), 25, seed=0), ShuffledEpochs)
    assert idx_of(resample(Numbers(10), 25, seed=0)) == PINNED_SEED_0


def test_resample_refuses_other_kinds():
    with pytest.raises(ValueError, match="'bootstrap', and must be epochs, multi_epoch or prng"):
        resample(Numbers(10), 25, seed=0, kind="bootstrap")


@pytest.mark.parametrize("kind", ["multi_epoch", "prng"])
def test_bionemo_resamplers(kind):
    pytest.importorskip("bionemo.core")
    n, num_samples = 100, 250
    part = Section(Batches(10_000), 0, n)

    def order(seed):
        loader = DataLoader(resample(part, num_samples, seed, kind), batch_size=32, collate_fn=collate)
        batches = list(loader)
        for batch in batches:
            assert_same(batch, Batches(10_000).__getitems__(batch["idx"].tolist()))
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
def test_bionemo_missing(monkeypatch, kind):
    for module in ("multi_epoch_dataset", "resamplers"):
        monkeypatch.setitem(sys.modules, f"bionemo.core.data.{module}", None)
    with pytest.raises(DataError) as caught:
        resample(Numbers(10), 25, seed=0, kind=kind)
    command = 'pip install "{{cookiecutter.project_slug}}[bionemo]"'
    assert str(caught.value).endswith(f"{kind!r} needs bionemo-core: {command}")
