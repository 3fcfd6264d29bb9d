"""ESM-2 (Lin et al., 2023) from Megatron's parallel layers, with a head for each way to train it.

It is the network of `transformers.EsmForMaskedLM`, to which a test holds it: rotary positions and no others, masked
tokens that are dropped from the embedding, norms before attention and MLP, exact GELU, scores tied to the embedding.

    tensor parallel     heads, the MLP's inner features and the rows of the embedding are divided
    sequence parallel   between attentions and MLPs the positions are divided too
    pipeline parallel   the first stage has the embedding, the last one the final norm and the head

Shapes, in the order of the letters: S tokens of a row, B micro batch, H hidden size, V tokens of the alphabet.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from megatron.core.transformer.module import MegatronModule
from torch import Tensor, nn

from ..contracts.config import NetworkConfig
from ..layers import (
    MLP,
    Attention,
    Blocks,
    Dropout,
    Norm,
    Packed,
    PipelineStage,
    Residual,
    Rotary,
    TiedScores,
    TiedStage,
    embedding,
    gather_sequence,
    linear_by_row,
    rotary,
    scatter_sequence,
    small_linear,
    start_weights,
    whole_linear,
)
from .item import MASK, TOKENS, ProteinItem, most_proteins
from .settings import VOCABULARY_ROWS

MASKED_IN_TRAINING = 0.15 * 0.8
"""Share of tokens that ESM-2 saw as <mask>, by which its embeddings are scaled."""


class Rows:
    """Which protein each position of a micro batch belongs to, and what follows from that."""

    def __init__(self, sequence: Tensor, config: NetworkConfig) -> None:
        """Count the tokens of each protein.

        Args:
            sequence: int64 (B, S); 1, 2, ... by protein, 0 for padding.
            config: of the network.
        """
        self.sequence, self.config = sequence, config
        self.is_packed = config.sequence_length > config.max_length
        self.most = most_proteins(config.sequence_length) if self.is_packed else 1
        self.lengths = self.count(torch.ones_like(sequence))

    def count(self, where: Tensor) -> Tensor:
        """Add up (B, S) by protein: (B, most + 1), padding first."""
        zeros = where.new_zeros(len(where), self.most + 1, dtype=torch.int64)
        return zeros.scatter_add(1, self.sequence, where.long())

    def angles(self) -> Rotary:
        """Return those of the positions, which every protein counts from 0."""
        position = torch.arange(self.sequence.shape[1], device=self.sequence.device)[None]
        if self.is_packed:
            ends = self.lengths[:, 1:].cumsum(1)
            starts = F.pad(ends[:, :-1], (2, 0))  # of padding, of the first protein, and of the others
            position = position - starts.gather(1, self.sequence)
        return rotary(position, self.config.hidden_size // self.config.num_attention_heads, self.config.params_dtype)

    def mask(self) -> Tensor | Packed:
        """Return what may be attended to: the same protein, and never padding of its row."""
        if not self.is_packed:
            return self.sequence > 0
        if self.sequence.is_cuda and self.config.params_dtype == torch.bfloat16:
            return self._borders()
        return self.sequence[:, :, None] == self.sequence[:, None, :]

    def _borders(self) -> Packed:
        """Lay out proteins and then the padding of each row, in pieces that are no longer than a protein may be."""
        longest = self.config.max_length
        begins = torch.arange(0, self.config.sequence_length, longest, device=self.sequence.device)
        padding = (self.lengths[:, :1] - begins).clamp(0, longest)
        lengths = torch.cat((self.lengths[:, 1:], padding), dim=1).flatten()
        return Packed(F.pad(lengths.cumsum(0), (1, 0)).int(), longest)

    def scale(self, is_mask: Tensor) -> Tensor:
        """Return by what token dropout scales the embeddings, float (B, S): 0 for masks and padding.

        As masks are missing from the sum, what is left is made larger, and by as much smaller as they are always
        missing in training (`EsmEmbeddings` of transformers).
        """
        share = self.count(is_mask) / self.lengths.clamp(min=1)
        scale = (1 - MASKED_IN_TRAINING) / (1 - share.float()).gather(1, self.sequence)
        return scale.masked_fill(is_mask | (self.sequence == 0), 0.0)


class Block(MegatronModule):
    """Attention, then an MLP, each with a norm before it and added to its input: (S, B, H) to (S, B, H)."""

    def __init__(self, config: NetworkConfig, number: int) -> None:
        """Build the layer; all are alike, but for those above the one whose features are asked for."""
        super().__init__(config)
        self.is_seen = is_seen(number, config)
        self.attention_norm = Norm(config)
        self.attention = Attention(config, bias=True)
        self.mlp_norm = Norm(config)
        self.mlp = MLP(config, config.hidden_size, config.hidden_size, config.output_layer_init_method)
        self.residual = Residual(config)

    def forward(self, hidden: Tensor, mask: Tensor | Packed, angles: Rotary) -> Tensor:
        """Attend to what the mask allows; or give back what came, above the layer that is asked for."""
        if not self.is_seen:
            return hidden
        hidden = self.residual(hidden, *self.attention.parts(self.attention_norm(hidden), mask, angles))
        return self.residual(hidden, *self.mlp.parts(self.mlp_norm(hidden)))


class Trunk(MegatronModule):
    """From tokens to features of each position; the part that pretraining hands to finetuning."""

    def __init__(self, config: NetworkConfig, pre_process: bool, post_process: bool, vp_stage: int) -> None:
        """Build the embedding on the first stage, a share of the layers, and the final norm on the last stage."""
        super().__init__(config)
        self.pre_process, self.post_process = pre_process, post_process
        if pre_process:
            self.embedding = embedding(config, VOCABULARY_ROWS)
        self.blocks = Blocks(config, vp_stage, Block)
        if post_process:
            self.norm = Norm(config)

    def forward(self, batch: ProteinItem, rows: Rows, x: Tensor | None) -> Tensor:
        """Map tokens, or the previous stage's activations x, to this rank's part of (S, B, H)."""
        hidden = self.embed(batch["tokens"], rows) if self.pre_process else x
        hidden = self.blocks(hidden, rows.mask(), rows.angles())
        return self.norm(hidden) if self.post_process and is_whole(self.config) else hidden

    def embed(self, tokens: Tensor, rows: Rows) -> Tensor:
        """Map whole tokens (B, S) to this rank's part of (S, B, H)."""
        embedded = self.embedding(tokens)
        scaled = embedded * rows.scale(tokens == MASK).to(embedded.dtype).unsqueeze(-1)
        return scatter_sequence(scaled.transpose(0, 1).contiguous(), self.config)


