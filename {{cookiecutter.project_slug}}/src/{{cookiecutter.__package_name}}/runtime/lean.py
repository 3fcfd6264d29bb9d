"""Imports for a command that trains nothing: Megatron's layers in a tenth of a second, and NeMo not at all.

What trains needs all of it. `plan` builds networks without their numbers and runs them without their arithmetic, for
which torch and a part of Megatron are enough. Whatever else `model/` takes is imported as ever, and takes its time.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, cast

from .placeholders import _Deferred

# Megatron asks for these in a `try`, and goes without them.
_LEFT_OUT = ("wandb", "triton", "torch.utils.tensorboard", "torch.distributed._tensor")


def use_lean_imports() -> None:
    """Import Megatron without what only training needs, for the rest of this process; torch compiles nothing in it.

    Call it before anything imports Megatron or NeMo, and only in a process that does nothing but plan.
    """
    import torch

    def empty(name: str, base: type = object) -> dict[str, Any]:
        return {name: type(name, (base,), {})}

    stand_ins: dict[str, dict[str, Any]] = {
        # which torch asks when groups are made, and around functions that are never compiled
        "torch._dynamo": {
            "trace_rules": SimpleNamespace(clear_lru_cache=lambda: None),
            "disable": _as_it_is,
            "disallow_in_graph": _as_it_is,
        },
        "torch._dynamo.utils": {"is_compile_supported": lambda device: False},
        "megatron.core.distributed": empty("DistributedDataParallel"),
        "megatron.core.inference_params": empty("InferenceParams"),
        "nemo.lightning": {},
        "nemo.lightning.io": empty("IOMixin"),
        "nemo.lightning.megatron_parallel": empty("MegatronLossReduction", torch.nn.Module),
    }
    for name, members in stand_ins.items():
        if name not in sys.modules:
            parent, _, last = name.rpartition(".")
            sys.modules[name] = module = _Deferred(name, _folder(name), members)
            if parent in stand_ins:
                vars(sys.modules[parent]).setdefault(last, module)
    setattr(torch, "compile", _as_it_is)  # noqa: B010, overloaded to mypy
    left_out = [name for name in _LEFT_OUT if name not in sys.modules]
    sys.modules.update(dict.fromkeys(left_out, cast(ModuleType, None)))  # an import of it is an ImportError now
    try:
        import_module("megatron.core.transformer.module")
    finally:
        for name in left_out:
            del sys.modules[name]


def _folder(name: str) -> Path:
    top, *parts = name.split(".")
    spec = find_spec(top)
    return Path(next(iter((spec and spec.submodule_search_locations) or [""])), *parts)


def _as_it_is(function: Any = None, *args: Any, **options: Any) -> Any:
    """Stand in for what compiles a function, or does not; as a function and as a decorator with options."""
    same: Callable[[Any], Any] = lambda function: function  # noqa: E731
    return same if function is None else function
