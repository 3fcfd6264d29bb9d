"""Start weights: drawn from a seed for each part, or loaded whole from a checkpoint, or refused by name."""

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from conftest import TINY
from megatron.core import dist_checkpointing
from stand_ins import NumberConfig, NumberStage
from torch import nn

from {{cookiecutter.__package_name}}.contracts.start import (
    StartWeightsError,
    head_weights,
    load_start_weights,
    start_weights,
)
from {{cookiecutter.__package_name}}.model.settings import FINETUNE


def weights_of(stage):
    return {name: weight.detach().clone() for name, weight in stage.named_parameters()}


@pytest.fixture
def checkpoint(megatron, tmp_path):
    """A checkpoint of the network with weights of its own, and these weights."""
    stage = NumberConfig(init_seed=7).configure_model()
    with torch.no_grad():
        for weight in stage.parameters():
            weight += 1
    (tmp_path / "weights").mkdir()
    dist_checkpointing.save(stage.sharded_state_dict(prefix="module."), str(tmp_path / "weights"))
    return tmp_path / "weights", weights_of(stage)


def build(checkpoint, new_heads=(), **sizes):
    return NumberConfig(start_weights_dir=str(checkpoint[0]), new_heads=new_heads, **sizes).configure_model()


def refusal(*arguments, **sizes):
    with pytest.raises(StartWeightsError) as caught:
        build(*arguments, **sizes)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Drawn


def test_start_weights_of_a_part_depend_on_its_name_and_the_seed_and_on_nothing_else():
    def drawn(part, **seed):
        with start_weights(NumberConfig(**seed), part):
            return torch.rand(3).tolist()

    first = drawn("body")
    torch.rand(5)
    assert drawn("body") == first
    assert drawn("head") != first and drawn("body", init_seed=2) != first


def test_drawing_start_weights_leaves_the_random_numbers_of_the_run_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    with start_weights(NumberConfig(), "body"):
        torch.rand(7)
    assert torch.equal(torch.rand(3), expected)


def test_a_part_that_draws_outside_of_it_is_refused(megatron, monkeypatch):
    class Careless(NumberStage):
        def __init__(self, *arguments, **settings):
            super().__init__(*arguments, **settings)
            self.tail = nn.Linear(2, 2)

    monkeypatch.setattr(NumberConfig, "stage_class", Careless)
    with pytest.raises(
        StartWeightsError, match=r"outside of `start_weights`.*build each part of model/network\.py insi"
    ):
        NumberConfig().configure_model()


# Loaded


def test_without_new_heads_every_weight_is_loaded(checkpoint):
    for new_heads in ((), None):
        loaded = weights_of(build(checkpoint, new_heads))
        assert loaded.keys() == checkpoint[1].keys()
        assert all(torch.equal(loaded[name], checkpoint[1][name]) for name in loaded)


def check_head_is_new(stage, fresh, checkpoint):
    """All of the head is as it was drawn, and all the rest as it was saved."""
    loaded, fresh = weights_of(stage), weights_of(fresh)
    for name in loaded:
        expected = fresh if name.startswith("head.") else checkpoint[1]
        assert torch.equal(loaded[name], expected[name]), name
    assert not torch.equal(fresh["body.weight"], checkpoint[1]["body.weight"])
    assert stage.loaded_heads == ()


def test_a_head_that_the_checkpoint_has_is_loaded_unless_it_is_to_be_drawn_anew(checkpoint):
    stage = build(checkpoint, ("head",))
    loaded = weights_of(stage)
    assert all(torch.equal(loaded[name], checkpoint[1][name]) for name in loaded)
    assert stage.loaded_heads == ("head",)
    check_head_is_new(build(checkpoint, ("head",), redraw_heads=True), NumberConfig().configure_model(), checkpoint)


def test_a_head_of_other_sizes_keeps_its_random_weights(checkpoint):
    check_head_is_new(build(checkpoint, ("head",), answers=5), NumberConfig(answers=5).configure_model(), checkpoint)


class LongerHead(NumberStage):
    """The head has a weight more than in the checkpoint."""

    def __init__(self, *arguments, **settings):
        super().__init__(*arguments, **settings)
        self.head.slope = nn.Parameter(torch.ones(1))


class ShorterHead(NumberStage):
    """The head has a weight less."""

    def __init__(self, *arguments, **settings):
        super().__init__(*arguments, **settings)
        self.head.bias = None


@pytest.mark.parametrize("stage", [LongerHead, ShorterHead])
def test_a_head_is_loaded_as_a_whole_or_not_at_all(stage, checkpoint, monkeypatch):
    monkeypatch.setattr(NumberConfig, "stage_class", stage)
    check_head_is_new(build(checkpoint, ("head",)), NumberConfig().configure_model(), checkpoint)


def test_each_head_is_decided_by_itself_and_a_part_of_a_head_with_it(checkpoint):
    heads = ("head.weight", "head", "head_norm")
    assert build(checkpoint, heads).loaded_heads == heads
    assert build(checkpoint, heads, answers=5).loaded_heads == ("head_norm",)
    stage = build(checkpoint, heads, redraw_heads=True)
    assert stage.loaded_heads == ()
    assert torch.equal(stage.body.weight, checkpoint[1]["body.weight"])


def test_a_stage_without_heads_loads_what_it_has(checkpoint):
    stage = NumberStage(NumberConfig(), post_process=False)
    load_start_weights(stage, checkpoint[0], ("head",))
    assert stage.loaded_heads == ()  # as far as this stage can tell
    loaded = weights_of(stage)
    assert loaded.keys() == {"body.weight", "body.bias"}
    assert all(torch.equal(loaded[name], checkpoint[1][name]) for name in loaded)


