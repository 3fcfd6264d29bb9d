"""The network: a mixer (Tolstikhin et al., 2021) over the steps and the features of a wave.

Shapes, in the order of the letters: S steps, B micro batch, C channels, H hidden size, Z latent size.
"""

from __future__ import annotations

import torch.nn.functional as F
from megatron.core.transformer.module import MegatronModule
from torch import Tensor

from ..contracts.config import NetworkConfig
from ..layers import (
    MLP,
    Blocks,
    Dropout,
    Norm,
    PipelineStage,
    gather_sequence,
    scatter_sequence,
    small_linear,
    start_weights,
    whole_linear,
    without_sequence_parallel,
)
from .item import WaveItem


class Block(MegatronModule):
    """A residual block that mixes the steps of each feature, then the features of each step."""

    def __init__(self, config: NetworkConfig, number: int) -> None:
        """Build a norm, an MLP over the steps and one over the features."""
        super().__init__(config)
        self.norm, self.dropout = Norm(config), Dropout(config)
        self.steps = MLP(without_sequence_parallel(config), config.sequence_length, config.sequence_length)
        self.mlp = MLP(config, config.hidden_size, config.hidden_size, config.output_layer_init_method)

    def forward(self, hidden: Tensor) -> Tensor:
        """Map (S, B, H) to (S, B, H)."""
        x = self.norm(hidden)
        whole = gather_sequence(x, self.config).transpose(0, 2).contiguous()  # H B S
        mixed = self.steps(whole).transpose(0, 2).contiguous()
        x = x + scatter_sequence(mixed, self.config)
        return hidden + self.dropout(self.mlp(x))


class Stage(PipelineStage):
    """One pipeline stage: a stem, blocks, a latent and two answers.

    The last stage returns `latent` (B, Z), `logits` (B, 8) of the frequencies, and `amplitude` (B) in volts.
    """

    def __init__(self, config: NetworkConfig, pre_process: bool, post_process: bool, vp_stage: int) -> None:
        """Build the stem on the first stage, a share of the blocks, and the rest on the last stage."""
        super().__init__(config, pre_process, post_process, vp_stage)
        if pre_process:
            with start_weights(config, "stem"):
                self.stem = MLP(config, 3, config.hidden_size)
        self.blocks = Blocks(config, vp_stage, Block)
        if post_process:
            self.norm = Norm(config)
            with start_weights(config, "latent"):
                self.latent = whole_linear(config, config.hidden_size, config.latent_size)
            with start_weights(config, "answers"):
                self.frequency = small_linear(config, config.latent_size, 8)
                self.amplitude = small_linear(config, config.latent_size, 1)

    def forward(self, batch: WaveItem) -> Tensor | dict[str, Tensor]:
        """Compute this stage for one micro batch; all but the last give (S, B, H)."""
        hidden = self.blocks(self.embed(batch["wave"]) if self.pre_process else self.input_tensor)
        if not self.post_process:
            return hidden
        latent, _ = self.latent(gather_sequence(self.norm(hidden), self.config).mean(dim=0))
        logits, _ = self.frequency(F.gelu(latent))
        amplitude, _ = self.amplitude(F.gelu(latent))
        return {"latent": latent, "logits": logits, "amplitude": amplitude.squeeze(1)}

    def embed(self, wave: Tensor) -> Tensor:
        """Map waves (B, S, C) to this rank's part of (S, B, H)."""
        steps = wave.to(self.config.params_dtype).transpose(0, 1).contiguous()
        return self.stem(scatter_sequence(steps, self.config))
