"""Records the forward and backward passes of a training step on a GPU, and replays them: Megatron's own CUDA graph.

A small network keeps a GPU waiting for Python, which launches some hundred kernels in each step. The first step of a
run is computed as usual, the second one is recorded, and from then on all are replayed, to the same bits.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from megatron.core import full_cuda_graph
from megatron.core.full_cuda_graph import FullCudaGraphWrapper, StaticBufferLoader

from ..contracts.errors import UserError


@contextmanager
def recorded(config: Any) -> Iterator[None]:
    """Let NeMo run Megatron's schedule through a CUDA graph; for training steps, whose results nobody keeps.

    Args:
        config: Megatron's config of the network.

    Raises:
        UserError: the network does something that cannot be recorded.
    """
    full_cuda_graph.get_all_rng_states = dict  # the generators of sequence parallel dropout, which is not recorded
    config.enable_cuda_graph, config.cuda_graph_scope = True, "full_iteration"
    config.batch_p2p_sync = False  # stages need not wait for the GPU; a recording cannot
    try:
        yield
    except RuntimeError as error:
        if FullCudaGraphWrapper.curr_iteration["training"] != 1:
            raise
        reason = str(_first(error)).strip().splitlines()[0]
        raise UserError(
            f"this network cannot be recorded as a CUDA graph ({reason}): train with --training.cuda_graph false"
        ) from error
    finally:
        config.enable_cuda_graph = False


def _first(error: BaseException) -> BaseException:
    """Return the error that led to this one: that of ending a broken recording says nothing."""
    return _first(error.__context__) if error.__context__ else error


def forget() -> None:
    """Drop the graphs, which live as long as the process, and their memory."""
    for stage in ("training", "validation"):
        FullCudaGraphWrapper.curr_iteration[stage] = 0
        FullCudaGraphWrapper.cuda_graph[stage] = FullCudaGraphWrapper.result[stage] = None
        StaticBufferLoader.static_buffers[stage] = []
