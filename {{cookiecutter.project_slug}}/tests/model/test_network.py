"""The networks: the shapes they promise, what plain torch computes with the same weights, and pieces that fit."""

from dataclasses import replace
from typing import get_args, get_type_hints

import pytest
import torch
import torch.nn.functional as F
from megatron.core import parallel_state
from plain_network import plain_network

from {{cookiecutter.__package_name}} import model
from {{cookiecutter.__package_name}}.config import NETWORKS, StartWeightsError
from {{cookiecutter.__package_name}}.errors import UserError
from {{cookiecutter.__package_name}}.model import Stage
from {{cookiecutter.__package_name}}.settings import Settings
from {{cookiecutter.__package_name}}.training import make_module

HEADS = {
    "autoencoder": {"latent", "reconstruction"},
    "classifier": {"latent", "logits"},
    "autoencoder_classifier": {"latent", "reconstruction", "logits"},
}
SHAPES = {"latent": (5, 8), "reconstruction": (5, 1, 28, 28), "logits": (5, 10)}
EVERY_NETWORK = pytest.mark.parametrize("network", HEADS)


@pytest.fixture
def config(tiny, megatron):
    """Return the config of a tiny network by its name, as a training gets it."""
    return lambda network="autoencoder_classifier", **changes: replace(
        make_module(tiny(network=network), start_weights=None).config, **changes
    )


@pytest.fixture
def batch():
    random = torch.Generator().manual_seed(3)
    return {"data": torch.rand(5, 1, 28, 28, generator=random), "label": torch.arange(5), "idx": torch.arange(5)}


def shaken(stage):
    """Move every weight a little: biases and norms start as zeros and ones, which would hide a mistake in them."""
    torch.manual_seed(9)
    with torch.no_grad():
        for weight in stage.parameters():
            weight += 0.1 * torch.randn_like(weight)
    return stage


def weights_of(stage):
    return {name: weight.detach().clone() for name, weight in stage.named_parameters()}


def loss_of(output, batch):
    """Return one number that every output of a network takes part in."""
    loss = output["latent"].square().mean()
    if "reconstruction" in output:
        loss = loss + F.mse_loss(output["reconstruction"], batch["data"])
    if "logits" in output:
        loss = loss + F.cross_entropy(output["logits"], batch["label"])
    return loss


def test_the_tables_of_networks_agree():
    assert set(HEADS) == set(NETWORKS) == set(get_args(get_type_hints(Settings)["network"]))


def test_a_network_that_is_not_registered_is_the_users_to_mend(tiny):
    with pytest.raises(UserError, match=r"NETWORKS in config.py has no mixer, only autoencoder, .*: add it there"):
        make_module(tiny(network="mixer"), start_weights=None)


@EVERY_NETWORK
def test_every_network_gives_its_outputs_in_the_promised_shapes(network, config, batch):
    output = config(network).configure_model()(batch)
    assert {name: tuple(value.shape) for name, value in output.items()} == {
        name: SHAPES[name] for name in HEADS[network]
    }


@EVERY_NETWORK
def test_outputs_and_gradients_are_those_of_plain_torch(network, config, batch):
    stage = shaken(config(network).configure_model())
    plain = plain_network(weights_of(stage))
    output, expected = stage(batch), plain(batch["data"])
    for name in HEADS[network]:
        torch.testing.assert_close(output[name], expected[name], rtol=0, atol=1e-6)
    loss_of(output, batch).backward()
    loss_of(expected, batch).backward()
    gradients = {name: weight.grad for name, weight in plain.named_parameters()}
    for name, weight in stage.named_parameters():
        torch.testing.assert_close(weight.grad, gradients[name], rtol=1e-5, atol=1e-6, msg=name)


def test_every_gradient_of_the_comparison_is_there(config, batch):
    stage = shaken(config().configure_model())
    loss_of(stage(batch), batch).backward()
    assert all(weight.grad.any() for weight in stage.parameters())


def stages_of(config, monkeypatch, count):
    """Build every pipeline stage of a network in this process, one after the other."""
    split = replace(config, pipeline_model_parallel_size=count, pipeline_dtype=torch.float32)
    stages = []
    for rank in range(count):
        with monkeypatch.context() as patch:
            patch.setattr(parallel_state, "get_pipeline_model_parallel_rank", lambda rank=rank: rank)
            patch.setattr(parallel_state, "get_pipeline_model_parallel_world_size", lambda: count)
            patch.setattr(parallel_state, "is_pipeline_first_stage", lambda rank=rank, **_: rank == 0)
            patch.setattr(parallel_state, "is_pipeline_last_stage", lambda rank=rank, **_: rank == count - 1)
            stages.append(split.configure_model())
    return stages


