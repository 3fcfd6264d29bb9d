"""The optimizer's state of each weight is saved from where it lies, also behind a bucket that was padded.

Megatron fills each bucket of gradients up to a multiple of 128. In the format that any layout can load it collects the
state without that filling, and then looks for each weight's part at a place that counts it.
"""

from __future__ import annotations

from itertools import accumulate
from typing import Any


def use_places_without_padding() -> None:
    """Let Megatron's distributed optimizer find the state of each weight when it saves."""
    from megatron.core.optimizer.distrib_optimizer import DistributedOptimizer

    name = "sharded_param_state_fully_reshardable"
    if not hasattr(getattr(DistributedOptimizer, name), "misled"):
        setattr(DistributedOptimizer, name, _without_padding(getattr(DistributedOptimizer, name)))


def _without_padding(method: Any) -> Any:
    def wrapped(self: Any, *args: Any, **kwargs: Any) -> Any:
        places = [buffer.param_index_map for buffer in self.buffers]
        try:
            for buffer in self.buffers:
                buffer.param_index_map = _places(buffer)
            return method(self, *args, **kwargs)
        finally:
            for buffer, padded in zip(self.buffers, places, strict=True):
                buffer.param_index_map = padded

    wrapped.misled = method  # type: ignore[attr-defined]
    return wrapped


def _places(buffer: Any) -> dict[Any, tuple[int, int, int]]:
    """Return start, end and bucket of each weight, as if no bucket were filled up."""
    padding = [bucket.grad_data.numel() - bucket.numel_unpadded for bucket in buffer.buckets]
    before = [0, *accumulate(padding)]
    return {
        weight: (start - before[bucket], end - before[bucket], bucket)
        for weight, (start, end, bucket) in buffer.param_index_map.items()
    }
