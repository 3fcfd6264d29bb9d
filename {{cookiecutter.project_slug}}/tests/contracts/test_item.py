"""Items: a key's words are resolved, every batch is held against them, and a random part depends on its index only."""

import sys
from types import ModuleType

import numpy as np
import pytest
import torch
from conftest import PACKAGE

from {{cookiecutter.__package_name}}.contracts.item import DataError, Index, Indices, Key, checked, keys_of

HEAD = f"""
from typing import TYPE_CHECKING, Annotated
from {PACKAGE}.contracts.item import Item, Key
if TYPE_CHECKING:
    from torch import Tensor
class Text(Item):
"""
SIZES = {"length": 7, "words": 5}


@pytest.fixture(params=["", "from __future__ import annotations\n"], ids=["annotations", "postponed annotations"])
def keys(request, monkeypatch):
    """Return the keys of an item that a module without torch says in this line."""
    module = ModuleType("text")
    monkeypatch.setitem(sys.modules, "text", module)

    def read(line):
        exec(compile(f"{request.param}{HEAD}    {line}", "text.py", "exec", dont_inherit=True), module.__dict__)
        return keys_of(module.Text, SIZES.get)

    return read


def test_words_of_an_item_are_the_settings_of_that_name(keys):
    found = keys(
        'tokens: Annotated["Tensor", Key("int64", ("length", 2, "length"), below="words", about="as in a book")]'
    )
    assert found == {"idx": Key("int64"), "tokens": Key("int64", (7, 2, 7), 5, "as in a book")}


@pytest.mark.parametrize("key", ['Key("int64", ("lenght",))', 'Key("int64", below="lenght")'])
def test_a_word_that_is_no_setting_is_told(key, keys):
    with pytest.raises(DataError, match=r"^model/item\.py: Text\.tokens names lenght, and no setting is called so$"):
        keys(f'tokens: Annotated["Tensor", {key}]')


@pytest.mark.parametrize("hint", ['"Tensor"', "int", 'Annotated["Tensor", "int64"]'])
def test_a_key_that_is_not_described_is_told(hint, keys):
    with pytest.raises(DataError) as caught:
        keys(f"tokens: {hint}")
    assert str(caught.value) == 'model/item.py: Text.tokens must be Annotated["Tensor", Key(dtype, shape)]'


def test_a_type_that_is_not_imported_is_told(keys):
    with pytest.raises(DataError) as caught:
        keys('tokens: Annotated["torch.Tensor", Key("int64")]')
    line = "name 'torch' is not defined; say Annotated[\"Tensor\", Key(dtype, shape)]"
    assert str(caught.value) == f"model/item.py: {line}"


KEYS = {"idx": Key("int64"), "tokens": Key("int64", (3,), below=5), "weight": Key("float32")}


@pytest.fixture
def batch():
    tokens = torch.tensor([[0, 1, 2], [4, 3, 2]])
    return {"idx": torch.tensor([8, 9]), "tokens": tokens, "weight": torch.rand(2)}


def test_a_batch_that_is_what_its_item_promises_is_passed_on(batch):
    assert checked(batch, KEYS) is batch


MISTAKES = {
    "another dtype": (lambda b: {"weight": b["weight"].double()}, "weight of 2 items is float64 (2,)", "float32 (2,)"),
    "another shape": (lambda b: {"tokens": b["tokens"][:, :2]}, "tokens of 2 items is int64 (2, 2)", "int64 (2, 3)"),
    "fewer items": (lambda b: {"weight": b["weight"][:1]}, "weight of 2 items is float32 (1,)", "float32 (2,)"),
    "no tensor": (lambda b: {"weight": b["weight"].numpy()}, "weight of 2 items is ndarray", "float32 (2,)"),
    "too large": (lambda b: {"tokens": b["tokens"] + 1}, "item 9 has tokens 5", "0 to 4"),
    "below zero": (lambda b: {"tokens": b["tokens"] - 1}, "item 8 has tokens -1", "0 to 4"),
    "too many keys": (lambda b: {"name": 1}, "items have the keys idx, tokens, weight, name", "idx, tokens, weight"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_every_mistake_in_a_batch_is_one_line(mistake, batch):
    spoil, found, expected = MISTAKES[mistake]
    with pytest.raises(DataError) as caught:
        checked({**batch, **spoil(batch)}, KEYS)
    assert str(caught.value) == f"{found}; model/item.py says {expected}"


def test_a_key_that_is_missing_is_told(batch):
    del batch["tokens"]
    with pytest.raises(DataError) as caught:
        checked(batch, KEYS)
    assert str(caught.value) == "items have the keys idx, weight; model/item.py says idx, tokens, weight"


def test_an_index_is_a_position_with_seed_and_epoch():
    assert (Index(3), Index(3).epoch, Index(3).seed) == (3, 0, 0)
    indices = Indices([4, 2, 4], [0, 1, 1], seed=7)
    assert indices == [4, 2, 4]
    found = [(index, index.epoch, index.seed) for index in (indices.at(n) for n in range(3))]
    assert found == [(4, 0, 7), (2, 1, 7), (4, 1, 7)]


def test_random_numbers_of_an_item_never_change():
    """Pinned, of the raw stream, which NumPy promises for all its versions."""
    raw = Index(3, epoch=2, seed=1).random().bit_generator.random_raw(3).tolist()
    assert raw == [12368030237656201616, 2047858591075935483, 9435677134316251571]


def test_random_numbers_of_an_item_are_a_pure_function_of_seed_epoch_and_position():
    before = np.random.get_state()[1].tolist(), torch.get_rng_state()

    def drawn(position, epoch, seed):
        return Index(position, epoch, seed).random().integers(2**62)

    different = {drawn(position, epoch, seed) for position in (1, 2) for epoch in (1, 2) for seed in (1, 2)}
    assert len(different) == 8
    assert drawn(2, 1, 1) == drawn(2, 1, 1) == Indices([5, 2], [0, 1], seed=1).at(1).random().integers(2**62)
    assert before[0] == np.random.get_state()[1].tolist() and torch.equal(before[1], torch.get_rng_state())
