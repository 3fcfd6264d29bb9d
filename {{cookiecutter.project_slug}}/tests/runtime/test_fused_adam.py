"""fused_adam.py: Adam with torch's fused kernel, as Megatron expects it."""

from importlib.util import find_spec
from typing import Any

import pytest
import torch

from {{cookiecutter.__package_name}}.runtime import fused_adam


def parameters() -> list[torch.nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in ((7, 5), (5,), (1,))]


def groups(params: list[torch.nn.Parameter]) -> list[dict[str, Any]]:
    return [{"params": params[:1]}, {"params": params[1:], "weight_decay": 0.0}]


def step(optimizers: list[torch.optim.Optimizer], number: int) -> None:
    """Give all optimizers the same gradients; the last parameter has none in every third step."""
    generator = torch.Generator().manual_seed(number)
    for position, same in enumerate(zip(*(weights_of(optimizer) for optimizer in optimizers), strict=True)):
        gradient = torch.randn(same[0].shape, generator=generator)
        for param in same:
            param.grad = gradient.clone() if position < 2 or number % 3 else None
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = 0.1 / number
        optimizer.step()


def weights_of(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    return [param for group in optimizer.param_groups for param in group["params"]]


ADAM: dict[str, Any] = {"lr": 0.1, "betas": (0.9, 0.95), "eps": 1e-8, "weight_decay": 0.1}


@pytest.mark.parametrize(("mode", "reference"), [(True, torch.optim.AdamW), (False, torch.optim.Adam)])
def test_fused_adam_equals_torch(mode: bool, reference: type[torch.optim.Optimizer]) -> None:
    ours = fused_adam.FusedAdam(groups(parameters()[:2]), **ADAM, adam_w_mode=mode)
    theirs = reference(groups(parameters()[:2]), **ADAM)
    for number in range(1, 21):
        step([ours, theirs], number)
    for mine, other in zip(weights_of(ours), weights_of(theirs), strict=True):
        torch.testing.assert_close(mine, other, rtol=16 * torch.finfo(torch.float32).eps, atol=1e-6)


def test_fused_adam_keeps_its_step_in_the_group_and_goes_on_from_a_state_dict() -> None:
    whole, first = (fused_adam.FusedAdam(groups(parameters()), **ADAM) for _ in range(2))
    for number in range(1, 6):
        step([whole, first], number)
    assert [group["step"] for group in whole.param_groups] == [5, 5]
    assert all(set(state) == {"exp_avg", "exp_avg_sq"} for state in whole.state.values())
    second = fused_adam.FusedAdam(groups([p.detach().clone().requires_grad_() for p in weights_of(first)]), **ADAM)  # type: ignore[misc]
    second.load_state_dict(first.state_dict())
    for number in range(6, 11):
        step([whole, second], number)
    assert all(map(torch.equal, weights_of(whole), weights_of(second)))


def test_fused_adam_counts_for_a_rank_without_a_share() -> None:
    optimizer = fused_adam.FusedAdam([{"params": []}], **ADAM)
    optimizer.step()
    assert optimizer.param_groups[0]["step"] == 1


def test_megatron_takes_fused_adam_for_apex() -> None:
    from megatron.core import optimizer
    from megatron.core.optimizer import distrib_optimizer

    fused_adam.use_fused_adam()
    assert not optimizer.USING_PYTORCH_OPTIMIZER and distrib_optimizer.HAVE_APEX_OR_TE
    if find_spec("apex") is None and find_spec("transformer_engine") is None:
        assert optimizer.Adam is distrib_optimizer.Adam is fused_adam.FusedAdam
