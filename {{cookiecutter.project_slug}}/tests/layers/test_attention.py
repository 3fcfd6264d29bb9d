"""Attention: what torch's own computes with the same weights, with every mask; and of nothing left, nothing."""

import pytest
import torch
from torch import nn

from {{cookiecutter.__package_name}}.contracts.config import NetworkConfig
from {{cookiecutter.__package_name}}.layers import Attention

LENGTH, ITEMS, SIZE, HEADS = 7, 4, 12, 3


@pytest.fixture
def attention(megatron):
    """An attention layer of which no weight is zero."""
    torch.manual_seed(9)
    config = NetworkConfig(num_layers=1, hidden_size=SIZE, num_attention_heads=HEADS, attention_dropout=0.5)
    layer = Attention(config).eval()
    with torch.no_grad():
        for weight in layer.parameters():
            weight += 0.3 * torch.randn_like(weight)
    return layer


@pytest.fixture
def plain(attention):
    """Torch's own layer with the same weights."""
    plain = nn.MultiheadAttention(SIZE, HEADS)
    by_head = attention.query_key_value.weight.view(HEADS, 3, -1, SIZE)  # each head's query, key and value
    with torch.no_grad():
        plain.in_proj_weight.copy_(by_head.transpose(0, 1).reshape(3 * SIZE, SIZE))
        plain.in_proj_bias.zero_()
        plain.out_proj.weight.copy_(attention.join.weight)
        plain.out_proj.bias.copy_(attention.join.bias)
    return plain


def positions():
    random = torch.Generator().manual_seed(3)
    return torch.randn(LENGTH, ITEMS, SIZE, generator=random, requires_grad=True)


def some(*shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(4)) < 0.5


def plain_answer(plain, x, mask):
    """Return what torch computes, whose masks say what may not be attended to."""
    masks = {}
    if mask is not None:
        masks = {"key_padding_mask": ~mask} if mask.ndim == 2 else {"attn_mask": (~mask).repeat_interleave(HEADS, 0)}
    return plain(x, x, x, need_weights=False, **masks)[0]


MASKS = {
    "none": None,
    "one for all positions": some(ITEMS, LENGTH) | (torch.arange(LENGTH) == 2),
    "one for each position": some(ITEMS, LENGTH, LENGTH) | torch.eye(LENGTH, dtype=torch.bool),
    "what came before": torch.ones(LENGTH, LENGTH, dtype=torch.bool).tril().expand(ITEMS, -1, -1),
}


@pytest.mark.parametrize("name", MASKS)
def test_outputs_and_gradients_are_those_of_torchs_own_layer(name, attention, plain):
    x, y = positions(), positions()
    output, expected = attention(x, MASKS[name]), plain_answer(plain, y, MASKS[name])
    torch.testing.assert_close(output, expected, rtol=0, atol=1e-6)
    output.square().sum().backward()
    expected.square().sum().backward()
    torch.testing.assert_close(x.grad, y.grad, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(attention.join.weight.grad, plain.out_proj.weight.grad, rtol=1e-4, atol=1e-5)


def test_one_mask_for_all_positions_is_the_same_for_each(attention):
    mask = MASKS["one for all positions"]
    each = mask.unsqueeze(1).expand(-1, LENGTH, -1)
    torch.testing.assert_close(attention(positions(), mask), attention(positions(), each))


@pytest.mark.parametrize("each", [False, True], ids=["one for all positions", "one for each position"])
def test_a_position_to_which_nothing_is_left_attends_to_nothing(each, attention):
    mask = torch.ones(ITEMS, LENGTH, LENGTH, dtype=torch.bool) if each else torch.ones(ITEMS, LENGTH, dtype=torch.bool)
    alone = (3, 1) if each else (slice(None), 1)  # a position of item 1, or all of them
    mask[(1, 3) if each else 1] = False
    x = positions()
    output = attention(x, mask)
    bias = attention.join.bias
    torch.testing.assert_close(output[alone], bias.expand_as(output[alone]), rtol=0, atol=0)
    output.square().sum().backward()
    for gradient in (x.grad, *(weight.grad for weight in attention.parameters())):
        assert gradient.isfinite().all() and gradient.any()


def test_what_may_not_be_attended_to_changes_nothing(attention):
    mask = torch.arange(LENGTH) < 5
    x = positions().detach()
    expected = attention(x, mask.expand(ITEMS, -1))[:5]
    x[5:] = 1e3
    torch.testing.assert_close(attention(x, mask.expand(ITEMS, -1))[:5], expected, rtol=0, atol=0)


def test_attention_is_dropped_in_training_only(attention):
    x = positions()
    assert torch.equal(attention(x), attention(x))
    attention.train()
    assert not torch.equal(attention(x), attention(x))
    attention.config.attention_dropout = 0.0
    assert torch.equal(attention(x), attention.eval()(x))


def test_attention_starts_as_nothing(megatron):
    """A residual block around it is the identity at first."""
    layer = Attention(NetworkConfig(num_layers=1, hidden_size=SIZE, num_attention_heads=HEADS))
    assert not layer(positions()).any()
    assert layer.query_key_value.weight.std() > 0.1
