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
        self.input_tensor: Tensor | None = None
        self.register_forward_hook(_check_output)

    def set_input_tensor(self, input_tensor: Tensor | list[Tensor] | None) -> None:
        """Take the previous stage's output; Megatron's schedule calls this before `forward`."""
        self.input_tensor = input_tensor[0] if isinstance(input_tensor, list) else input_tensor


def _check_output(stage: PipelineStage, arguments: tuple[Any, ...], output: Any) -> None:
    """Raise a UserError for what the next stage or the loss cannot take."""
    [batch], config = arguments, stage.config
    size = len(batch["idx"])
    if stage.post_process:
        if not isinstance(output, dict) or any(value.shape[:1] != (size,) for value in output.values()):
            shapes = {name: tuple(value.shape) for name, value in output.items()} if isinstance(output, dict) else None
            given = shapes or type(output).__name__
            rule = f"a dict with a row for each of {size} items"
            raise UserError(f"model/network.py: the last stage gives {given}, not {rule}")
        return
    length = config.sequence_length // (config.tensor_model_parallel_size if config.sequence_parallel else 1)
    expected, found = (length, size, config.hidden_size), tuple(getattr(output, "shape", ()))
    if found != expected:
        rule = f"(sequence, items, hidden) {expected}"
        raise UserError(f"model/network.py: a stage gives {found} to the next one, not {rule}")