class MaskedHead(MegatronModule):
    """The scores of the tokens; `EsmLMHead` of transformers."""

    def __init__(self, config: NetworkConfig, tied: nn.Parameter | None) -> None:
        """Build it, with the embedding's rows where they are on the same stage."""
        super().__init__(config)
        with start_weights(config, "masked head"):
            self.dense = linear_by_row(config, config.hidden_size, config.hidden_size)
            self.norm = Norm(config)
        self.scores = TiedScores(config, tied, VOCABULARY_ROWS)

    def forward(self, hidden: Tensor, tied: Tensor | None) -> Tensor:
        """Map this rank's part of (S, B, H) to (B, S, V); the embedding's padding is never predicted."""
        scores = self.scores(self.norm(F.gelu(self.dense(hidden))), tied)
        return scores[..., : len(TOKENS)].transpose(0, 1)


class MaskedStage(TiedStage):
    """A stage of the network that guesses masked tokens. The last one gives `logits` (B, S, V), and `hidden`."""

    def __init__(
        self, config: NetworkConfig, pre_process: bool = True, post_process: bool = True, vp_stage: int = 0
    ) -> None:
        """Build what this stage holds of the network."""
        super().__init__(config, pre_process, post_process, vp_stage)
        self.trunk = Trunk(config, pre_process, post_process, vp_stage)
        if post_process:
            self.head = MaskedHead(config, self.tied)

    @property
    def tied(self) -> nn.Parameter | None:
        """The rows of the embedding, if they are on this stage."""
        return self.trunk.embedding.weight if self.pre_process else None

    def forward(self, batch: ProteinItem) -> Tensor | dict[str, Tensor]:
        """Compute this stage for one micro batch."""
        hidden = self.trunk(batch, Rows(batch["sequence"], self.config), self.input_tensor)
        if not self.post_process:
            return hidden
        return {"logits": self.head(hidden, self.tied), **last_features(hidden, self)}


class Units(nn.Module):
    """The units of the labels: a head of values learns what has mean 0 and deviation 1, and answers in their units.

    Both numbers stay with the weights, and as bits, for a run in bf16 would round them.
    """

    def __init__(self, config: NetworkConfig) -> None:
        """Keep those of the labels to train on; a head that is loaded brings its own."""
        super().__init__()
        self.bits: Tensor
        self.register_buffer("bits", torch.tensor(config.label_units, dtype=torch.float64).view(torch.int64))

    def forward(self, scores: Tensor) -> dict[str, Tensor]:
        """Map scores (B, ..., 1) to `logits` in the units, float32; and give the deviation, which the loss needs."""
        mean, deviation = self.bits.view(torch.float64).float()
        return {"logits": scores.float() * deviation + mean, "_deviation": deviation.expand(len(scores))}


