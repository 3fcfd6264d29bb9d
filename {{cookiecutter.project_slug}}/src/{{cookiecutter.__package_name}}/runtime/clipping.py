"""The norm and the clipping of gradients in a few kernels, where neither Apex nor Transformer Engine is installed.

Megatron's own fallback takes the norm of each gradient in a kernel of its own and fetches it from the GPU, one after
the other: with forty parameters the GPU waits forty times in each step.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def norm(chunk_size: int, overflow: Tensor, tensor_lists: list[list[Tensor]], *args: Any) -> tuple[Tensor, None]:
    """Return the norm of all tensors together, float32 [1], on their device; as Apex's `multi_tensor_l2norm`."""
    [tensors] = tensor_lists
    return torch.stack(torch._foreach_norm(tensors)).float().norm().view(1), None


def scale(chunk_size: int, overflow: Tensor, tensor_lists: list[list[Tensor]], factor: float) -> None:
    """Write the first list, times the factor, into the second one; as Apex's `multi_tensor_scale`."""
    sources, targets = tensor_lists
    torch._foreach_copy_(targets, torch._foreach_mul(sources, factor))


def use_few_kernels() -> None:
    """Make Megatron clip with the two functions above, unless it has found Apex's or Transformer Engine's."""
    from megatron.core import utils
    from megatron.core.optimizer import clip_grads

    if clip_grads.l2_norm_impl is utils.local_multi_tensor_l2_norm:
        clip_grads.l2_norm_impl, clip_grads.multi_tensor_scale_impl = norm, scale
