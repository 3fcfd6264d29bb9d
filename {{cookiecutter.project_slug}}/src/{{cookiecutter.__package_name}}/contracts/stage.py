"""What a stage of a network takes and gives.

Pipeline parallel cuts a network into stages. Each one has the whole batch. The first makes activations out of it, every
other goes on from `self.input_tensor`, and all but the last return activations of shape (S, B, H): exactly that is sent
between ranks, so another shape would only hang. S is `sequence_length` of the settings, a rank's part of it with
sequence parallel; B the micro batch; H `hidden_size`. The last stage returns a dict of outputs, B in front of each.

`model/network.py` derives its `Stage` from `PipelineStage`; its parts draw their start weights inside
`start_weights(config, "its name")` (`layers/`), so that they do not depend on the layout.
"""

from __future__ import annotations

from typing import Any

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
        self.set_input_tensor(None)
        self.register_forward_hook(_check_output)

    @property
    def input_tensor(self) -> Tensor | None:
        """The previous stage's output, (S, B, H), which every stage but the first goes on from."""
        self.has_read_input = True
        return self._input_tensor

    def set_input_tensor(self, input_tensor: Tensor | list[Tensor] | None) -> None:
        """Take the previous stage's output; Megatron's schedule calls this before `forward`."""
        self._input_tensor = input_tensor[0] if isinstance(input_tensor, list) else input_tensor
        self.has_read_input = False


def _check_output(stage: PipelineStage, arguments: tuple[Any, ...], output: Any) -> None:
    """Raise a UserError for what the next stage or the loss cannot take."""
    [batch], config = arguments, stage.config
    size = len(batch["idx"])
    if not (stage.pre_process or stage.has_read_input):  # the stage before would wait for gradients that never come
        raise UserError("model/network.py: a stage that is not the first must go on from self.input_tensor, not anew")
    if stage.post_process:
        shapes = {name: _shape(value) for name, value in output.items()} if isinstance(output, dict) else None
        if shapes is None or any(not isinstance(shape, tuple) or shape[:1] != (size,) for shape in shapes.values()):
            given = type(output).__name__ if shapes is None else shapes
            rule = f"a dict with a row for each of {size} items"
            raise UserError(f"model/network.py: the last stage gives {given}, not {rule}")
        return
    length = config.sequence_length // (config.tensor_model_parallel_size if config.sequence_parallel else 1)
    expected, found = (length, size, config.hidden_size), _shape(output)
    if found != expected:
        rule = f"(sequence, items, hidden) {expected}"
        raise UserError(f"model/network.py: a stage gives {found} to the next one, not {rule}")


def _shape(value: Any) -> tuple[int, ...] | str:
    """Return the shape of a tensor, or what stands in its place."""
    return tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