class ProteinHead(MegatronModule):
    """One answer a protein; `EsmClassificationHead` of transformers, of which the first token is seen, or the mean."""

    def __init__(self, config: NetworkConfig) -> None:
        """Build the two layers."""
        super().__init__(config)
        with start_weights(config, "protein head"):
            self.dense = whole_linear(config, config.hidden_size, config.hidden_size)
            self.scores = small_linear(config, config.hidden_size, config.num_outputs)
        self.units = None if config.is_classifier else Units(config)

    def forward(self, hidden: Tensor, batch: ProteinItem) -> Tensor:
        """Map this rank's part of (S, B, H) to (B, outputs)."""
        seen = pooled(gather_sequence(hidden, self.config), batch, self.config.pooling)
        dropout = self.config.hidden_dropout if self.training else 0.0
        dense, _ = self.dense(F.dropout(seen, dropout))
        scores, _ = self.scores(F.dropout(dense.tanh(), dropout))
        return scores


class ResidueHead(MegatronModule):
    """An answer for each position; that of `EsmForTokenClassification` of transformers."""

    def __init__(self, config: NetworkConfig) -> None:
        """Build the layer."""
        super().__init__(config)
        self.dropout = Dropout(config)
        with start_weights(config, "residue head"):
            self.scores = linear_by_row(config, config.hidden_size, config.num_outputs)
        self.units = None if config.is_classifier else Units(config)

    def forward(self, hidden: Tensor, batch: ProteinItem) -> Tensor:
        """Map this rank's part of (S, B, H) to (B, S, outputs)."""
        return gather_sequence(self.scores(self.dropout(hidden)), self.config).transpose(0, 1)


class LabelledStage(PipelineStage):
    """A stage of a finetuned network. The last one gives `logits`, (B, outputs) or (B, S, outputs), and `hidden`."""

    def __init__(
        self, config: NetworkConfig, pre_process: bool = True, post_process: bool = True, vp_stage: int = 0
    ) -> None:
        """Build what this stage holds of the network."""
        super().__init__(config, pre_process, post_process, vp_stage)
        self.trunk = Trunk(config, pre_process, post_process, vp_stage)
        if config.freeze == "trunk":
            self.trunk.requires_grad_(False)
        if post_process:
            self.head = config.head_class(config)

    def forward(self, batch: ProteinItem) -> Tensor | dict[str, Tensor]:
        """Compute this stage for one micro batch."""
        hidden = self.trunk(batch, Rows(batch["sequence"], self.config), self.input_tensor)
        if not self.post_process:
            return hidden
        scores = self.head(hidden, batch)
        answers = {"logits": scores} if self.head.units is None else self.head.units(scores)
        return {**answers, **last_features(hidden, self)}


def is_seen(number: int, config: NetworkConfig) -> bool:
    """Tell whether the block of a number counts: it is not above the layer whose features are asked for (`--layer`)."""
    return config.layer is None or number < config.layer


def is_whole(config: NetworkConfig) -> bool:
    """Tell whether the last block counts, and what follows it: the final norm, and the head's answers."""
    return is_seen(config.num_layers - 1, config)


def last_features(hidden: Tensor, stage: PipelineStage) -> dict[str, Tensor]:
    """Return the last layer's features (B, S, H), which nobody wants while training."""
    return {} if stage.training else {"hidden": gather_sequence(hidden, stage.config).transpose(0, 1)}


def pooled(hidden: Tensor, batch: ProteinItem, pooling: str) -> Tensor:
    """Map whole (S, B, H) to (B, H): the first token, <cls>, or the mean of the residues."""
    if pooling == "first":
        return hidden[0]
    return mean_of_residues(hidden.transpose(0, 1), batch)


def mean_of_residues(hidden: Tensor, batch: ProteinItem) -> Tensor:
    """Map (B, S, H) to (B, H), without padding, <cls> and <eos>."""
    is_residue = is_inside(batch["sequence"]).unsqueeze(-1)
    total = torch.where(is_residue, hidden, 0.0).sum(dim=1, dtype=torch.float32)
    return (total / is_residue.sum(dim=1).clamp(min=1)).to(hidden.dtype)


def is_inside(sequence: Tensor) -> Tensor:
    """Tell which positions (B, S) are residues: neither padding nor a protein's first or last token."""
    before, after = F.pad(sequence[:, :-1], (1, 0)), F.pad(sequence[:, 1:], (0, 1))
    return (sequence > 0) & (sequence == before) & (sequence == after)
