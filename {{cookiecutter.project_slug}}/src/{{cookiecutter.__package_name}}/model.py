"""The networks, from Megatron's parallel layers: an autoencoder for pretraining, a classifier on its trunk.

An image is read as a sequence of its 28 rows, so that every activation has Megatron's shape (sequence, batch, hidden)
and the network can be split in every way that Megatron knows:

    tensor parallel     each MLP's inner features are divided (ColumnParallelLinear, then RowParallelLinear)
    sequence parallel   between those pairs, the rows are divided too
    pipeline parallel   the trunk's blocks are divided; the first stage has the stem, the last the latent and the heads

Shapes, in the order of the letters: S rows of an image, B micro batch, P pixels of a row, H hidden size, F feed-forward
size, Z latent size, C classes. This file knows no run settings, only the config of its sizes.

To use your own network, keep the contract of `Stage`: `pre_process`, `post_process`, `set_input_tensor`, and
activations of shape (S, B, H) between stages.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import copy
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from megatron.core import parallel_state, tensor_parallel
from megatron.core.enums import ModelType
from megatron.core.tensor_parallel import ColumnParallelLinear, RowParallelLinear
from megatron.core.transformer.module import MegatronModule
from torch import Tensor, nn

from .data.item import IMAGE_SIDE, NUM_CLASSES, SEQUENCE_LENGTH, MnistItem

if TYPE_CHECKING:
    from .config import MnistConfig


@contextmanager
def start_weights(config: MnistConfig, part: str) -> Iterator[None]:
    """Draw the start weights of a part from a seed of its own, so that they are the same whichever stage builds it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(zlib.crc32(f"{config.init_seed}:{part}".encode()))
        yield


class Norm(nn.LayerNorm):
    """LayerNorm whose gradients Megatron sums over the tensor parallel ranks when each of them sees some rows only."""

    def __init__(self, config: MnistConfig) -> None:
        """Normalise the last dimension, of size H."""
        super().__init__(config.hidden_size, eps=config.layernorm_epsilon, dtype=config.params_dtype)
        for parameter in self.parameters():
            setattr(parameter, "sequence_parallel", config.sequence_parallel)  # noqa: B010 (torch's type has no such attribute)