@pytest.mark.parametrize("count", [2, 4])
def test_a_chain_of_pipeline_stages_equals_the_whole_network_bit_for_bit(count, config, batch, monkeypatch):
    sizes = config(num_layers=4)
    whole, stages = sizes.configure_model(), stages_of(sizes, monkeypatch, count)
    activations = None
    for stage in stages:
        assert isinstance(stage, Stage)
        stage.set_input_tensor(activations)
        activations = stage(batch)
        if stage is not stages[-1]:
            assert activations.shape == (28, 5, 16)  # rows, items, features: what Megatron sends between stages
    expected = whole(batch)
    assert set(activations) == set(expected)
    assert all(torch.equal(activations[name], expected[name]) for name in expected)


@pytest.mark.parametrize("count", [2, 4])
def test_start_weights_do_not_depend_on_the_split(count, config, monkeypatch):
    sizes = config(num_layers=4)
    whole = weights_of(sizes.configure_model())
    pieces = {}
    for stage in stages_of(sizes, monkeypatch, count):
        assert not pieces.keys() & weights_of(stage).keys()
        pieces |= weights_of(stage)
    assert pieces.keys() == whole.keys()
    assert all(torch.equal(pieces[name], whole[name]) for name in whole)


def test_start_weights_depend_on_the_seed_and_on_nothing_else(config):
    first = weights_of(config().configure_model())
    torch.manual_seed(99)
    again = weights_of(config().configure_model())
    other = weights_of(config(init_seed=2).configure_model())
    matrices = [name for name, weight in first.items() if weight.dim() == 2 and weight.any()]
    assert len(matrices) > 5
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not any(torch.equal(first[name], other[name]) for name in matrices)


def test_parts_that_networks_share_start_with_the_same_weights(config):
    all_heads = weights_of(config().configure_model())
    for network in ("autoencoder", "classifier"):
        for name, weight in weights_of(config(network).configure_model()).items():
            assert torch.equal(weight, all_heads[name]), name


def test_blocks_start_with_different_weights(config):
    weights = weights_of(config().configure_model())
    assert not torch.equal(weights["trunk.blocks.0.mlp.up.weight"], weights["trunk.blocks.1.mlp.up.weight"])


def test_building_a_network_leaves_the_random_numbers_of_the_run_alone(config):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    config().configure_model()
    assert torch.equal(torch.rand(3), expected)


def test_first_gradients_do_not_grow_with_the_number_of_blocks(config, batch):
    """Blank rows are all zeros, where a norm's gradient is largest."""
    batch["data"][:, :, :8] = 0
    sizes = {}
    for num_layers in (2, 16):
        stage = config("autoencoder", num_layers=num_layers).configure_model()
        loss_of(stage(batch), batch).backward()
        sizes[num_layers] = sum(weight.grad.square().sum() for weight in stage.parameters()).sqrt()
    assert sizes[16] < 4 * sizes[2]


def test_dropout_is_for_training_only(config, batch):
    stage = shaken(config("autoencoder", hidden_dropout=0.5).configure_model())
    assert not torch.equal(stage(batch)["latent"], stage(batch)["latent"])
    stage.eval()
    assert torch.equal(stage(batch)["latent"], stage(batch)["latent"])


def test_a_network_in_bfloat16_has_bfloat16_weights_and_outputs(config, batch):
    stage = config(params_dtype=torch.bfloat16).configure_model()
    assert {weight.dtype for weight in stage.parameters()} == {torch.bfloat16}
    assert {value.dtype for value in stage(batch).values()} == {torch.bfloat16}


def test_a_part_whose_start_weights_depend_on_the_layout_is_refused(config, monkeypatch):
    monkeypatch.setattr(model, "start_weights", lambda *_: torch.random.fork_rng(enabled=False))
    with pytest.raises(StartWeightsError, match=r"outside of `start_weights`.*build each part of model\.py inside"):
        config().configure_model()


@pytest.mark.parametrize(
    ("stage", "output", "words"),
    [
        (0, torch.zeros(5, 28, 16), r"gives \(5, 28, 16\) to the next one, not \(.*\) \(28, 5, 16\)"),
        (0, {}, r"gives \(\) to the next one"),
        (1, torch.zeros(5, 10), r"the last stage gives Tensor, not a dict with a row for each of 5 items"),
        (1, {"logits": torch.zeros(10, 5)}, r"the last stage gives {'logits': \(10, 5\)}, not a dict"),
        (1, {"logits": torch.zeros(())}, r"the last stage gives {'logits': \(\)}, not a dict"),
    ],
)
def test_a_stage_that_gives_what_nobody_can_take_is_refused(stage, output, words, config, batch, monkeypatch):
    stages = stages_of(config(num_layers=2), monkeypatch, 2)
    monkeypatch.setattr(Stage, "forward", lambda self, batch: output)
    with pytest.raises(UserError, match=words):
        stages[stage](batch)
