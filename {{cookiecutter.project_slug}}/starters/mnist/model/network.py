"""The networks, from Megatron's parallel layers: an autoencoder for pretraining, a classifier on its trunk.

An image is read as a sequence of its 28 rows, so that every activation has Megatron's shape (sequence, batch, hidden)
and the network can be split in every way that Megatron knows:

    tensor parallel     each MLP's inner features are divided (ColumnParallelLinear, then RowParallelLinear)
    sequence parallel   between those pairs, the rows are divided too
    pipeline parallel   the trunk's blocks are divided; the first stage has the stem, the last the latent and the heads

Shapes, in the order of the letters: S rows of an image, B micro batch, P pixels of a row, H hidden size, F feed-forward
size, Z latent size, C classes. This file knows no run settings, only the config of its sizes.
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
)
from .item import IMAGE_SIDE, NUM_CLASSES, MnistItem


class Block(MegatronModule):
    """A residual block: x + dropout(MLP(norm(x))), of shape (S, B, H)."""

    def __init__(self, config: NetworkConfig, number: int) -> None:
        """Build norm and MLP; all blocks are alike."""
        super().__init__(config)
        self.norm = Norm(config)
        self.mlp = MLP(config, config.hidden_size, config.hidden_size, config.output_layer_init_method)
        self.dropout = Dropout(config)

    def forward(self, hidden: Tensor) -> Tensor:
        """Map (S, B, H) to (S, B, H)."""
        return hidden + self.dropout(self.mlp(self.norm(hidden)))


class Trunk(MegatronModule):
    """From images to latents; the part that pretraining hands to finetuning."""

    def __init__(self, config: NetworkConfig, pre_process: bool, post_process: bool, vp_stage: int) -> None:
        """Build the stem on the first stage, a share of the blocks, and the latent layer on the last stage."""
        super().__init__(config)
        self.pre_process, self.post_process = pre_process, post_process
        if pre_process:
            with start_weights(config, "stem"):
                self.stem = MLP(config, IMAGE_SIDE, config.hidden_size)
        self.blocks = Blocks(config, vp_stage, Block)
        if post_process:
            self.norm = Norm(config)
            with start_weights(config, "latent"):
                self.latent = whole_linear(config, IMAGE_SIDE * config.hidden_size, config.latent_size)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (B, 1, S, P), or the previous stage's (S, B, H), to (S, B, H), on the last stage to (B, Z)."""
        if self.pre_process:
            rows = x.squeeze(1).transpose(0, 1).contiguous()  # S B P
            x = self.stem(scatter_sequence(rows, self.config))
        hidden = self.blocks(x)
        if not self.post_process:
            return hidden
        hidden = gather_sequence(self.norm(hidden), self.config)
        latent, _ = self.latent(hidden.transpose(0, 1).flatten(1))
        return latent


class Decoder(MegatronModule):
    """From latents back to images."""

    def __init__(self, config: NetworkConfig) -> None:
        """Build the layer that spreads the latent over the rows, and the MLP that draws each row."""
        super().__init__(config)
        with start_weights(config, "decoder"):
            self.rows = whole_linear(config, config.latent_size, IMAGE_SIDE * config.hidden_size)
            self.norm = Norm(config)
            self.pixels = MLP(config, config.hidden_size, IMAGE_SIDE)

    def forward(self, latent: Tensor) -> Tensor:
        """Map (B, Z) to images (B, 1, S, P)."""
        rows, _ = self.rows(F.gelu(latent))
        hidden = rows.view(-1, IMAGE_SIDE, self.config.hidden_size).transpose(0, 1)  # S B H
        pixels = self.pixels(self.norm(scatter_sequence(hidden, self.config)))
        pixels = gather_sequence(pixels, self.config)
        return pixels.transpose(0, 1).unsqueeze(1)


class Classifier(MegatronModule):
    """From latents to the scores of the classes; the new head of finetuning."""

    def __init__(self, config: NetworkConfig) -> None:
        """Build one linear layer; tensor parallel ranks share the latent's features."""
        super().__init__(config)
        with start_weights(config, "classifier"):
            self.scores = small_linear(config, config.latent_size, NUM_CLASSES)

    def forward(self, latent: Tensor) -> Tensor:
        """Map (B, Z) to logits (B, C)."""
        logits, _ = self.scores(F.gelu(latent))
        return logits


class Stage(PipelineStage):
    """One pipeline stage of a network: the trunk, and on the last stage the heads that the config asks for.

    The last stage returns a dict: `latent` (B, Z), and where there is such a head `reconstruction` (B, 1, S, P) and
    `logits` (B, C). Every other stage returns its activations, (S, B, H).
    """

    def __init__(
        self, config: NetworkConfig, pre_process: bool = True, post_process: bool = True, vp_stage: int = 0
    ) -> None:
        """Build what this stage holds of the network."""
        super().__init__(config, pre_process, post_process, vp_stage)
        self.trunk = Trunk(config, pre_process, post_process, vp_stage)
        if config.decoder and post_process:
            self.image_decoder = Decoder(config)  # not `decoder`: Megatron's schedule would look for decoder.layers
        if config.classifier and post_process:
            self.classifier = Classifier(config)

    def forward(self, batch: MnistItem) -> Tensor | dict[str, Tensor]:
        """Compute this stage for one micro batch; see the class for what comes back."""
        x = batch["data"].to(self.config.params_dtype) if self.pre_process else self.input_tensor
        latent = self.trunk(x)
        if not self.post_process:
            return latent
        output = {"latent": latent}
        if hasattr(self, "image_decoder"):
            output["reconstruction"] = self.image_decoder(latent)
        if hasattr(self, "classifier"):
            output["logits"] = self.classifier(latent)
        return output
