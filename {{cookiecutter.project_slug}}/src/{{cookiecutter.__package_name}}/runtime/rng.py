"""Random numbers of the ranks: which ones dropout draws, and that a resumed run draws what the stopped one would have.

NeMo 2.7 saves no random number generator: a resumed run would drop what the first steps dropped. README.md says more.
"""

from __future__ import annotations

import random
import zlib
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from megatron.core import parallel_state, tensor_parallel

from .failures import tell


class RandomNumbers(pl.Callback):
    """Gives every rank its own random numbers when training starts, and saves and restores them with checkpoints."""

    def __init__(self, seed: int) -> None:
        """Start from `seed`, unless a checkpoint brings the state of its ranks."""
        self.seed = seed
        self.saved: dict[str, Any] | None = None
        self.has_begun = False

    def state_dict(self) -> dict[str, Any]:
        """Collect the states of all ranks; Lightning calls this on all of them."""
        ranks: list[Any] = [None] * torch.distributed.get_world_size()
        torch.distributed.all_gather_object(ranks, _state())
        return {"layout": _layout(), "ranks": ranks}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the states until the first step: making the loaders still draws numbers."""
        self.saved = state_dict

    def on_train_batch_start(self, trainer: pl.Trainer, *args: Any) -> None:
        """Set this rank's state, before the first step."""
        if self.has_begun:
            return
        self.has_begun = True
        if self.saved and self.saved["layout"] == _layout():
            _set_state(self.saved["ranks"][torch.distributed.get_rank()])
            return
        if self.saved:
            tell("the layout is another than the checkpoint's: dropout goes on with new random numbers")
        seed_this_rank(self.seed + trainer.global_step)


def seed_this_rank(seed: int) -> None:
    """Seed the generators of this rank: the same for the tensor parallel ranks, which share activations, no others.

    Megatron's own generator for what tensor parallel ranks do not share gets another seed on each of them.
    """
    stage, replica = parallel_state.get_pipeline_model_parallel_rank(), parallel_state.get_data_parallel_rank()
    own_seed = zlib.crc32(f"{seed}:{stage}:{replica}".encode())
    torch.manual_seed(own_seed)
    tensor_parallel.model_parallel_cuda_manual_seed(own_seed)


def _layout() -> list[int]:
    """Return what must be equal for a rank to be the same rank; the last one tells CPU from GPU."""
    return [
        parallel_state.get_tensor_model_parallel_world_size(),
        parallel_state.get_pipeline_model_parallel_world_size(),
        parallel_state.get_data_parallel_world_size(),
        len(_cuda_states()),
    ]


def _state() -> dict[str, Any]:
    return {
        "python": random.getstate(),
        "numpy": np.random.get_state(),
        "torch": torch.get_rng_state(),
        "cuda": _cuda_states(),
        "megatron": tensor_parallel.get_cuda_rng_tracker().get_states(),
    }


def _set_state(state: dict[str, Any]) -> None:
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])
    torch.set_rng_state(state["torch"])
    for cuda_state in state["cuda"]:
        torch.cuda.set_rng_state(cuda_state)
    tensor_parallel.get_cuda_rng_tracker().set_states(state["megatron"])


def _cuda_states() -> list[torch.Tensor]:
    """Return the state of this rank's GPU, or nothing on CPU."""
    return [torch.cuda.get_rng_state()] if torch.cuda.is_initialized() else []
