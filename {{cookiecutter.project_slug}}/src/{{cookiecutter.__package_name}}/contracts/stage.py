"""What a stage of a network takes and gives.

Pipeline parallel cuts a network into stages. Each one has the whole batch. The first makes activations out of it, every
other goes on from `self.input_tensor`, and all but the last return activations of shape (S, B, H): exactly that is sent
between ranks, so another shape would only hang. S is `sequence_length` of the settings, a rank's part of it with
sequence parallel; B the micro batch; H `hidden_size`. The last stage returns a dict of outputs, B in front of each; one
whose name begins with _ is for the loss, and no part of an export.

`model/network.py` derives its `Stage` from `PipelineStage`; its parts draw their start weights inside
`start_weights(config, "its name")` (`layers/`), so that they do not depend on the layout.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from megatron.core.enums import ModelType
from megatron.core.transformer.module import MegatronModule
from torch import Tensor

from .errors import UserError


class PipelineStage(MegatronModule):
    """What Megatron's schedules want of a pipeline stage; a network's own `Stage` adds its parts and `forward`."""

    model_type = ModelType.encoder_or_decoder  # one input, one output: what the schedules pass between stages
    share_embeddings_and_output_weights = False  # as a language model's first and last stage may

    def __init__(self, config: Any, pre_process: bool = True, post_process: bool = True, vp_stage: int = 0) -> None:
        """Say where the stage stands.

        Args:
            config: the network's `NetworkConfig`.
            pre_process: it is the first stage, which makes activations out of the batch.
            post_process: it is the last stage, which has the heads.
            vp_stage: which of this rank's virtual stages it is.
        """
        super().__init__(config)
        self.pre_process, self.post_process, self.vp_stage = pre_process, post_process, vp_stage
        self.input_tensor: Tensor | None = None
        self.loaded_heads: tuple[str, ...] = ()
        """of those that a start may lack (start.py), the ones that it had"""
        self.goes_on = pre_process
        """from `input_tensor`, as a training step has shown"""
        self.register_forward_hook(_check_output)

    def set_input_tensor(self, input_tensor: Tensor | list[Tensor] | None) -> None:
        """Take the previous stage's output; Megatron's schedule calls this before `forward`."""
        self.input_tensor = input_tensor[0] if isinstance(input_tensor, list) else input_tensor


def check_stage(stage: type[PipelineStage]) -> None:
    """Raise a UserError for a stage that cannot be built by what `PipelineStage` is built by."""
    try:
        inspect.signature(stage.__init__).bind("self", "config", pre_process=True, post_process=True, vp_stage=0)
    except TypeError as error:
        rule = "it is called with (config, pre_process=..., post_process=..., vp_stage=...)"
        raise UserError(f"model/network.py: {stage.__name__}.__init__ {error}: {rule}") from error


def _check_output(stage: PipelineStage, arguments: tuple[Any, ...], output: Any) -> None:
    """Raise a UserError for what the next stage or the loss cannot take."""
    [batch], config = arguments, stage.config
    size = len(batch["idx"])
    if stage.post_process:
        check_rows(output, size, "model/network.py: the last stage")
    else:
        _check_sent(output, size, config)
    if not stage.goes_on and torch.is_grad_enabled() and stage.input_tensor is not None:
        stage.goes_on = _leads(output, stage.input_tensor)
        if not stage.goes_on:  # or the stage before would wait for ever
            rule = "must go on from self.input_tensor, so that gradients reach the stage before"
            raise UserError(f"model/network.py: a stage that is not the first {rule}")


def check_rows(found: Any, size: int, who: str) -> None:
    """Raise a UserError for what is no dict of tensors with a row for each item."""
    shapes = {name: _shape(value) for name, value in found.items()} if isinstance(found, dict) else None
    if shapes is None or any(shape[:1] != (size,) for shape in shapes.values()):
        given = type(found).__name__ if shapes is None else shapes
        raise UserError(f"{who} gives {given}, not a dict of tensors with a row for each of {size} items")


def _check_sent(output: Any, size: int, config: Any) -> None:
    length = config.sequence_length // (config.tensor_model_parallel_size if config.sequence_parallel else 1)
    expected, found = (length, size, config.hidden_size), _shape(output)
    if found != expected:
        rule = f"(sequence, items, hidden) {expected}"
        raise UserError(f"model/network.py: a stage gives {found} to the next one, not {rule}")


def _shape(value: Any) -> tuple[int, ...] | str:
    """Return the shape of a tensor, or what stands in its place."""
    return tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__


def _leads(output: Tensor | dict[str, Tensor], start: Tensor) -> bool:
    """Tell whether the gradients of an output reach the activations that it should be made of."""
    tensors = list(output.values()) if isinstance(output, dict) else [output]
    nodes = [tensor.grad_fn for tensor in tensors if tensor.grad_fn]
    found = set(nodes)
    while nodes:
        node = nodes.pop()
        if node is start.grad_fn or getattr(node, "variable", None) is start:  # which has no function if it was sent
            return True
        new = {before for before, _ in node.next_functions if before} - found
        found |= new
        nodes += new
    return any(tensor is start for tensor in tensors)
