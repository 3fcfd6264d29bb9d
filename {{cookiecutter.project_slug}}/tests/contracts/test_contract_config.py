"""Configs: what one must pair is looked at when a run starts, and what it lacks is one line."""

from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import get_args, get_type_hints

import pytest
import torch
from megatron.core import dist_checkpointing
from stand_ins import NumberConfig, NumberLoss, NumberStage

from {{cookiecutter.__package_name}}.contracts.config import NetworkConfig, check_config
from {{cookiecutter.__package_name}}.contracts.errors import UserError, need
from {{cookiecutter.__package_name}}.contracts.item import Item
from {{cookiecutter.__package_name}}.contracts.loss import ItemLossReduction, LossReduction
from {{cookiecutter.__package_name}}.contracts.settings import ModelSettings
from {{cookiecutter.__package_name}}.contracts.stage import PipelineStage
from {{cookiecutter.__package_name}}.model.config import NETWORKS
from {{cookiecutter.__package_name}}.model.settings import FINETUNE, LAYOUTS, Settings
from {{cookiecutter.__package_name}}.training import train
from {{cookiecutter.__package_name}}.training.train import make_module

UNCHECKED = NetworkConfig.read_training


class Nameless(NumberLoss):
    names = ("error",)


def test_a_config_that_pairs_all_is_found_under_its_name():
    assert check_config("numbers", {"others": NetworkConfig, "numbers": NumberConfig}) is NumberConfig
    loss = NumberConfig().get_loss_reduction_class()
    assert issubclass(loss, LossReduction) and loss is NumberConfig.loss_reduction_class


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"item_class": None}, "NumberConfig.item_class must be a subclass of Item, and is None"),
        ({"item_class": PipelineStage}, "NumberConfig.item_class must be a subclass of Item, and is <class"),
        ({"stage_class": Item}, "NumberConfig.stage_class must be a subclass of PipelineStage, and is <class"),
        ({"loss_reduction_class": NumberLoss()}, "NumberConfig.loss_reduction_class must be a subclass of LossReduct"),
        ({"read_training": UNCHECKED}, "NumberConfig lacks read_training: say how its data are read"),
        ({"read_test": NetworkConfig.read_test}, "NumberConfig lacks read_test: say how its data are read"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, dict) else "",
)
def test_a_config_that_lacks_a_part_is_told(change, line, monkeypatch):
    for name, value in change.items():
        monkeypatch.setattr(NumberConfig, name, value)
    with pytest.raises(UserError) as caught:
        check_config("numbers", {"numbers": NumberConfig})
    assert str(caught.value).startswith(f"model/config.py: {line}")


def test_a_loss_that_is_not_called_so_is_told(monkeypatch):
    monkeypatch.setattr(NumberConfig, "loss_reduction_class", Nameless)
    with pytest.raises(UserError) as caught:
        check_config("numbers", {"numbers": NumberConfig})
    words = "Nameless.names is ('error',): begin with loss, which is minimised"
    assert str(caught.value) == f"model/losses.py: {words}"


