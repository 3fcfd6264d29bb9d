"""What each pipeline stage holds: the network itself is built, and a micro batch of it run, without any numbers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from megatron.core.transformer.module import Float16Module
from torch import Tensor

from ..contracts.config import NetworkConfig
from ..contracts.errors import UserError
from ..contracts.item import Key, keys_for
from ..contracts.settings import RunSettings
from ..runtime.rehearsal import as_rank
from .allocations import Allocations, As


@dataclass(frozen=True)
class Activations:
    """What a micro batch takes in one (virtual) stage of a rank, in bytes."""

    kept: int
    """between its forward and its backward pass"""
    forward: int
    """at most in its forward pass"""
    backward: int
    """at most in its backward pass, what was kept counted in"""


@dataclass(frozen=True)
class Stage:
    """What a rank of a pipeline stage holds; of its virtual stages, in their order, where there are several."""

    parameters: int
    """of the rank"""
    trained: int
    """of these, what gradients are computed for"""
    whole: int
    """of all tensor parallel ranks together; a copy of a tied weight counts nothing"""
    whole_trained: int
    """of these, what gradients are computed for"""
    activations: dict[str, list[Activations]]
    """of each virtual stage, by what is computed again in the backward pass; none where that cannot be said"""
    unknown: str
    """why not"""


def rehearse(settings: RunSettings, config: NetworkConfig, number: int, variants: tuple[str, ...]) -> Stage:
    """Build a pipeline stage as its first tensor parallel rank does, and run a micro batch through it.

    Args:
        settings: of the run.
        config: of the network; gets the layout and the precision.
        number: of the stage.
        variants: values of the config's `recompute`.

    Raises:
        UserError: the network cannot be built in this layout, or is not what its contract says.
    """
    layout = settings.parallel
    _connect(config, settings)
    with as_rank(number * layout.tensor, layout.tensor, layout.pipeline, layout.virtual_pipeline):
        with _told("cannot be built in this layout"):
            chunks = [config.configure_model(part) for part in range(layout.virtual_pipeline)]
        weights = [weight for chunk in chunks for weight in {id(w): w for w in chunk.parameters()}.values()]
        activations: dict[str, list[Activations]] = {}
        unknown = ""
        try:
            for variant in variants:
                config.recompute = variant
                activations[variant] = [_run(chunk, settings, config) for chunk in chunks]
        except UserError:
            raise
        except Exception as error:  # what a network does with numbers cannot be done without them
            unknown = f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"
        return Stage(
            parameters=sum(weight.numel() for weight in weights),
            trained=sum(weight.numel() for weight in weights if weight.requires_grad),
            whole=sum(_whole(weight, layout.tensor) for weight in weights),
            whole_trained=sum(_whole(weight, layout.tensor) for weight in weights if weight.requires_grad),
            activations=activations,
            unknown=unknown,
        )


def _connect(config: NetworkConfig, settings: RunSettings) -> None:
    """Tell the config what NeMo's strategy tells it."""
    layout, is_bf16 = settings.parallel, settings.training.precision == "bf16"
    dtype = torch.bfloat16 if is_bf16 else torch.float32
    told = {
        "tensor_model_parallel_size": layout.tensor,
        "pipeline_model_parallel_size": layout.pipeline,
        "virtual_pipeline_model_parallel_size": layout.virtual_pipeline if layout.virtual_pipeline > 1 else None,
        "sequence_parallel": layout.sequence,
        "params_dtype": dtype,
        "pipeline_dtype": dtype,
        "bf16": is_bf16,
        "init_method": _draw_nothing,
        "output_layer_init_method": _draw_nothing,
        "join_kernels": False,  # nothing is compiled; a joined kernel keeps what the separate ones keep
    }
    for name, value in told.items():
        setattr(config, name, value)


def _draw_nothing(weight: Tensor) -> Tensor:
    """Stand in for what draws start weights: there is no room for them."""
    return weight


def _whole(weight: Tensor, tensor: int) -> int:
    if getattr(weight, "shared", False):
        return 0
    return weight.numel() * (tensor if getattr(weight, "tensor_model_parallel", False) else 1)


def _run(chunk: Any, settings: RunSettings, config: NetworkConfig) -> Activations:
    """Run a micro batch through a stage, forward and backward."""
    module = Float16Module(config, chunk) if config.bf16 else chunk
    hooks = [
        weight.register_post_accumulate_grad_hook(_forget_gradient)
        for weight in chunk.parameters()
        if weight.requires_grad
    ]
    try:
        with As(settings.accelerator != "cpu"), Allocations(chunk) as memory:
            size = settings.micro_batch_size
            batch = {name: _empty(size, key) for name, key in keys_for(config.item_class, settings).items()}
            sent = _sent(settings, config)
            module.set_input_tensor(None if chunk.pre_process else sent.requires_grad_())
            output = module(batch)
            if chunk.post_process:
                output = config.get_loss_reduction_class()().forward(batch, output)[0]
            del batch
            kept, forward = memory.held, memory.peak
            memory.peak = memory.held
            if output.requires_grad:
                output.backward(None if chunk.post_process else torch.empty_like(sent))
            return Activations(kept, forward, memory.peak)
    finally:
        for hook in hooks:
            hook.remove()


def _forget_gradient(weight: Tensor) -> None:
    """Do as Megatron does, which adds each gradient to its buffer at once."""
    weight.grad = None


def _empty(size: int, key: Key) -> Tensor:
    return torch.empty([size, *map(int, key.shape)], dtype=getattr(torch, key.dtype))


def _sent(settings: RunSettings, config: NetworkConfig) -> Tensor:
    """Return what stages send to each other."""
    length = config.sequence_length // (config.tensor_model_parallel_size if config.sequence_parallel else 1)
    return torch.empty(length, settings.micro_batch_size, config.hidden_size, dtype=config.params_dtype)


@contextmanager
def _told(what: str) -> Iterator[None]:
    """Say in one line what Megatron refuses."""
    try:
        yield
    except (AssertionError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"the network {what} ({reason}): change the sizes or --parallel") from error
