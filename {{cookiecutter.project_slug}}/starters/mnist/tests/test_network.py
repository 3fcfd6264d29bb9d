"""The networks: the shapes that they promise, and what plain torch computes with the same weights."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from plain_network import plain_network

from {{cookiecutter.__package_name}}.contracts.start import StartWeightsError
from {{cookiecutter.__package_name}}.model import network as room
from {{cookiecutter.__package_name}}.model.config import NETWORKS
from {{cookiecutter.__package_name}}.training.train import make_module

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


def test_every_network_is_tried_here():
    assert set(HEADS) == set(NETWORKS)


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


def test_parts_that_networks_share_start_with_the_same_weights(config):
    all_heads = weights_of(config().configure_model())
    for network in ("autoencoder", "classifier"):
        for name, weight in weights_of(config(network).configure_model()).items():
            assert torch.equal(weight, all_heads[name]), name


def test_blocks_start_with_different_weights(config):
    weights = weights_of(config().configure_model())
    assert not torch.equal(weights["trunk.blocks.0.mlp.up.weight"], weights["trunk.blocks.1.mlp.up.weight"])


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
    monkeypatch.setattr(room, "start_weights", lambda *_: torch.random.fork_rng(enabled=False))
    with pytest.raises(StartWeightsError, match=r"outside of `start_weights`"):
        config().configure_model()
