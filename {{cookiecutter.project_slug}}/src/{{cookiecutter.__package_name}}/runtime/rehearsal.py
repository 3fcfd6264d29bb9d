"""Lets one process play a rank of any layout: groups that send nothing, tensors that hold nothing.

Megatron's layers ask their groups for sizes and places when they are built, and talk to them when they run. torch has
a backend for tests that answers both without anybody at the other end, and a device, `meta`, on which a tensor has a
shape and no numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any

import torch
from megatron.core import parallel_state
from megatron.core.tensor_parallel import random
from torch.testing._internal.distributed.fake_pg import FakeStore


@contextmanager
def as_rank(rank: int, tensor: int, pipeline: int, virtual_pipeline: int) -> Iterator[None]:
    """Be a rank of tensor x pipeline ranks, with one data parallel copy; what is built in here lies on `meta`.

    Args:
        rank: its number.
        tensor: ranks that share each layer.
        pipeline: stages.
        virtual_pipeline: parts of each stage.
    """
    torch.distributed.init_process_group("fake", store=FakeStore(), rank=rank, world_size=tensor * pipeline)
    try:
        parallel_state.initialize_model_parallel(
            tensor_model_parallel_size=tensor,
            pipeline_model_parallel_size=pipeline,
            virtual_pipeline_model_parallel_size=virtual_pipeline if virtual_pipeline > 1 else None,
            create_gloo_process_groups=False,
        )
        with ExitStack() as stack:
            for owner, name, value in _replacements():
                stack.enter_context(_replaced(owner, name, value))
            stack.enter_context(torch.device("meta"))
            yield
    finally:
        parallel_state.destroy_model_parallel()
        torch.distributed.destroy_process_group()


class _NoRandomNumbers:
    """Stands in for Megatron's tracker of the states of random number generators."""

    def fork(self, *args: Any) -> Any:
        return nullcontext()

    def get_states(self) -> dict[str, Any]:
        return {}

    def set_states(self, states: dict[str, Any]) -> None:
        pass


def _replacements() -> list[tuple[Any, str, Any]]:
    """Return what is asked of GPUs and generators, and the answer without them."""
    return [
        (torch, "manual_seed", lambda seed: None),  # which keeps a list of who asked, with a traceback of each
        (torch.cuda, "current_device", lambda: torch.device("meta")),
        (torch.cpu, "current_device", lambda: torch.device("meta")),  # which Megatron asks after a run on the CPU
        (random, "_CUDA_RNG_STATE_TRACKER", _NoRandomNumbers()),
        (random, "_CUDA_RNG_STATE_TRACKER_INITIALIZED", True),
        (random, "_get_cuda_rng_state", lambda *args, **kwargs: None),
        (random, "_set_cuda_rng_state", lambda *args, **kwargs: None),
    ]


@contextmanager
def _replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)