@pytest.mark.parametrize(
    ("base", "parts", "told"),
    [
        (LossReduction, {}, " lacks counted: say what its values are"),
        (ItemLossReduction, {}, " lacks per_item: say what its values are"),
        (NumberLoss, {"names": ["loss"]}, """.names is ['loss'], and must be a tuple: write ("loss",), say"""),
        (NumberLoss, {"names": "loss"}, """.names is 'loss', and must be a tuple: write ("loss",), say"""),
        (NumberLoss, {"names": ("loss", "top 5")}, " calls a figure 'top 5': use letters, numbers and _"),
        (NumberLoss, {"names": ("loss", 5)}, " calls a figure 5: use letters, numbers and _"),
        (NumberLoss, {"derived": {"a,b": len}}, " calls a figure 'a,b': use letters, numbers and _"),
        (NumberLoss, {"names": ("loss", "a", "a")}, " calls two figures a: names and derived must all be different"),
        (NumberLoss, {"derived": {"loss": len}}, " calls two figures loss: names and derived must all be different"),
        *(
            (NumberLoss, {"names": ("loss", name)}, f" calls a figure {name}, as something else is called in the log:")
            for name in ("step", "lr", "grad_norm", "mfu", "memory_gib", "items_per_second")
        ),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_a_loss_that_cannot_be_computed_or_logged_is_told(base, parts, told, monkeypatch):
    monkeypatch.setattr(NumberConfig, "loss_reduction_class", type("Mine", (base,), parts))
    with pytest.raises(UserError) as caught:
        check_config("numbers", {"numbers": NumberConfig})
    assert str(caught.value).startswith(f"model/losses.py: Mine{told}")


class Whole(NumberStage):
    def __init__(self, config, pre_process=True, post_process=True):
        super().__init__(config, pre_process, post_process)


class Sized(NumberStage):
    def __init__(self, config, size, **where):
        super().__init__(config, **where)


@pytest.mark.parametrize(
    ("stage", "told"),
    [(Whole, "got an unexpected keyword argument 'vp_stage'"), (Sized, "missing a required argument: 'size'")],
)
def test_a_stage_that_does_not_take_where_it_stands_is_told(stage, told, monkeypatch):
    monkeypatch.setattr(NumberConfig, "stage_class", stage)
    with pytest.raises(UserError) as caught:
        check_config("numbers", {"numbers": NumberConfig})
    call = "it is called with (config, pre_process=..., post_process=..., vp_stage=...)"
    assert str(caught.value) == f"model/network.py: {stage.__name__}.__init__ {told}: {call}"


def test_a_useful_share_that_no_loss_reports_is_told(monkeypatch):
    monkeypatch.setattr(NumberConfig, "useful", "fill")
    with pytest.raises(UserError) as caught:
        check_config("numbers", {"numbers": NumberConfig})
    assert str(caught.value) == "model/config.py: NumberConfig.useful is fill, no figure of NumberLoss"


def test_a_network_that_is_not_registered_is_told():
    with pytest.raises(UserError) as caught:
        check_config("mixer", {"numbers": NumberConfig, "others": NumberConfig})
    assert str(caught.value) == "NETWORKS in model/config.py has no mixer, only numbers, others: add it there"


def test_your_networks_are_registered_and_pair_all():
    for name in NETWORKS:
        assert check_config(name, NETWORKS) is NETWORKS[name]
    assert {Settings().network, FINETUNE.network, LAYOUTS.network} <= set(NETWORKS)
    choices = get_args(get_type_hints(Settings)["network"])
    assert set(choices) in (set(), set(NETWORKS))


@dataclass(frozen=True)
class Unheard(ModelSettings):
    sequence_length: int = 1
    unheard: int = 1
    never: int = 1


def test_a_size_that_is_no_field_of_the_config_is_told():
    network = Settings().network
    with pytest.raises(UserError) as caught:
        make_module(replace(Settings(), model=Unheard()), start_weights=None)
    line = f"model/config.py: {NETWORKS[network].__name__} has no field never, unheard: add it there"
    assert str(caught.value) == line


def test_what_a_file_of_the_model_lacks_is_told():
    file = SimpleNamespace(__name__="some_package.model.figures", SHARES=())
    need(file, "SHARES")
    with pytest.raises(UserError) as caught:
        need(file, "SHARES", "pictures", "captions")
    words = "lacks pictures, captions: drawing/theme.py says what it must give"
    assert str(caught.value) == f"model/figures.py {words}"


def test_a_config_may_keep_and_predict_nothing():
    assert NumberConfig.keep({"answer": torch.zeros(2)}, {"idx": torch.arange(2)}) == {}
    assert NumberConfig.predictions({}) == {}
    assert NumberConfig.scores({}) == {}
    assert NumberConfig.references(Settings()) == {}


def test_what_is_tested_is_predicted_unless_a_config_says_otherwise():
    class Fewer(NumberConfig):
        read_test = staticmethod(lambda settings: range(7))

    assert (len(NumberConfig.read_predict(Settings())), len(Fewer.read_predict(Settings()))) == (10, 7)


@dataclass
class Asking(NumberConfig):
    seed: int = 0


@dataclass(frozen=True)
class Sizes(ModelSettings):
    sequence_length: int = 1


def test_a_config_is_given_the_settings_of_predict_that_it_has_a_field_for(monkeypatch):
    monkeypatch.setattr(train, "config_of", lambda settings: Asking)
    seen = []
    for only in ({}, {"seed": "leave it out", "run_dir": "leave it out"}):
        monkeypatch.setattr(Settings, "ONLY_PREDICT", only)
        seen.append(make_module(replace(Settings(), seed=7, model=Sizes()), start_weights=None).config.seed)
    assert seen == [0, 7]


def test_what_settings_do_not_name_is_not_dropped():
    config = NumberConfig()
    assert (config.hidden_dropout, config.attention_dropout) == (0, 0)  # 0.1 in Megatron


@dataclass
class ForeignConfig(NumberConfig):
    """Starts from weights of one number, which it finds in the name of a folder."""

    def load_foreign(self, stage):
        for weight in stage.parameters():
            torch.nn.init.constant_(weight, float(self.foreign_start_dir))


def test_a_network_loads_a_foreign_start_unless_there_is_a_checkpoint(megatron, tmp_path):
    stage = ForeignConfig(foreign_start_dir="3").configure_model()
    assert all((weight == 3).all() for weight in stage.parameters())
    dist_checkpointing.save(stage.sharded_state_dict(prefix="module."), str(tmp_path))
    resumed = ForeignConfig(foreign_start_dir="4", start_weights_dir=str(tmp_path)).configure_model()
    assert all((weight == 3).all() for weight in resumed.parameters())
    drawn = ForeignConfig().configure_model()
    assert not all((weight == 3).all() for weight in drawn.parameters())
