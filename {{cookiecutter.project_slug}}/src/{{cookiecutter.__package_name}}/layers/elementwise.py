"""What stands between the matrix products, each as one kernel where the config says so and a GPU computes it.

A GPU reads and writes memory for each small operation; `torch.compile` joins the few of a function here. Whole layers
are not compiled: it gains little more, takes as long again for every layer, and Megatron's gradient buffers make it
start over for each. Elsewhere, and where there is no C compiler, which it needs, the same functions run as they are.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..contracts.config import NetworkConfig


def joined(function: Callable[..., Any], config: NetworkConfig, *arguments: Any) -> Any:
    """Call an element-wise function of tensors, as one kernel if `config.join_kernels` and they are on a GPU."""
    wanted = config.join_kernels and arguments[0].is_cuda and has_compiler()
    return (_compiled(function) if wanted else function)(*arguments)


@cache
def has_compiler() -> bool:
    """Tell whether there is the C compiler that joining kernels needs; the first rank says so once if there is none."""
    found = any(map(shutil.which, (os.environ.get("CC", "cc"), "gcc", "clang")))
    if not found and not (torch.distributed.is_initialized() and torch.distributed.get_rank()):
        line = "warning: there is no C compiler (cc, gcc, clang) here, so kernels are not joined, which takes longer"
        print(line, file=sys.stderr, flush=True)
    return found


@cache
def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    # in this process: workers would outlive a rank that is killed
    return torch.compile(function, options={"compile_threads": 1})


def norm(x: Tensor, weight: Tensor, bias: Tensor, epsilon: float) -> Tensor:
    """Return LayerNorm of the last dimension (Ba et al., 2016)."""
    return F.layer_norm(x, weight.shape, weight, bias, epsilon)


def gelu(x: Tensor, bias: Tensor) -> Tensor:
    """Return the exact GELU of x + bias (Hendrycks and Gimpel, 2016)."""
    return F.gelu(x + bias)


def add(residual: Tensor, x: Tensor, bias: Tensor) -> Tensor:
    """Return residual + (x + bias)."""
    return residual + (x + bias)


def split_heads(combined: Tensor, bias: Tensor | None, head_size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Split (S, B, heads x 3 x size), plus bias, into queries, keys and values (S, B, heads, size)."""
    if bias is not None:
        combined = combined + bias
    query, key, value = combined.unflatten(-1, (-1, 3, head_size)).unbind(3)
    return query, key, value


def turned_heads(
    combined: Tensor, bias: Tensor | None, head_size: int, cos: Tensor, sin: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Split as `split_heads` does, and turn queries and keys by the angles of their positions (`attention.rotary`)."""
    query, key, value = split_heads(combined, bias, head_size)
    return turn(query, cos, sin), turn(key, cos, sin), value.contiguous()


def turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn the features of each head, (S, B, heads, size), by angles."""
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin
