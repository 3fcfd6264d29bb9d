"""The division of the gradients by what the global batch counts, without waiting for the device."""

from __future__ import annotations

from typing import Any

import torch
from megatron.core import parallel_state
from megatron.core.distributed import finalize_model_grads
from torch import Tensor


def finalize(chunks: list[Any], num_tokens: Tensor | None = None, **kwargs: Any) -> None:
    """Finish the gradients as Megatron does, and divide them by the count of all micro batches and ranks.

    Args:
        chunks: this rank's virtual stages, in Megatron's data parallel wrapper.
        num_tokens: int32 scalar, the count of this rank's micro batches; 0 where the stage is not the last one.
        kwargs: Megatron's own.
    """
    finalize_model_grads(chunks, None, **kwargs)
    if num_tokens is None:
        return
    stages, replicas = parallel_state.get_pipeline_model_parallel_group(), parallel_state.get_data_parallel_group()
    if stages.size() > 1:
        last = parallel_state.get_pipeline_model_parallel_last_rank()
        torch.distributed.broadcast(num_tokens, src=last, group=stages)
    if replicas.size() > 1:
        torch.distributed.all_reduce(num_tokens, group=replicas)
    for chunk in chunks:
        chunk.scale_gradients(1.0 / num_tokens.clamp(min=1))
