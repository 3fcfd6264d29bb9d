"""The data module: what it reads, in which order loaders give it, and what is refused before a run begins."""

from types import SimpleNamespace
from typing import Annotated

import pytest
import torch
from conftest import TINY, change
from stand_ins import Batches, NumberConfig, NumberItem, Numbers, assert_same
from torch.utils.data import DataLoader

from {{cookiecutter.__package_name}}.contracts.errors import UserError
from {{cookiecutter.__package_name}}.contracts.item import PADDING_IDX, DataError, Indices, Item, Key
from {{cookiecutter.__package_name}}.contracts.view import split_validation
from {{cookiecutter.__package_name}}.model.config import NETWORKS
from {{cookiecutter.__package_name}}.training import datamodule
from {{cookiecutter.__package_name}}.training.datamodule import DataModule
from {{cookiecutter.__package_name}}.training.resampling import resample

SETTINGS = change(TINY, seed=7, training={"max_steps": 5, "warmup_steps": 1, "global_batch_size": 32})


def spoilt(spoil, positions):
    """Make a dataset of single items of which some are changed."""

    class Spoilt(Numbers):
        def __getitem__(self, index):
            item = super().__getitem__(index)
            return spoil(item) if index in positions else item

    return Spoilt


MISTAKES = {
    "another dtype": (lambda item: {**item, "value": item["value"].double()}, "value of 2 items is float64 (2, 2)"),
    "another shape": (lambda item: {**item, "value": item["value"][:1]}, "value of 2 items is float32 (2, 1)"),
    "no value": (lambda item: {"given": item["given"]}, "items have the keys given, idx"),
    "a key too many": (lambda item: {**item, "name": item["given"]}, "items have the keys value, given, name, idx"),
    "tuples": (lambda item: tuple(item.values()), "the dataset gives a tuple"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_an_item_that_breaks_the_contract_is_refused_before_a_run_begins(mistake, refused, run_dir, monkeypatch):
    spoil, words = MISTAKES[mistake]

    class Config(NETWORKS[SETTINGS.network]):
        item_class = NumberItem
        prepare = staticmethod(lambda settings: None)
        read_training = staticmethod(lambda settings: split_validation(spoilt(spoil, range(100))(100), 10))

    monkeypatch.setitem(NETWORKS, SETTINGS.network, Config)
    line = refused("pretrain", "--accelerator", "cpu", "--network", SETTINGS.network, *run_dir)
    assert f"{words}; model/item.py says " in line


@pytest.fixture
def data(monkeypatch):
    """Make the data module of a network of numbers, as far as a stage sets it up."""

    def make(stage="fit", dataset=Batches, size=90, settings=SETTINGS):
        monkeypatch.setattr(NumberConfig, "read_training", lambda settings: (dataset(size), dataset(10)))
        module = DataModule(NumberConfig, settings)
        module.trainer = SimpleNamespace(global_step=0)
        module.setup(stage)
        return module

    return make


def test_the_first_and_the_last_item_are_looked_at(data):
    for position in (0, 89):
        with pytest.raises(DataError, match="do not fit together"):
            data(dataset=spoilt(lambda item: {**item, "value": item["value"][:1]}, [position]))


@pytest.mark.parametrize(
    ("stage", "method", "found", "words"),
    [
        ("fit", "read_training", None, "gives NoneType: return a training set and a validation set, datasets as"),
        ("fit", "read_training", Batches(9), "gives Batches: return a training set and a validation set, datasets as"),
        ("fit", "read_training", (Batches(9), None), "gives Batches, NoneType: return a training set and a valid"),
        ("fit", "read_training", (Batches(0), Batches(9)), "gives no training items: look into what it reads"),
        ("fit", "read_training", (Batches(9), Batches(0)), "gives no validation items: look into what it reads"),
        ("test", "read_test", None, "gives NoneType: return a test set, datasets as model/item.py says"),
        ("test", "read_test", Batches(0), "gives no test items"),
        ("predict", "read_predict", Batches(0), "gives no prediction items"),
    ],
)
def test_what_is_read_must_be_datasets_with_items(stage, method, found, words, monkeypatch):
    monkeypatch.setattr(NumberConfig, method, lambda settings: found)
    with pytest.raises(DataError) as caught:
        DataModule(NumberConfig, SETTINGS).setup(stage)
    assert str(caught.value).startswith(f"model/config.py: NumberConfig.{method} {words}")


class Random(Numbers):
    def __getitem__(self, index):
        return {**super().__getitem__(index), "value": torch.rand(2)}


class Sorted(Batches):
    def __getitems__(self, indices):
        return super().__getitems__(Indices(sorted(indices), indices.epochs, indices.seed))


class Longest(Batches):
    def __getitems__(self, indices):
        return super().__getitems__(Indices(sorted(indices, reverse=True), indices.epochs, indices.seed))


class Turned(Batches):
    def __getitems__(self, indices):
        return super().__getitems__(Indices(indices[::-1], indices.epochs, indices.seed))


class Unique(Batches):
    def __getitems__(self, indices):
        batch = super().__getitems__(indices)
        return {**batch, "value": batch["value"].unique(dim=0)}


@pytest.mark.parametrize("kind", [Random, Sorted, Longest, Turned])
def test_items_that_are_others_when_they_are_asked_for_again_are_refused(kind, data):
    line = r"^value of an item is another when it is asked for again: random parts must come from index\.random\(\)"
    with pytest.raises(DataError, match=line):
        data(dataset=kind)


def test_an_item_that_is_asked_for_twice_is_given_twice(data):
    with pytest.raises(DataError, match=r"value of 3 items is float32 \(2, 2\)"):
        data(dataset=Unique)


def test_rounding_and_what_is_no_number_are_no_other_item(data):
    class Rounded(Batches):
        def __getitems__(self, indices):
            batch = super().__getitems__(indices)
            value = batch["value"] * (1 + 1e-6 * len(indices))
            return {**batch, "value": torch.where(value == 0, torch.nan, value)}

    data(dataset=Rounded)
    data(dataset=Batches, size=1)


def test_words_of_an_item_are_settings_of_the_model_or_of_the_data(data, monkeypatch):
    class Sized(Item):
        value: Annotated["torch.Tensor", Key("float32", ("hidden_size", "sequence_length"), below="num_workers")]

    monkeypatch.setattr(NumberConfig, "item_class", Sized)
    module, sizes = data("test", settings=change(SETTINGS, data={"num_workers": 3})), SETTINGS.model
    assert module.keys["value"] == Key("float32", (sizes.hidden_size, sizes.sequence_length), below=3)


def test_only_what_a_stage_needs_is_read(data, monkeypatch):
    assert not hasattr(data("fit"), "test")
    monkeypatch.setattr(NumberConfig, "read_test", lambda settings: pytest.fail("read"))
    data("validate")
    with pytest.raises(pytest.fail.Exception, match="read"):
        data("predict")


def test_data_are_prepared_as_the_config_says(data, monkeypatch):
    prepared = []
    monkeypatch.setattr(NumberConfig, "prepare", prepared.append)
    data().prepare_data()
    assert prepared == [SETTINGS]


def batches_of(loader, size):
    return list(DataLoader(loader.dataset, batch_size=size, collate_fn=loader.collate_fn))


def joined(loader):
    batches = batches_of(loader, 32)
    return {key: torch.cat([batch[key] for batch in batches]) for key in batches[0]}


@pytest.mark.parametrize("stage", ["validation", "test", "predict"])
def test_evaluation_sees_every_item_in_order_and_padding_up_to_the_global_batch(stage, data):
    module = data("fit" if stage == "validation" else stage)
    loader = {"validation": module.val_dataloader, "test": module.test_dataloader, "predict": module.predict_dataloader}
    found = joined(loader[stage]())
    assert found["idx"].tolist() == [*range(10), *[PADDING_IDX] * 22]
    assert found["value"][:10, 0].tolist() == list(range(10))
    assert found["given"].tolist() == [[7, 0]] * 32
    assert loader[stage]().mode == stage, "or NeMo starts it where the training is"


def test_training_sees_the_samples_of_all_its_steps_in_the_order_of_the_seed(data):
    loader = data().train_dataloader()
    assert loader.mode == "train"
    assert_same(joined(loader), resample(Batches(90), 5 * 32, seed=7).__getitems__(list(range(5 * 32))))


def test_every_batch_is_held_against_the_contract(data):
    between = spoilt(lambda item: {**item, "value": item["value"].double()}, range(1, 89))
    with pytest.raises(DataError, match=r"value of 4 items is float64 \(4, 2\); model/item\.py says float32 \(4, 2\)"):
        batches_of(data(dataset=between).train_dataloader(), 4)


@pytest.mark.slow
def test_a_mistake_that_a_loaders_process_finds_is_the_line_that_it_was(data):
    class Damaged(Numbers):
        def __getitem__(self, index):
            if index in (0, 89):
                return super().__getitem__(index)
            raise DataError("items.csv, line 3: a word is missing")

    loader = data(dataset=Damaged).train_dataloader()
    with pytest.raises(DataError) as caught:
        next(iter(DataLoader(loader.dataset, batch_size=4, num_workers=1)))
    assert str(caught.value) == "items.csv, line 3: a word is missing"


def test_a_checkpoint_that_does_not_say_how_far_in_the_data_it_is_is_not_resumed(data):
    module = data()
    module.trainer.global_step = 3
    with pytest.raises(UserError, match=r"does not say how far in the data it is: .* begin a new run in another --run"):
        module.train_dataloader()


def test_the_checkpoint_of_another_run_is_not_gone_on_with(data):
    begun = data().state_dict()
    with pytest.raises(UserError, match=r"not of the run in .*settings.yaml was changed: it has --seed 7, not 8; put"):
        data(settings=change(SETTINGS, seed=8)).load_state_dict(begun)


def test_a_checkpoint_of_a_version_that_did_not_save_settings_or_had_others_is_gone_on_with(data, monkeypatch):
    monkeypatch.setattr(datamodule, "update_num_microbatches", lambda **counts: None)
    begun = data().state_dict()
    others = begun["settings"] | {"data.of_another_version": 1}
    del others["seed"]
    for state in (begun, {**begun, "settings": others}, {name: begun[name] for name in begun if name != "settings"}):
        module = data(settings=change(SETTINGS, training={"max_steps": 9}))
        module.load_state_dict(state)
        assert module.is_resumed


def test_a_dataset_that_knows_its_fingerprint_is_told_from_one_with_another_middle(data, monkeypatch):
    monkeypatch.setattr(datamodule, "update_num_microbatches", lambda **counts: None)
    plain, same = data().fingerprint, data(dataset=type("Same", (Numbers,), {"fingerprint": lambda self: "a"}))
    assert same.fingerprint == (*plain, "a")
    same.load_state_dict({"consumed_samples": 32, "fingerprint": plain})  # of a version that knew less
    same.load_state_dict({"consumed_samples": 32, "fingerprint": same.fingerprint})
    with pytest.raises(DataError, match=r"not those that the run began with \(their number, or what is in them\)"):
        same.load_state_dict({"consumed_samples": 32, "fingerprint": (*plain, "b")})


def test_other_training_data_are_not_gone_on_with(data):
    begun = data().fingerprint
    assert data().fingerprint == begun
    last = spoilt(lambda item: {**item, "value": item["value"] + 1}, [89])
    for other in (data(size=80), data(dataset=last)):
        with pytest.raises(DataError, match="the training data are not those that the run began with"):
            other.load_state_dict({"consumed_samples": 32, "fingerprint": begun})
