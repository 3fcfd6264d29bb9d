"""Layers that tensor, sequence and pipeline parallel ranks share, and the ways between a part and the whole."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from functools import partial
from typing import Any, TypeVar

import torch.nn.functional as F
from megatron.core import parallel_state, tensor_parallel
from megatron.core.tensor_parallel import ColumnParallelLinear, RowParallelLinear
from megatron.core.transformer.module import MegatronModule
from torch import Tensor, nn

from ..contracts.config import NetworkConfig
from ..contracts.start import start_weights
from .elementwise import add, gelu, joined, norm

Layer = TypeVar("Layer", bound=nn.Module)


def row_by_row(layer: Layer, config: NetworkConfig) -> Layer:
    """Mark a layer of torch's own that maps each of the S rows for itself, and return it.

    With sequence parallel a rank sees some rows only; Megatron then sums the gradients over the tensor parallel ranks.
    """
    for parameter in layer.parameters():
        setattr(parameter, "sequence_parallel", config.sequence_parallel)  # noqa: B010 (torch's type has no such attribute)
    return layer


def linear_by_row(config: NetworkConfig, input_size: int, output_size: int) -> nn.Linear:
    """Build a linear layer that every rank has whole, (S, B, input_size) to (S, B, output_size), any part of S."""
    layer = nn.Linear(input_size, output_size, dtype=config.params_dtype)
    assert config.init_method is not None, "NetworkConfig has one"
    config.init_method(layer.weight)
    nn.init.zeros_(layer.bias)
    return row_by_row(layer, config)


class Norm(nn.LayerNorm):
    """LayerNorm over the features of each row; (S, B, H) to (S, B, H)."""

    def __init__(self, config: NetworkConfig) -> None:
        """Normalise the last dimension, of size H."""
        super().__init__(config.hidden_size, eps=config.layernorm_epsilon, dtype=config.params_dtype)
        self.config = config
        row_by_row(self, config)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise each row."""
        return joined(norm, self.config, x, self.weight, self.bias, self.eps)


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
            input_size, inner, config=config, init_method=config.init_method, gather_output=False, skip_bias_add=True
        )
        self.down = RowParallelLinear(
            inner,
            output_size,
            config=config,
            init_method=output_init_method or config.init_method,
            bias=True,
            input_is_parallel=True,
            skip_bias_add=True,
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (S, B, input_size) to (S, B, output_size)."""
        output, bias = self.parts(x)
        return output + bias

    def parts(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map (S, B, input_size) to (S, B, output_size) and the bias that is still to be added."""
        if self.training and self.config.recompute == "selective":
            # the bias must not pass through: autograd would take it for an output that is computed again, without end
            return recomputed(lambda x: self._parts(x)[0], x), self.down.bias
        return self._parts(x)

    def _parts(self, x: Tensor) -> tuple[Tensor, Tensor]:
        inner, bias = self.up(x)
        output, bias = self.down(joined(gelu, self.config, inner, bias))
        return output, bias


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


class Residual(MegatronModule):
    """Adds what a layer makes of its input to the input: input + dropout(output + bias), all (S, B, H)."""

    def __init__(self, config: NetworkConfig) -> None:
        """Drop with the probability hidden_dropout of the config."""
        super().__init__(config)
        self.dropout = Dropout(config)

    def forward(self, x: Tensor, output: Tensor, bias: Tensor) -> Tensor:
        """Take the two parts that `parts` of a layer gives."""
        if self.training and self.config.hidden_dropout:
            return x + self.dropout(output + bias)
        return joined(add, self.config, x, output, bias)


class Blocks(MegatronModule):
    """This stage's share of the trunk's blocks, each under its number in the whole trunk."""

    def __init__(self, config: NetworkConfig, vp_stage: int, block: Callable[[NetworkConfig, int], nn.Module]) -> None:
        """Build the blocks of this pipeline rank (and of this virtual stage, if any).

        Args:
            config: of the whole network.
            vp_stage: which of this rank's virtual stages it is.
            block: makes one, given the config and its number in the whole trunk.
        """
        super().__init__(config)
        stages = config.pipeline_model_parallel_size
        chunk = parallel_state.get_pipeline_model_parallel_rank() + stages * vp_stage
        share = config.num_layers // (stages * (config.virtual_pipeline_model_parallel_size or 1))
        for number in range(chunk * share, (chunk + 1) * share):
            with start_weights(config, f"block {number}"):
                self.add_module(str(number), block(config, number))

    def forward(self, hidden: Tensor, *others: Any) -> Tensor:
        """Map (S, B, H) to (S, B, H); what else is given, such as a mask, every block is given too."""
        for block in self.children():
            run = partial(_call, block, others)
            hidden = recomputed(run, hidden) if self.training and self.config.recompute == "full" else run(hidden)
        return hidden


def _call(block: nn.Module, others: tuple[Any, ...], hidden: Tensor) -> Tensor:
    return block(hidden, *others)


def recomputed(function: Callable[[Tensor], Any], x: Tensor) -> Any:
    """Compute a part of the network now, and its activations again in the backward pass (Chen et al., 2016)."""
    return tensor_parallel.checkpoint(function, False, x)


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
