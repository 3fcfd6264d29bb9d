"""Attention, of which tensor parallel ranks share the heads; with it rotary positions, and rows of many sequences."""

from __future__ import annotations

from contextlib import nullcontext
from typing import NamedTuple

import torch
import torch.nn.functional as F
from megatron.core import tensor_parallel
from megatron.core.tensor_parallel import ColumnParallelLinear, RowParallelLinear
from megatron.core.transformer.module import MegatronModule
from torch import Tensor

from ..contracts.config import NetworkConfig
from .elementwise import joined, split_heads, turned_heads


class Packed(NamedTuple):
    """Where the sequences of packed rows lie, for kernels that attend within each of them (a GPU, bf16)."""

    borders: Tensor
    """int32 [number of sequences + 1]: where each begins, in the B x S positions row after row, and the end"""
    longest: int
    """none of these has more positions"""


class Rotary(NamedTuple):
    """By which angles features are turned, for `Attention`; see `rotary`."""

    cos: Tensor
    """(S, B, 1, head size); or (S, 1, 1, head size), the same for all items"""
    sin: Tensor


class Attention(MegatronModule):
    """Multi-head self-attention (Vaswani et al., 2017) with a mask, by torch's `scaled_dot_product_attention`.

    The config's `num_attention_heads` must be divided by the tensor parallel size, and divide `hidden_size`. With
    sequence parallel a rank gives and takes its part of the positions, and attends to all of them.
    """

    def __init__(self, config: NetworkConfig, bias: bool = False) -> None:
        """Build the layer of queries, keys and values, and the one that joins the heads.

        Args:
            config: of the network.
            bias: of queries, keys and values. Only with rotary positions: without, the bias of a key adds the same to
                all scores, so its gradient is rounding, which Adam blows up.
        """
        super().__init__(config)
        size = config.hidden_size
        self.head_size = size // config.num_attention_heads
        self.query_key_value = ColumnParallelLinear(
            size,
            3 * size,
            config=config,
            init_method=config.init_method,
            bias=bias,
            gather_output=False,
            skip_bias_add=True,
        )
        self.join = RowParallelLinear(
            size,
            size,
            config=config,
            init_method=config.output_layer_init_method,
            bias=True,
            input_is_parallel=True,
            skip_bias_add=True,
        )

    def forward(self, x: Tensor, mask: Tensor | Packed | None = None, angles: Rotary | None = None) -> Tensor:
        """Map (S, B, H) to (S, B, H); see `parts`."""
        output, bias = self.parts(x, mask, angles)
        return output + bias

    def parts(
        self, x: Tensor, mask: Tensor | Packed | None = None, angles: Rotary | None = None
    ) -> tuple[Tensor, Tensor]:
        """Map (S, B, H) to (S, B, H) and the bias (H) that is still to be added.

        Args:
            x: the positions, float.
            mask: bool, True where a position may be attended to: (B, S) for all positions alike, or (B, S, S) with
                the attending one first. A position to which nothing is left attends to nothing. Or `Packed`: a position
                attends to its own sequence.
            angles: turns queries and keys by their positions.
        """
        combined, bias = self.query_key_value(x)
        if angles is None:
            query, key, value = split_heads(combined, bias, self.head_size)  # S B heads size
        else:
            query, key, value = joined(turned_heads, self.config, combined, bias, self.head_size, *angles)
        dropout = self.config.attention_dropout if self.training else 0.0
        if isinstance(mask, Packed):
            attended = _attend_packed(query, key, value, mask)
        else:
            # tensor parallel ranks have other heads, and so drop with other random numbers
            is_shared = dropout > 0 and self.config.tensor_model_parallel_size > 1
            with tensor_parallel.get_cuda_rng_tracker().fork() if is_shared else nullcontext():
                attended = _attend(query, key, value, mask, dropout)
        output, bias = self.join(attended.flatten(2))
        return output, bias


def _attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, dropout: float) -> Tensor:
    """Return what each position sees, (S, B, heads, size)."""
    if mask is not None:
        mask = mask[:, None, None, :] if mask.ndim == 2 else mask[:, None]
    query, key, value = (part.permute(1, 2, 0, 3) for part in (query, key, value))  # B heads S size
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout).permute(2, 0, 1, 3)


def _attend_packed(query: Tensor, key: Tensor, value: Tensor, packed: Packed) -> Tensor:
    """Return what each position sees of its own sequence, (S, B, heads, size)."""
    from torch.nn.attention.varlen import varlen_attn  # loads kernels of GPUs

    sequence, batch, *_ = query.shape
    query, key, value = (part.transpose(0, 1).flatten(0, 1) for part in (query, key, value))  # B x S, heads, size
    borders, longest = packed
    attended = varlen_attn(query, key, value, borders, borders, longest, longest)
    assert isinstance(attended, Tensor), "nothing else was asked for"
    return attended.unflatten(0, (batch, sequence)).transpose(0, 1)


def rotary(position: Tensor, head_size: int, dtype: torch.dtype) -> Rotary:
    """Return the angles of positions (Su et al., 2021; halves of a head's features are turned, as in GPT-NeoX).

    Args:
        position: int64 (B, S), or (1, S) if they are the same for all items.
        head_size: features of a head, even.
        dtype: of the network; the angles are computed in float32.
    """
    power = torch.arange(0, head_size, 2, device=position.device, dtype=torch.float32) / head_size
    angle = position.t()[:, :, None, None] / 10_000**power
    angle = torch.cat((angle, angle), dim=-1)
    return Rotary(angle.cos().to(dtype), angle.sin().to(dtype))
