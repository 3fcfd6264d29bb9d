"""Pieces of any network, from Megatron's parallel layers: they know shapes and the layout, and of the data its length.

Shapes, in the order of the letters: S sequence, B micro batch, H hidden size. With sequence parallel, each tensor
parallel rank holds its own part of S; what needs the whole sequence stands between `gather_sequence` and
`scatter_sequence`.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import copy
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from megatron.core import parallel_state, tensor_parallel
from megatron.core.enums import ModelType
from megatron.core.tensor_parallel import ColumnParallelLinear, RowParallelLinear
from megatron.core.transformer.module import MegatronModule
from torch import Tensor, nn

from .data.item import SEQUENCE_LENGTH
from .errors import UserError

if TYPE_CHECKING:
    from .config import NetworkConfig


@contextmanager
def start_weights(config: NetworkConfig, part: str) -> Iterator[None]:
    """Draw the start weights of a part from a seed of its own, so that they are the same whichever stage builds it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(zlib.crc32(f"{config.init_seed}:{part}".encode()))
        yield


def row_by_row(layer: nn.Module, config: NetworkConfig) -> nn.Module:
    """Mark a layer of torch's own that maps each of the S rows for itself, and return it.

    With sequence parallel a rank sees some rows only; Megatron then sums the gradients over the tensor parallel ranks.
    """
    for parameter in layer.parameters():
        setattr(parameter, "sequence_parallel", config.sequence_parallel)  # noqa: B010 (torch's type has no such attribute)
    return layer


class Norm(nn.LayerNorm):
    """LayerNorm over the features of each row; (S, B, H) to (S, B, H)."""

    def __init__(self, config: NetworkConfig) -> None:
        """Normalise the last dimension, of size H."""
        super().__init__(config.hidden_size, eps=config.layernorm_epsilon, dtype=config.params_dtype)
        row_by_row(self, config)


class MLP(MegatronModule):
    """Two linear layers around a GELU; tensor parallel ranks share the inner features.

    Maps (S, B, input_size) to (S, B, output_size). With sequence parallel, S is this rank's part of the rows.
    """

    def __init__(
        self,
        config: NetworkConfig,
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


class Dropout(MegatronModule):
    """Zeroes features in training, with the probability hidden_dropout of the config; (S, B, H) to (S, B, H)."""

    def forward(self, x: Tensor) -> Tensor:
        """Drop other features in every call, the same ones on ranks that hold the same rows."""
        if not (self.training and self.config.hidden_dropout):
            return x
        if not self.config.sequence_parallel:
            return F.dropout(x, self.config.hidden_dropout)
        # each rank holds other rows, and so needs other random numbers
        with tensor_parallel.get_cuda_rng_tracker().fork():
            return F.dropout(x, self.config.hidden_dropout)


class Blocks(MegatronModule):
    """This stage's share of the trunk's blocks, each under its number in the whole trunk."""

    def __init__(self, config: NetworkConfig, vp_stage: int, block: Callable[[NetworkConfig], nn.Module]) -> None:
        """Build the blocks of this pipeline rank (and of this virtual stage, if any); `block` makes one of them."""
        super().__init__(config)
        stages = config.pipeline_model_parallel_size
        chunk = parallel_state.get_pipeline_model_parallel_rank() + stages * vp_stage
        share = config.num_layers // (stages * (config.virtual_pipeline_model_parallel_size or 1))
        for number in range(chunk * share, (chunk + 1) * share):
            with start_weights(config, f"block {number}"):
                self.add_module(str(number), block(config))

    def forward(self, hidden: Tensor) -> Tensor:
        """Map (S, B, H) to (S, B, H)."""
        for block in self.children():
            hidden = block(hidden)
        return hidden


class PipelineStage(MegatronModule):
    """What Megatron's schedules want of a pipeline stage; a network's own `Stage` adds its parts and `forward`."""

    model_type = ModelType.encoder_or_decoder  # one input, one output: what the schedules pass between stages
    share_embeddings_and_output_weights = False  # as a language model's first and last stage may

    def __init__(
        self, config: NetworkConfig, pre_process: bool = True, post_process: bool = True, vp_stage: int = 0
    ) -> None:
        """Say where the stage stands.

        Args:
            config: of the whole network.
            pre_process: it is the first stage, which takes the batch.
            post_process: it is the last stage, which has the heads.
            vp_stage: which of this rank's virtual stages it is.
        """
        super().__init__(config)
        self.pre_process, self.post_process, self.vp_stage = pre_process, post_process, vp_stage
        self.input_tensor: Tensor | None = None
        self.register_forward_hook(_check_output)

    def set_input_tensor(self, input_tensor: Tensor | list[Tensor] | None) -> None:
        """Take the previous stage's output; Megatron's schedule calls this before `forward`."""
        self.input_tensor = input_tensor[0] if isinstance(input_tensor, list) else input_tensor


def _check_output(stage: PipelineStage, arguments: tuple[Any, ...], output: Any) -> None:
    """Raise a UserError for what the next stage or the loss cannot take; sent on, a wrong shape only hangs."""
    [batch], config = arguments, stage.config
    size = len(batch["idx"])
    if stage.post_process:
        if not isinstance(output, dict) or any(value.shape[:1] != (size,) for value in output.values()):
            shapes = {name: tuple(value.shape) for name, value in output.items()} if isinstance(output, dict) else None
            given = shapes or type(output).__name__
            raise UserError(f"model.py: the last stage gives {given}, not a dict with a row for each of {size} items")
        return
    length = SEQUENCE_LENGTH // (config.tensor_model_parallel_size if config.sequence_parallel else 1)
    expected, found = (length, size, config.hidden_size), tuple(getattr(output, "shape", ()))
    if found != expected:
        raise UserError(f"model.py: a stage gives {found} to the next one, not (sequence, items, hidden) {expected}")


def gather_sequence(x: Tensor, config: NetworkConfig) -> Tensor:
    """Give every tensor parallel rank the whole sequence, (S, B, any), if the ranks hold parts of it."""
    if not config.sequence_parallel:
        return x
    return tensor_parallel.gather_from_sequence_parallel_region(x, tensor_parallel_output_grad=False)


def scatter_sequence(x: Tensor, config: NetworkConfig) -> Tensor:
    """Keep this rank's part of a sequence (S, B, any) that all have, if the ranks hold parts of it."""
    return tensor_parallel.scatter_to_sequence_parallel_region(x) if config.sequence_parallel else x


def whole_linear(config: NetworkConfig, input_size: int, output_size: int) -> ColumnParallelLinear:
    """Build a layer of whole items (B, features), which every rank has; tensor parallel ranks share its outputs."""
    return ColumnParallelLinear(
        input_size,
        output_size,
        config=without_sequence_parallel(config),
        init_method=config.init_method,
        gather_output=True,
    )


def small_linear(config: NetworkConfig, input_size: int, output_size: int) -> RowParallelLinear:
    """Build a layer of whole items as `whole_linear` does, for any output size: ranks share its inputs."""
    return RowParallelLinear(
        input_size,
        output_size,
        config=without_sequence_parallel(config),
        init_method=config.init_method,
        bias=True,
        input_is_parallel=False,
        skip_bias_add=False,
    )


def without_sequence_parallel(config: NetworkConfig) -> NetworkConfig:
    """Return the config of a layer whose input is whole on every rank, not a part of the sequence."""
    whole = copy(config)
    whole.sequence_parallel = False
    return whole
