"""Counts what a step allocates, on tensors that have shapes and no numbers, as if they were on a device."""

from __future__ import annotations

import weakref
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Allocations(TorchDispatchMode):
    """Adds up the storages that operations make, for as long as somebody holds them; in bytes."""

    def __init__(self, module: nn.Module) -> None:
        """Count nothing of what a module holds: its weights lie in Megatron's buffers."""
        super().__init__()
        self.held = 0
        """now"""
        self.peak = 0
        """the most so far, or since somebody set it to `held`"""
        self._weights = [weight.untyped_storage() for weight in (*module.parameters(), *module.buffers())]
        self._known = {storage._cdata for storage in self._weights}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and note the storages of what it gives."""
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._note(tensor.untyped_storage())
        return result

    def _note(self, storage: torch.UntypedStorage) -> None:
        place, size = storage._cdata, storage.nbytes()
        if place not in self._known:
            self._known.add(place)
            weakref.finalize(storage, self._free, place, size)
            self.held += size
            self.peak = max(self.peak, self.held)

    def _free(self, place: int, size: int) -> None:
        self._known.discard(place)
        self.held -= size


class As(TorchFunctionMode):
    """Lets operations choose as they do on a GPU or on a CPU, where that decides what they keep for the backward pass.

    Attention keeps its inputs, its output and a number for each row of scores, as torch's fused kernels do. On a GPU
    dropout keeps a byte for each number.
    """

    def __init__(self, is_gpu: bool) -> None:
        """Be a GPU, or a CPU."""
        super().__init__()
        self.is_gpu = is_gpu

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Answer for the device, or run what was called."""
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention and (self.is_gpu or not _drops(*args, **kwargs)):
            return _fused(*args, **kwargs)
        if self.is_gpu and func == Tensor.is_cuda.__get__:  # type: ignore[attr-defined]
            return True
        if self.is_gpu and func is F.dropout:
            return _dropout(*args, **kwargs)
        return func(*args, **kwargs)


def _drops(*args: Any, dropout_p: float = 0.0, **kwargs: Any) -> bool:
    return dropout_p > 0 or (len(args) > 4 and args[4] > 0)


def _dropout(x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    return torch.native_dropout(x, p, True)[0] if training and p else x


def _fused(query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, *_: Any, **__: Any) -> Tensor:
    bias = attn_mask.to(query.dtype) if attn_mask is not None and attn_mask.dtype == torch.bool else attn_mask
    attended: Tensor = _Fused.apply(query, key, value, bias)
    return attended


class _Fused(torch.autograd.Function):
    """What a fused kernel of attention allocates."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None) -> Tensor:
        output = query.new_empty((*query.shape[:-1], value.shape[-1]))
        rows = query.new_empty(query.shape[:-1], dtype=torch.float32)
        ctx.save_for_backward(query, key, value, bias, output, rows)
        return output

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:  # type: ignore[override]
        return *(torch.empty_like(tensor) for tensor in ctx.saved_tensors[:3]), None
