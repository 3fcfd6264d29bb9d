"""Layers: what plain torch computes with the same weights, on one rank; `layouts` tries them on more."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from megatron.core import parallel_state
from torch import nn

from {{cookiecutter.__package_name}}.contracts.config import NetworkConfig
from {{cookiecutter.__package_name}}.contracts.start import start_weights
from {{cookiecutter.__package_name}}.layers import (
    MLP,
    Blocks,
    Dropout,
    Norm,
    gather_sequence,
    row_by_row,
    scatter_sequence,
    small_linear,
    whole_linear,
    without_sequence_parallel,
)

CONFIG = NetworkConfig(
    num_layers=4, hidden_size=6, ffn_hidden_size=10, num_attention_heads=2, layernorm_epsilon=1e-2, hidden_dropout=0.5
)
X = torch.randn(5, 3, 6, generator=torch.Generator().manual_seed(3))  # S B H

pytestmark = pytest.mark.usefixtures("megatron")


def shaken(layer):
    """Move every weight a little: biases and norms start as zeros and ones, which would hide a mistake in them."""
    torch.manual_seed(9)
    with torch.no_grad():
        for weight in layer.parameters():
            weight += 0.1 * torch.randn_like(weight)
    return layer


def linear(layer, x):
    return F.linear(x, layer.weight, layer.bias)


def test_a_norm_is_torchs_with_the_configs_epsilon():
    norm = shaken(Norm(CONFIG))
    torch.testing.assert_close(norm(X), F.layer_norm(X, (6,), norm.weight, norm.bias, eps=1e-2))
    assert Norm(replace(CONFIG, params_dtype=torch.bfloat16)).weight.dtype == torch.bfloat16


def test_an_mlp_is_two_linear_layers_around_a_gelu():
    mlp = shaken(MLP(CONFIG, input_size=6, output_size=4))
    torch.testing.assert_close(mlp(X), linear(mlp.down, F.gelu(linear(mlp.up, X))))
    assert (mlp.up.weight.shape, mlp.down.weight.shape) == ((10, 6), (4, 10))


def test_an_mlp_that_is_computed_again_has_the_same_gradients_and_its_own_bias():
    found = []
    for recompute in ("none", "selective"):
        torch.manual_seed(8)
        mlp, x = shaken(MLP(replace(CONFIG, recompute=recompute), 6, 6)), X.clone().requires_grad_()
        output, bias = mlp.parts(x)
        assert bias.is_leaf, "else the backward pass computes it again, and again, until memory runs out"
        (output + bias).square().sum().backward()
        found.append([x.grad, *(weight.grad for weight in mlp.parameters())])
    torch.testing.assert_close(*found)


def test_an_mlp_of_a_residual_block_starts_as_nothing():
    assert MLP(CONFIG, 6, 6)(X).any()
    assert not MLP(CONFIG, 6, 6, CONFIG.output_layer_init_method)(X).any()


@pytest.mark.parametrize("build", [whole_linear, small_linear])
def test_a_layer_of_whole_items_is_torchs(build):
    layer = shaken(build(CONFIG, 6, 7))
    output, bias = layer(X[0])
    torch.testing.assert_close(output, linear(layer, X[0]))
    assert bias is None, "it has been added"
    assert not build(replace(CONFIG, tensor_model_parallel_size=2, sequence_parallel=True), 6, 7).sequence_parallel


def test_dropout_is_for_training_only_and_keeps_the_mean():
    dropout, ones = Dropout(CONFIG), torch.ones(1000, 1, 6)
    first, second = dropout(ones), dropout(ones)
    assert set(first.unique().tolist()) == {0, 2} and not torch.equal(first, second)
    assert float(first.mean()) == pytest.approx(1, abs=0.1)
    assert torch.equal(dropout.eval()(ones), ones)
    assert torch.equal(Dropout(replace(CONFIG, hidden_dropout=0.0))(ones), ones)


class Numbered(nn.Module):
    """A block that tells what it is given."""

    def __init__(self, config, number):
        super().__init__()
        self.number, self.weight = number, nn.Parameter(torch.rand(3))

    def forward(self, hidden, *others):
        return [*hidden, (self.number, *others)]


def test_blocks_are_called_one_after_the_other_with_all_that_is_given():
    blocks = Blocks(CONFIG, 0, Numbered)
    assert [name for name, _ in blocks.named_children()] == ["0", "1", "2", "3"]
    assert blocks([], "mask", "place") == [(number, "mask", "place") for number in range(4)]
    assert blocks([]) == [(number,) for number in range(4)]


@pytest.mark.parametrize(
    ("rank", "stages", "virtual", "vp_stage", "numbers"),
    [(0, 2, None, 0, [0, 1]), (1, 2, None, 0, [2, 3]), (3, 4, None, 0, [3]), (0, 2, 2, 1, [2]), (1, 2, 2, 0, [1])],
)
def test_a_stage_has_its_share_of_the_blocks_as_the_whole_would_have_them(
    rank, stages, virtual, vp_stage, numbers, monkeypatch
):
    whole = Blocks(CONFIG, 0, Numbered).state_dict()
    split = replace(CONFIG, pipeline_model_parallel_size=stages, pipeline_dtype=torch.float32)
    split.virtual_pipeline_model_parallel_size = virtual
    monkeypatch.setattr(parallel_state, "get_pipeline_model_parallel_rank", lambda: rank)
    blocks = Blocks(split, vp_stage, Numbered)
    assert blocks([]) == [(number,) for number in numbers]
    assert all(torch.equal(weight, whole[name]) for name, weight in blocks.state_dict().items())
    assert len({weight.sum().item() for weight in whole.values()}) == 4, "blocks start with weights of their own"


def test_blocks_draw_from_a_seed_of_their_number():
    with start_weights(CONFIG, "block 2"):
        expected = torch.rand(3)
    assert torch.equal(Blocks(CONFIG, 0, Numbered).state_dict()["2.weight"], expected)


@pytest.mark.parametrize("is_split", [False, True])
def test_layers_of_rows_are_marked_for_the_sum_of_their_gradients(is_split):
    config = replace(CONFIG, tensor_model_parallel_size=2, sequence_parallel=is_split)
    layer = nn.Linear(6, 6)
    assert row_by_row(layer, config) is layer
    marks = [weight.sequence_parallel for weight in (*layer.parameters(), *Norm(config).parameters())]
    assert marks == [is_split] * 4


def test_a_sequence_that_is_not_split_is_gathered_and_scattered_already():
    assert gather_sequence(X, CONFIG) is scatter_sequence(X, CONFIG) is X


def test_a_config_without_sequence_parallel_is_another_one():
    split = replace(CONFIG, tensor_model_parallel_size=2, sequence_parallel=True)
    assert not without_sequence_parallel(split).sequence_parallel
    assert split.sequence_parallel
