"""The networks: an encoder with attention (Vaswani et al., 2017), and a head for each task.

Shapes: S letters, B micro batch, H hidden size.
"""

from __future__ import annotations

from megatron.core.transformer.module import MegatronModule
from torch import Tensor, nn

from ..contracts.config import NetworkConfig
from ..layers import (
    MLP,
    Attention,
    Blocks,
    Dropout,
    Norm,
    PipelineStage,
    gather_sequence,
    scatter_sequence,
    small_linear,
    start_weights,
)
from .item import FAMILIES, TOKENS, FamilyItem, MaskedItem


class Block(MegatronModule):
    """Letters look at each other, then each thinks for itself: (S, B, H) to (S, B, H)."""

    def __init__(self, config: NetworkConfig, number: int) -> None:
        """Build attention and MLP, each with a norm before it."""
        super().__init__(config)
        self.attention_norm, self.attention = Norm(config), Attention(config)
        self.mlp_norm = Norm(config)
        self.mlp = MLP(config, config.hidden_size, config.hidden_size, config.output_layer_init_method)
        self.dropout = Dropout(config)

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """Attend to what the mask (B, S) allows."""
        hidden = hidden + self.dropout(self.attention(self.attention_norm(hidden), mask))
        return hidden + self.dropout(self.mlp(self.mlp_norm(hidden)))


class Encoder(PipelineStage):
    """The trunk, which both networks have under the same names: embedding, blocks, and the norm after them."""

    def __init__(self, config: NetworkConfig, pre_process: bool, post_process: bool, vp_stage: int) -> None:
        """Build the embedding on the first stage, a share of the blocks, and the norm on the last stage."""
        super().__init__(config, pre_process, post_process, vp_stage)
        size, dtype = config.hidden_size, config.params_dtype
        if pre_process:
            with start_weights(config, "embedding"):
                self.token = nn.Embedding(len(TOKENS), size, dtype=dtype)
                self.position = nn.Embedding(config.sequence_length, size, dtype=dtype)
        self.blocks = Blocks(config, vp_stage, Block)
        if post_process:
            self.norm = Norm(config)

    def encode(self, tokens: Tensor, is_letter: Tensor) -> Tensor:
        """Map both, (B, S), to this rank's part of (S, B, H). Every stage has the mask, because it has the batch."""
        hidden = self.embed(tokens) if self.pre_process else self.input_tensor
        hidden = self.blocks(hidden, is_letter)
        return self.norm(hidden) if self.post_process else hidden

    def embed(self, tokens: Tensor) -> Tensor:
        """Map whole tokens (B, S) to this rank's part of (S, B, H)."""
        embedded = self.token(tokens.t()) + self.position.weight[:, None]
        return scatter_sequence(embedded, self.config)


class MaskedStage(Encoder):
    """The trunk, and scores of every token at every position: the last stage gives `logits` (B, S, tokens)."""

    def __init__(self, config: NetworkConfig, pre_process: bool, post_process: bool, vp_stage: int) -> None:
        """Build the scores on the last stage."""
        super().__init__(config, pre_process, post_process, vp_stage)
        if post_process:
            with start_weights(config, "scores"):
                self.scores = MLP(config, config.hidden_size, len(TOKENS))

    def forward(self, batch: MaskedItem) -> Tensor | dict[str, Tensor]:
        """Compute this stage for one micro batch."""
        hidden = self.encode(batch["tokens"], batch["is_letter"])
        if not self.post_process:
            return hidden
        scores = gather_sequence(self.scores(hidden), self.config)
        return {"logits": scores.transpose(0, 1)}


class FamilyStage(Encoder):
    """The trunk, and a new head for the mean of its letters: the last stage gives `logits` (B, families)."""

    def __init__(self, config: NetworkConfig, pre_process: bool, post_process: bool, vp_stage: int) -> None:
        """Build the head on the last stage."""
        super().__init__(config, pre_process, post_process, vp_stage)
        if post_process:
            with start_weights(config, "head"):
                self.head = small_linear(config, config.hidden_size, FAMILIES)

    def forward(self, batch: FamilyItem) -> Tensor | dict[str, Tensor]:
        """Compute this stage for one micro batch."""
        hidden = self.encode(batch["letters"], batch["is_letter"])
        if not self.post_process:
            return hidden
        is_letter = batch["is_letter"].t().unsqueeze(2)  # S B 1
        total = (gather_sequence(hidden, self.config) * is_letter).sum(dim=0)
        logits, _ = self.head(total / is_letter.sum(dim=0).clamp(min=1))
        return {"logits": logits}
