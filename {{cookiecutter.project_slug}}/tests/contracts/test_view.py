"""Views: what a section shows, what a dataset is asked, and batches made of what it gives."""

import numpy as np
import pytest
import torch
from stand_ins import Batches, Numbers, assert_same

from {{cookiecutter.__package_name}}.contracts.item import DataError, Index, Indices
from {{cookiecutter.__package_name}}.contracts.view import Section, View, collate, innermost, split_validation

BOTH = pytest.mark.parametrize("kind", [Numbers, Batches])


def idx_of(view):
    return view.__getitems__(list(range(len(view))))["idx"].tolist()


class Turned(View):
    """A dataset from its end, of which each item is in an epoch of its own."""

    def places(self, index):
        return len(self.dataset) - 1 - index, index + 1


def test_the_innermost_of_views_is_no_view():
    numbers = Numbers(10)
    assert innermost(numbers) is innermost(Turned(Section(numbers, 2, 8), 3)) is numbers


# What a dataset is asked


def test_a_dataset_of_single_items_is_asked_by_an_index_that_knows_seed_and_epoch():
    asked = []

    class Asked(Numbers):
        def __getitem__(self, index):
            asked.append((type(index), index, index.seed, index.epoch))
            return super().__getitem__(index)

    Turned(Asked(10), 10, seed=5).__getitems__([0, 2])
    assert asked == [(Index, 9, 5, 1), (Index, 7, 5, 3)]


def test_a_dataset_of_batches_is_asked_once_by_plain_positions_with_seed_and_epochs(monkeypatch):
    asked = []

    class Asked(Batches):
        def __getitems__(self, indices):
            asked.append(indices)
            return super().__getitems__(indices)

    monkeypatch.setattr(Asked, "__getitem__", lambda self, index: pytest.fail("asked item by item"))
    Turned(Asked(10), 10, seed=5).__getitems__([0, 2])
    [indices] = asked
    assert type(indices) is Indices and {type(position) for position in indices} == {int}
    assert (indices, indices.seed, indices.epochs) == ([9, 7], 5, [1, 3])


@BOTH
def test_an_item_is_a_batch_of_itself(kind):
    view = Turned(kind(10), 10, seed=5)
    indices = [3, 0, 3, 9]
    assert_same(view.__getitems__(indices), collate([view[index] for index in indices]))
    assert view.__getitems__(indices)["given"].tolist() == [[5, index + 1] for index in indices]


@BOTH
def test_idx_is_the_position_whatever_the_dataset_says(kind, monkeypatch):
    monkeypatch.setattr(kind, "__getitem__", lambda self, index: {"idx": torch.tensor(-1)})
    monkeypatch.setattr(Batches, "__getitems__", lambda self, indices: {"idx": torch.tensor([-1] * len(indices))})
    batch = Turned(kind(10), 10).__getitems__([1, 2])
    assert_same(batch, {"idx": torch.tensor([8, 7])})


@BOTH
def test_of_views_in_views_the_outer_one_says_seed_and_epoch(kind):
    outer = Turned(Section(Section(kind(30), 10, 30), 5, 15), 10, seed=5)
    batch = outer.__getitems__([0, 9])
    assert batch["idx"].tolist() == batch["value"][:, 0].tolist() == [24, 15]
    assert batch["given"].tolist() == [[5, 1], [5, 10]]


def test_a_view_must_say_its_order():
    with pytest.raises(NotImplementedError):
        View(Numbers(3), 3)[0]


# Sections


@BOTH
def test_a_section_keeps_the_positions_of_the_whole_and_is_of_epoch_and_seed_zero(kind):
    section = Section(kind(20), 5, 12)
    assert len(section) == 7
    batch = section.__getitems__([0, 6])
    assert batch["idx"].tolist() == batch["value"][:, 0].tolist() == [5, 11]
    assert batch["given"].tolist() == [[0, 0], [0, 0]]


def test_a_section_refuses_positions_outside():
    section = Section(Numbers(20), 5, 12)
    for index in (-1, 7):
        with pytest.raises(IndexError, match=f"index {index} is outside of 0 to 6"):
            section[index]
        with pytest.raises(IndexError, match=f"index {index} is outside of 0 to 6"):
            section.__getitems__([0, index])


@pytest.mark.parametrize(("start", "stop"), [(-1, 5), (5, 11), (6, 5)])
def test_a_section_that_there_is_not_is_refused(start, stop):
    with pytest.raises(ValueError, match=f"a dataset of 10 items has no section from {start} to {stop}"):
        Section(Numbers(10), start, stop)


@pytest.mark.parametrize("validation_size", [1, 3, 9])
def test_a_split_is_disjoint_and_complete(validation_size):
    train, validation = split_validation(Numbers(10), validation_size)
    assert idx_of(train) == list(range(10 - validation_size))
    assert idx_of(validation) == list(range(10 - validation_size, 10))


@pytest.mark.parametrize("size", [0, 1])
def test_a_dataset_that_is_too_small_to_be_split_is_refused(size):
    with pytest.raises(DataError) as caught:
        split_validation(Numbers(size), 1)
    assert str(caught.value).startswith(f"{size} training items are too few: give at least 2")


@pytest.mark.parametrize("validation_size", [-1, 0, 10, 11])
def test_a_split_that_leaves_a_part_empty_is_refused(validation_size):
    with pytest.raises(DataError) as caught:
        split_validation(Numbers(10), validation_size)
    rule = f"--data.validation_size {validation_size} must be from 1 to 9: there are 10 training items"
    assert str(caught.value) == rule


# Batches


def test_collate_passes_a_ready_batch_and_stacks_items():
    batch = {"a": torch.arange(2)}
    assert collate(batch) is batch
    stacked = collate([{"a": torch.arange(2), "b": np.float32(1)}, {"a": torch.arange(2), "b": np.float32(2)}])
    assert_same(stacked, {"a": torch.tensor([[0, 1], [0, 1]]), "b": torch.tensor([1.0, 2.0])})


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ([(1, 2)], r"^the dataset gives a tuple; model/item\.py says a dict$"),
        (torch.zeros(2), r"^the dataset gives a Tensor; model/item\.py says a dict$"),
        ([{"a": torch.zeros(2)}, {"a": torch.zeros(3)}], r"do not fit together \(.*\): model/item\.py says one shape$"),
        (
            [{"a": torch.zeros(2)}, {"b": torch.zeros(2)}],
            r"^some items have a, b and others have not; model/item\.py says all$",
        ),
        ([{"a": torch.zeros(2)}, {}], r"^some items have a and others have not"),
        ([{}, {"a": torch.zeros(2)}], r"^some items have a and others have not"),
        ([{"a": torch.zeros(2)}, 3], r"^the dataset gives a int; model/item\.py says a dict$"),
        ([{"a": None}, {"a": None}], r"do not fit together \(.*NoneType.*\): model/item\.py says one shape$"),
    ],
    ids=["tuples", "a tensor", "two shapes", "other keys", "a key less", "a key more", "a number", "nothing"],
)
def test_what_makes_no_batch_is_one_line(given, line):
    with pytest.raises(DataError, match=line) as caught:
        collate(given)
    assert "\n" not in str(caught.value)