class MLP(MegatronModule):
    """Two linear layers around a GELU; tensor parallel ranks share the inner features.

    Maps (S, B, input_size) to (S, B, output_size). With sequence parallel, S is this rank's part of the rows.
    """

    def __init__(
        self,
        config: MnistConfig,
        input_size: int,
        output_size: int,
        output_init_method: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        """Build the pair; the inner size is the config's ffn_hidden_size."""
        super().__init__(config)
        inner = config.ffn_hidden_size
        self.up = ColumnParallelLinear(
            input_size, inner, config=config, init_method=config.init_method, gather_output=False
        )
        self.down = RowParallelLinear(
            inner,
            output_size,
            config=config,
            init_method=output_init_method or config.init_method,
            bias=True,
            input_is_parallel=True,
            skip_bias_add=False,
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (S, B, input_size) to (S, B, output_size)."""
        inner, _ = self.up(x)
        output, _ = self.down(F.gelu(inner))
        return output


class Block(MegatronModule):
    """A residual block: x + dropout(MLP(norm(x))), of shape (S, B, H)."""

    def __init__(self, config: MnistConfig) -> None:
        """Build norm and MLP."""
        super().__init__(config)
        self.norm = Norm(config)
        self.mlp = MLP(config, config.hidden_size, config.hidden_size, config.output_layer_init_method)

    def forward(self, hidden: Tensor) -> Tensor:
        """Map (S, B, H) to (S, B, H)."""
        return hidden + self._dropout(self.mlp(self.norm(hidden)))

    def _dropout(self, x: Tensor) -> Tensor:
        if not (self.training and self.config.hidden_dropout):
            return x
        if not self.config.sequence_parallel:
            return F.dropout(x, self.config.hidden_dropout)
        # each rank holds other rows, and so needs other random numbers
        with tensor_parallel.get_cuda_rng_tracker().fork():
            return F.dropout(x, self.config.hidden_dropout)


class Blocks(MegatronModule):
    """This stage's share of the trunk's blocks, each under its number in the whole trunk."""

    def __init__(self, config: MnistConfig, vp_stage: int) -> None:
        """Build the blocks of this pipeline rank (and of this virtual stage, if any)."""
        super().__init__(config)
        stages = config.pipeline_model_parallel_size
        chunk = parallel_state.get_pipeline_model_parallel_rank() + stages * vp_stage
        share = config.num_layers // (stages * (config.virtual_pipeline_model_parallel_size or 1))
        for number in range(chunk * share, (chunk + 1) * share):
            with start_weights(config, f"block {number}"):
                self.add_module(str(number), Block(config))

    def forward(self, hidden: Tensor) -> Tensor:
        """Map (S, B, H) to (S, B, H)."""
        for block in self.children():
            hidden = block(hidden)
        return hidden


class Trunk(MegatronModule):
    """From images to latents; the part that pretraining hands to finetuning."""

    def __init__(self, config: MnistConfig, pre_process: bool, post_process: bool, vp_stage: int) -> None:
        """Build the stem on the first stage, a share of the blocks, and the latent layer on the last stage."""
        super().__init__(config)
        self.pre_process, self.post_process = pre_process, post_process
        if pre_process:
            with start_weights(config, "stem"):
                self.stem = MLP(config, IMAGE_SIDE, config.hidden_size)
        self.blocks = Blocks(config, vp_stage)
        if post_process:
            self.norm = Norm(config)
            with start_weights(config, "latent"):
                self.latent = _whole_image_linear(config, SEQUENCE_LENGTH * config.hidden_size, config.latent_size)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (B, 1, S, P), or the previous stage's (S, B, H), to (S, B, H), on the last stage to (B, Z)."""
        hidden = self.stem(_rows(x, self.config)) if self.pre_process else x
        hidden = self.blocks(hidden)
        if not self.post_process:
            return hidden
        hidden = self.norm(hidden)
        if self.config.sequence_parallel:
            hidden = tensor_parallel.gather_from_sequence_parallel_region(hidden, tensor_parallel_output_grad=False)
        latent, _ = self.latent(hidden.transpose(0, 1).flatten(1))
        return latent


class Decoder(MegatronModule):
    """From latents back to images."""

    def __init__(self, config: MnistConfig) -> None:
        """Build the layer that spreads the latent over the rows, and the MLP that draws each row."""
        super().__init__(config)
        with start_weights(config, "decoder"):
            self.rows = _whole_image_linear(config, config.latent_size, SEQUENCE_LENGTH * config.hidden_size)
            self.norm = Norm(config)
            self.pixels = MLP(config, config.hidden_size, IMAGE_SIDE)

    def forward(self, latent: Tensor) -> Tensor:
        """Map (B, Z) to images (B, 1, S, P)."""
        rows, _ = self.rows(F.gelu(latent))
        hidden = rows.view(-1, SEQUENCE_LENGTH, self.config.hidden_size).transpose(0, 1)  # S B H
        if self.config.sequence_parallel:
            hidden = tensor_parallel.scatter_to_sequence_parallel_region(hidden)
        pixels = self.pixels(self.norm(hidden))
        if self.config.sequence_parallel:
            pixels = tensor_parallel.gather_from_sequence_parallel_region(pixels, tensor_parallel_output_grad=False)
        return pixels.transpose(0, 1).unsqueeze(1)


class Classifier(MegatronModule):
    """From latents to the scores of the classes; the new head of finetuning."""

    def __init__(self, config: MnistConfig) -> None:
        """Build one linear layer; tensor parallel ranks share the latent's features."""
        super().__init__(config)
        with start_weights(config, "classifier"):
            self.scores = RowParallelLinear(
                config.latent_size,
                NUM_CLASSES,
                config=_without_sequence_parallel(config),
                init_method=config.init_method,
                bias=True,
                input_is_parallel=False,
                skip_bias_add=False,
            )

    def forward(self, latent: Tensor) -> Tensor:
        """Map (B, Z) to logits (B, C)."""
        logits, _ = self.scores(F.gelu(latent))
        return logits


class Stage(MegatronModule):
    """One pipeline stage of a network: the trunk, and on the last stage the heads that the config asks for.

    The last stage returns a dict: `latent` (B, Z), and where there is such a head `reconstruction` (B, 1, S, P) and
    `logits` (B, C). Every other stage returns its activations, (S, B, H).
    """

    model_type = ModelType.encoder_or_decoder  # one input, one output: what Megatron's schedules pass between stages
    share_embeddings_and_output_weights = False  # as a language model's first and last stage may

    def __init__(
        self,
        config: MnistConfig,
        *,
        decoder: bool,
        classifier: bool,
        pre_process: bool = True,
        post_process: bool = True,
        vp_stage: int = 0,
    ) -> None:
        """Build what this stage holds of the network."""
        super().__init__(config)
        self.pre_process, self.post_process, self.vp_stage = pre_process, post_process, vp_stage
        self.input_tensor: Tensor | None = None
        self.trunk = Trunk(config, pre_process, post_process, vp_stage)
        if decoder and post_process:
            self.image_decoder = Decoder(config)  # not `decoder`: Megatron's schedule would look for decoder.layers
        if classifier and post_process:
            self.classifier = Classifier(config)

    def set_input_tensor(self, input_tensor: Tensor | list[Tensor] | None) -> None:
        """Take the previous stage's output; Megatron's schedule calls this before `forward`."""
        self.input_tensor = input_tensor[0] if isinstance(input_tensor, list) else input_tensor

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


def _rows(images: Tensor, config: MnistConfig) -> Tensor:
    """Read images (B, 1, S, P) as sequences (S, B, P), with sequence parallel this rank's part of them."""
    rows = images.squeeze(1).transpose(0, 1).contiguous()
    return tensor_parallel.scatter_to_sequence_parallel_region(rows) if config.sequence_parallel else rows


def _whole_image_linear(config: MnistConfig, input_size: int, output_size: int) -> ColumnParallelLinear:
    """Build a layer that works on whole images (B, features), of which every tensor parallel rank has all."""
    return ColumnParallelLinear(
        input_size,
        output_size,
        config=_without_sequence_parallel(config),
        init_method=config.init_method,
        gather_output=True,
    )


def _without_sequence_parallel(config: MnistConfig) -> MnistConfig:
    whole = copy(config)
    whole.sequence_parallel = False
    return whole
