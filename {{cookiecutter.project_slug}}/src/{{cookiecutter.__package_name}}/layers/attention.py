"""Attention: tensor parallel ranks share the heads."""

from __future__ import annotations

from contextlib import nullcontext

import torch.nn.functional as F
from megatron.core import tensor_parallel
from megatron.core.tensor_parallel import ColumnParallelLinear, RowParallelLinear
from megatron.core.transformer.module import MegatronModule
from torch import Tensor

from ..contracts.config import NetworkConfig


class Attention(MegatronModule):
    """Multi-head self-attention (Vaswani et al., 2017) with a mask, by torch's `scaled_dot_product_attention`.

    The config's `num_attention_heads` must be divided by the tensor parallel size, and divide `hidden_size`. With
    sequence parallel a rank gives and takes its part of the positions, and attends to all of them.
    """

    def __init__(self, config: NetworkConfig) -> None:
        """Build the layer of queries, keys and values, and the one that joins the heads."""
        super().__init__(config)
        size = config.hidden_size
        self.head_size = size // config.num_attention_heads
        # no bias: that of a key adds the same to all scores, so its gradient is rounding, which Adam blows up
        self.query_key_value = ColumnParallelLinear(
            size, 3 * size, config=config, init_method=config.init_method, bias=False, gather_output=False
        )
        self.join = RowParallelLinear(
            size,
            size,
            config=config,
            init_method=config.output_layer_init_method,
            bias=True,
            input_is_parallel=True,
            skip_bias_add=False,
        )

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Map (S, B, H) to (S, B, H).

        Args:
            x: the positions, float.
            mask: bool, True where a position may be attended to: (B, S) for all positions alike, or (B, S, S) with
                the attending one first. A position to which nothing is left attends to nothing.
        """
        combined, _ = self.query_key_value(x)
        sequence, batch, _ = combined.shape
        query, key, value = combined.view(sequence, batch, -1, 3, self.head_size).permute(
            3, 1, 2, 0, 4
        )  # B heads S size
        if mask is not None:
            mask = mask[:, None, None, :] if mask.ndim == 2 else mask[:, None]
        dropout = self.config.attention_dropout if self.training else 0.0
        # tensor parallel ranks have other heads, and so drop with other random numbers
        is_shared = dropout > 0 and self.config.tensor_model_parallel_size > 1
        with tensor_parallel.get_cuda_rng_tracker().fork() if is_shared else nullcontext():
            attended = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout)
        output, _ = self.join(attended.permute(2, 0, 1, 3).reshape(sequence, batch, -1))
        return output
