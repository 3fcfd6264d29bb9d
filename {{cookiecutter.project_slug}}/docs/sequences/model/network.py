"""The network: an encoder with attention (Vaswani et al., 2017). Shapes: S letters, B micro batch, H hidden size."""

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
    start_weights,
)
from .item import TOKENS, ProteinItem


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


class Stage(PipelineStage):
    """One pipeline stage: embedding, blocks, scores. The last one gives `logits` (B, S, tokens)."""

    def __init__(self, config: NetworkConfig, pre_process: bool, post_process: bool, vp_stage: int) -> None:
        """Build the embedding on the first stage, a share of the blocks, and the scores on the last stage."""
        super().__init__(config, pre_process, post_process, vp_stage)
        size, dtype = config.hidden_size, config.params_dtype
        if pre_process:
            with start_weights(config, "embedding"):
                self.token = nn.Embedding(len(TOKENS), size, dtype=dtype)
                self.position = nn.Embedding(config.sequence_length, size, dtype=dtype)
        self.blocks = Blocks(config, vp_stage, Block)
        if post_process:
            self.norm = Norm(config)
            with start_weights(config, "scores"):
                self.scores = MLP(config, size, len(TOKENS))

    def forward(self, batch: ProteinItem) -> Tensor | dict[str, Tensor]:
        """Compute this stage for one micro batch; every stage has the mask, because it has the batch."""
        hidden = self.embed(batch["tokens"]) if self.pre_process else self.input_tensor
        hidden = self.blocks(hidden, batch["is_letter"])
        if not self.post_process:
            return hidden
        scores = gather_sequence(self.scores(self.norm(hidden)), self.config)
        return {"logits": scores.transpose(0, 1)}

    def embed(self, tokens: Tensor) -> Tensor:
        """Map whole tokens (B, S) to this rank's part of (S, B, H)."""
        embedded = self.token(tokens.t()) + self.position.weight[:, None]
        return scatter_sequence(embedded, self.config)
