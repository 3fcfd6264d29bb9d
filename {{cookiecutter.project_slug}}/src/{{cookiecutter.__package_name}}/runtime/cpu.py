"""The CPU backend: Megatron and NeMo say "cuda" in many places where any device would do; here they mean the CPU.

`torch.cpu` mirrors the interface of `torch.cuda`, so the functions of the modules below are rebound to code in which
the word `cuda` reads `cpu`: `torch.cuda.current_device()` becomes `torch.cpu.current_device()`, `device="cuda"`
becomes `device="cpu"`, `'torch.cuda.FloatTensor'` becomes `'torch.FloatTensor'`. That costs a few milliseconds once
and nothing in a step. Nothing of torch itself is replaced; `torch.cpu` only gets the members that it lacks.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import os
from collections.abc import Iterator
from types import CodeType, FunctionType, ModuleType
from typing import Any

import torch

# Every module that names "cuda" on the way of training, validation, prediction, saving or loading.
MODULES = (
    "megatron.core.dist_checkpointing.exchange_utils",
    "megatron.core.dist_checkpointing.strategies.filesystem_async",
    "megatron.core.dist_checkpointing.strategies.fully_parallel",
    "megatron.core.dist_checkpointing.strategies.state_dict_saver",
    "megatron.core.dist_checkpointing.strategies.torch",
    "megatron.core.distributed.distributed_data_parallel",
    "megatron.core.distributed.param_and_grad_buffer",
    "megatron.core.optimizer.clip_grads",
    "megatron.core.optimizer.distrib_optimizer",
    "megatron.core.optimizer.optimizer",
    "megatron.core.parallel_state",
    "megatron.core.pipeline_parallel.p2p_communication",
    "megatron.core.pipeline_parallel.schedules",
    "megatron.core.rerun_state_machine",
    "megatron.core.tensor_parallel.layers",
    "megatron.core.tensor_parallel.mappings",
    "megatron.core.tensor_parallel.random",
    "megatron.core.tensor_parallel.utils",
    "megatron.core.timers",
    "megatron.core.utils",
    "nemo.lightning.megatron_parallel",
    "nemo.lightning.pytorch.callbacks.model_checkpoint",
    "nemo.lightning.pytorch.strategies.megatron_strategy",
)
_DTYPES = ("Float", "Half", "BFloat16")
_CONSTANTS = {"cuda": "cpu", **{f"torch.cuda.{dtype}Tensor": f"torch.{dtype}Tensor" for dtype in _DTYPES}}

hidden = 0
"""GPUs that this process had before it used the CPU"""


def use_cpu() -> None:
    """Point Megatron and NeMo at the CPU, for the rest of this process.

    Also hides any GPU from CUDA, so that no library finds one half-way. Call it before the trainer is built.
    """
    global hidden
    hidden = hidden or torch.cuda.device_count()
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    if hasattr(torch.cpu, "_stands_in_for_cuda"):
        return
    _complete_torch_cpu()
    for name in MODULES:
        module = importlib.import_module(name)
        for function in _functions(module):
            function.__code__ = _retarget(function.__code__)
    _replace_rng_access()
    _replace_device_fix()


def _retarget(code: CodeType) -> CodeType:
    """Return the code with `cuda` read as `cpu`, in attribute names, strings and inner functions."""
    names = tuple("cpu" if name == "cuda" else name for name in code.co_names)
    return code.replace(co_names=names, co_consts=tuple(_constant(value) for value in code.co_consts))


def _constant(value: Any) -> Any:
    if isinstance(value, CodeType):
        return _retarget(value)
    if isinstance(value, tuple):  # as in `type in ["torch.cuda.HalfTensor", "torch.cuda.BFloat16Tensor"]`
        return tuple(_constant(member) for member in value)
    return _CONSTANTS.get(value, value) if isinstance(value, str) else value


def _functions(module: ModuleType) -> Iterator[FunctionType]:
    """Yield every function that the module defines, methods and decorated ones too."""
    own = [member for member in vars(module).values() if getattr(member, "__module__", None) == module.__name__]
    members = [*own, *(member for cls in own if inspect.isclass(cls) for member in vars(cls).values())]
    for member in members:
        if isinstance(member, property):
            candidates = [member.fget, member.fset]
        elif isinstance(member, functools.cached_property):
            candidates = [member.func]
        else:
            candidates = [getattr(member, "__func__", member)]
        for function in candidates:
            function = inspect.unwrap(function) if callable(function) else function
            if isinstance(function, FunctionType) and function.__module__ == module.__name__:
                yield function


def _complete_torch_cpu() -> None:
    """Give `torch.cpu` the members of `torch.cuda` that Megatron calls and it lacks."""
    lacking: dict[str, Any] = {
        "_stands_in_for_cuda": True,
        "empty_cache": lambda: None,
        "default_stream": torch.cpu.current_stream,
        "manual_seed": torch.manual_seed,
        "get_rng_state": torch.get_rng_state,
        "set_rng_state": torch.set_rng_state,
    }
    for name, member in lacking.items():
        setattr(torch.cpu, name, member)


def _replace_rng_access() -> None:
    """Let Megatron's random number tracker keep the states of the CPU generator."""
    from megatron.core.tensor_parallel import random

    def get_state(device: object = None, clone: bool = False, graph_safe: bool = False) -> torch.Tensor:
        return torch.get_rng_state()

    def set_state(new_state: torch.Tensor, device: int = -1, graph_safe: bool = False) -> None:
        torch.set_rng_state(new_state)

    random._get_cuda_rng_state = get_state
    random._set_cuda_rng_state = set_state


def _replace_device_fix() -> None:
    """Skip NeMo's move of loaded tensors to the current GPU: on CPU they are where they belong."""
    from nemo.lightning.io import pl

    pl._fix_tensors_device = lambda checkpoint: checkpoint
