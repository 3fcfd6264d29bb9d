"""A run that has ended lets go of its network, its optimizer and its groups.

Megatron hooks each weight's gradient to the network, in an object of C++ that the network keeps: Python's garbage
collector cannot look through it, so all of a run, on a GPU its memory too, stays as long as the process.
"""

from __future__ import annotations

import weakref
from typing import Any


def use_weak_hooks() -> None:
    """Let the hooks of a weight's gradient find network and weight, not own them."""
    from megatron.core.distributed import DistributedDataParallel

    if not hasattr(DistributedDataParallel._make_backward_post_hook, "strong"):
        DistributedDataParallel._make_backward_post_hook = _weak(DistributedDataParallel._make_backward_post_hook)


def _weak(make_hook: Any) -> Any:
    def make_weak_hook(network: Any, weight: Any) -> Any:
        network, weight = weakref.ref(network), weakref.ref(weight)
        return lambda *gradients: make_hook(network(), weight())(*gradients)

    make_weak_hook.strong = make_hook  # type: ignore[attr-defined]
    return make_weak_hook