def test_a_prefix_that_names_nothing_is_refused_with_the_parts_that_there_are(checkpoint):
    told = refusal(checkpoint, ("head", "tail"))
    assert told == "--new_heads tail: the network has no such part; its parts are body, head, head_norm."


def test_a_head_that_is_not_on_the_last_stage_alone_is_refused_where_stages_could_not_agree(checkpoint):
    assert build(checkpoint, ("body",)).loaded_heads == ("body",)
    with pytest.raises(StartWeightsError, match="--new_heads body: heads are on the last pipeline stage, and parts"):
        load_start_weights(NumberStage(NumberConfig(), post_process=False), checkpoint[0], ("body",))


class TiedStand(NumberStage):
    """The head has a copy of the body's bias, which a checkpoint holds once."""

    def sharded_state_dict(self, prefix="", *args, **kwargs):
        state = super().sharded_state_dict(prefix, *args, **kwargs)
        tied = state[f"{prefix}head.copy"]
        tied.key, tied.replica_id = f"{prefix}body.bias", (1, 0, 0)
        return state

    def __init__(self, *arguments, **settings):
        super().__init__(*arguments, **settings)
        self.head.copy = nn.Parameter(torch.zeros(self.config.hidden_size))


def test_a_copy_of_a_tied_weight_is_no_part_of_the_head_that_it_stands_in(checkpoint, monkeypatch):
    monkeypatch.setattr(NumberConfig, "stage_class", TiedStand)
    loaded = build(checkpoint, ("head",))
    assert torch.equal(loaded.head.copy, checkpoint[1]["body.bias"])
    new = {id(weight) for weight in head_weights(loaded, ("head",))}
    assert new == {id(loaded.head.weight), id(loaded.head.bias)}
    assert id(loaded.head.copy) in {id(weight) for weight in head_weights(loaded, ("body",))}


@pytest.mark.parametrize("prefix", ["hea", "head.wei", "head."])
def test_a_prefix_ends_at_a_dot(prefix, checkpoint):
    assert f"--new_heads {prefix}: the network has no such part" in refusal(checkpoint, (prefix,))


def test_a_new_head_does_not_excuse_another_part_not_even_one_whose_name_begins_so(checkpoint):
    told = refusal(checkpoint, ("head.weight",), answers=5)
    assert "(head.bias is (3,), not (5,))" in told and "(now: head.weight)" in told
    told = refusal(checkpoint, ("head",), hidden_size=6)
    assert "head_norm.weight is (4,), not (6,)" in told and "head.weight" not in told


def test_weights_that_do_not_fit_are_listed_with_both_shapes_and_the_mend(checkpoint):
    told = refusal(checkpoint, answers=5)
    assert told.startswith(
        f"{checkpoint[0]} does not fit this network (head.weight is (3, 4), not (5, 4); head.bias is"
    )
    assert told.endswith(
        ". Use the model sizes of that run, or name the parts that may start anew with --new_heads (now: none)."
    )


@dataclass
class MoreConfig(NumberConfig):
    more: int = 1


def test_weights_that_are_missing_are_listed_but_no_more_than_can_be_read(checkpoint, monkeypatch):
    class Grown(NumberStage):
        def __init__(self, config, *arguments, **settings):
            super().__init__(config, *arguments, **settings)
            for number in range(config.more):
                with start_weights(config, f"more {number}"):
                    self.add_module(f"more_{number}", nn.Linear(2, 2))

    monkeypatch.setattr(MoreConfig, "stage_class", Grown)
    where = {"start_weights_dir": str(checkpoint[0]), "new_heads": None}
    with pytest.raises(StartWeightsError) as caught:
        MoreConfig(**where).configure_model()
    assert "(more_0.weight is missing; more_0.bias is missing). The network was another when it was tra" in str(
        caught.value
    )
    with pytest.raises(StartWeightsError, match=r"more_2\.weight is missing; and 3 more\)"):
        MoreConfig(**where, more=4).configure_model()


class Headless(NumberStage):
    """The head is gone."""

    def __init__(self, *arguments, **settings):
        super().__init__(*arguments, **settings)
        if self.post_process:
            del self.head


def test_a_weight_that_only_a_checkpoint_of_the_same_network_has_is_told(checkpoint, monkeypatch):
    monkeypatch.setattr(NumberConfig, "stage_class", Headless)
    told = refusal(checkpoint, None)
    assert "(head.bias has no place in it; head.weight has no place in it). The network was another when it" in told
    assert weights_of(build(checkpoint, ())).keys() == checkpoint[1].keys() - {"head.weight", "head.bias"}


# Of a run


@pytest.mark.slow
def test_finetuning_starts_from_all_weights_but_those_of_the_new_heads(pretrained, finetuned):
    prefixes = tuple(f"{head}." for head in FINETUNE.new_heads)
    old = [name for name in finetuned.start if not f"{name}.".startswith(prefixes)]
    assert old and all(torch.equal(finetuned.start[name], pretrained.end[name]) for name in old)


@pytest.mark.slow
def test_a_start_that_fails_leaves_no_folder(tiny, train, pretrained):
    settings = tiny(from_run=pretrained.settings.run_dir, model={"num_layers": 2 * TINY.model.num_layers})
    with pytest.raises(StartWeightsError, match="is missing"):
        train(settings)
    assert not Path(settings.run_dir).exists()
