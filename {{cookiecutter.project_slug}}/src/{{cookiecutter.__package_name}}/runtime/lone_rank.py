"""No collectives where there is nobody to talk to.

With one data parallel rank Megatron still sends the gradients and the weights of each step from the rank to itself.
"""

from __future__ import annotations

from typing import Any


def skip_collectives_with_oneself() -> None:
    """Let the distributed optimizer talk only where there are two data parallel ranks or more."""
    from megatron.core.distributed.param_and_grad_buffer import _ParamAndGradBucketGroup as BucketGroup

    if not hasattr(BucketGroup.start_grad_sync, "unless_alone"):
        BucketGroup.start_grad_sync = _unless_alone(BucketGroup.start_grad_sync)
        BucketGroup.start_param_sync = _unless_alone(BucketGroup.start_param_sync)


def _unless_alone(method: Any) -> Any:
    def wrapped(self: Any, *args: Any, **kwargs: Any) -> None:
        # averaging over one rank multiplies by 1
        if self.intra_distributed_optimizer_instance_group.size() > 1:
            method(self, *args, **kwargs)

    wrapped.unless_alone = method  # type: ignore[attr-defined]
    return wrapped
