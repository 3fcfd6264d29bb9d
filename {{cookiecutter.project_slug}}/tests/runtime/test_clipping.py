"""clipping.py: gradients clipped in few kernels, and the canary of that."""

from typing import Any

import pytest
import torch
from canaries import fresh, mended

from {{cookiecutter.__package_name}}.runtime import clipping


def test_clipping_equals_torch() -> None:
    torch.manual_seed(1)
    tensors = [torch.randn(size, dtype=dtype) for size in (3, 7) for dtype in (torch.float32, torch.bfloat16)]
    norm, _ = clipping.norm(0, torch.zeros(1), [tensors], False)
    expected = torch.linalg.vector_norm(torch.cat([tensor.double() for tensor in tensors]))
    assert norm.shape == (1,) and norm.dtype == torch.float32
    rounding = torch.finfo(torch.bfloat16).eps / 2  # the norm of a tensor has the tensor's dtype
    assert float(norm) == pytest.approx(float(expected), rel=rounding)
    halves = [tensor / 2 for tensor in tensors]
    clipping.scale(0, torch.zeros(1), [tensors, tensors], 0.5)
    assert all(torch.equal(tensor, half) for tensor, half in zip(tensors, halves, strict=True))


def test_megatron_clips_with_few_kernels_where_it_has_nothing_better(monkeypatch: pytest.MonkeyPatch) -> None:
    from megatron.core import utils
    from megatron.core.optimizer import clip_grads

    for found, taken in ((utils.local_multi_tensor_l2_norm, clipping.norm), (torch.norm, torch.norm)):
        monkeypatch.setattr(clip_grads, "l2_norm_impl", found)
        clipping.use_few_kernels()
        assert clip_grads.l2_norm_impl is taken


def test_canary_norm_of_each_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each call of `float` and each element of `torch.tensor(list)` waits for the GPU."""
    function = fresh("megatron.core.utils", retargeted=True).local_multi_tensor_l2_norm
    calls: list[Any] = []
    norm = torch.norm
    monkeypatch.setattr(torch, "norm", lambda *args: calls.append(args) or norm(*args))
    function(0, None, [[torch.ones(2)] * 5], False)
    if len(calls) < 5:
        mended("clipping.py")
