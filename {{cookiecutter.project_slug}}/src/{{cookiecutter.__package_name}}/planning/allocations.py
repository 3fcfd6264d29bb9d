"""Counts what a step allocates, on tensors that have shapes and no numbers, as if they were on a device."""

from __future__ import annotations

import weakref
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode


class Allocations(TorchDispatchMode):
    """Adds up the storages that operations make, for as long as somebody holds them; in bytes."""

    _made: ClassVar[dict[Any, Any]] = {}
    """what operations on tensors of which shapes have made"""

    def __init__(self, module: nn.Module) -> None:
        """Count nothing of what a module holds: its weights lie in Megatron's buffers."""
        super().__init__()
        self.held = 0
        """now"""
        self.peak = 0
        """the most so far, or since somebody set it to `held`"""
        weights = [weight.untyped_storage() for weight in (*module.parameters(), *module.buffers())]
        self._known: dict[int, Any] = {storage._cdata: storage for storage in weights}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and note the storages of what it gives."""
        result = self._run(func, args, kwargs or {})
        for tensor in (result,) if isinstance(result, Tensor) else result or ():
            if isinstance(tensor, Tensor):
                self._note(tensor.untyped_storage())
        return result

    def _run(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Run an operation, or make what it made of tensors like these: many work out shapes slowly, in Python."""
        try:
            key = func, _like(args), _like(tuple(kwargs.items()))
            made = self._made.get(key, ())
        except TypeError:  # an argument that cannot be looked up
            return func(*args, **kwargs)
        if made:
            return made[0](torch.empty_strided(*like[:2], dtype=like[2], device="meta") for like in made[1])
        result = func(*args, **kwargs)
        tensors = (result,) if isinstance(result, Tensor) else result
        if made == () and type(tensors) is tuple and all(map(self._is_new, tensors)):
            self._made[key] = next if isinstance(result, Tensor) else tuple, [_like(tensor) for tensor in tensors]
        else:
            self._made[key] = None
        return result

    def _is_new(self, found: Any) -> bool:
        return isinstance(found, Tensor) and found.is_meta and found.untyped_storage()._cdata not in self._known

    def _note(self, storage: torch.UntypedStorage) -> None:
        if (place := storage._cdata) not in self._known:
            size = storage.nbytes()
            self._known[place] = weakref.ref(storage, lambda _: self._free(place, size))
            self.held += size
            self.peak = max(self.peak, self.held)

    def _free(self, place: int, size: int) -> None:
        del self._known[place]
        self.held -= size


def _like(value: Any) -> Any:
    """Return what of an argument decides the shapes of what an operation makes."""
    if isinstance(value, Tensor):
        return value.shape, value.stride(), value.dtype
    return tuple(map(_like, value)) if isinstance(value, list | tuple) else value


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
    def backward(ctx: Any, gradient: Tensor) -> Any:
        return *(torch.empty_like(tensor) for tensor in ctx.saved_tensors[:3]), None
