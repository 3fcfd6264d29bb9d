"""Adam with the layout of Apex's FusedAdam, from torch's own fused kernel.

Megatron's distributed optimizer saves, loads and reshards correctly only with Apex's or Transformer Engine's FusedAdam,
which keep `step` in the parameter group. `torch.optim.AdamW` keeps one `step` tensor for each parameter, and four
places of Megatron-Core 0.15 then fail, the last one silently (README.md). This class is what Megatron expects, so its
tested path runs unchanged, and on a plain pip install.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.optim.adam import adam
from torch.optim.adamw import adamw


class FusedAdam(torch.optim.Optimizer):
    """Adam (Kingma and Ba, 2015) or AdamW (Loshchilov and Hutter, 2019), one fused kernel per parameter group.

    State: `exp_avg` and `exp_avg_sq` per parameter, `step` (int) per parameter group.
    """

    def __init__(
        self,
        params: Iterable[dict[str, Any]],
        lr: float,
        betas: tuple[float, float],
        eps: float,
        weight_decay: float,
        adam_w_mode: bool = True,
    ) -> None:
        """Take the arguments that Megatron passes to FusedAdam; `adam_w_mode` decouples the weight decay."""
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})
        self._update = adamw if adam_w_mode else adam

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient; Megatron passes no closure."""
        for group in self.param_groups:
            group["step"] = group.get("step", 0) + 1
            params = [param for param in group["params"] if param.grad is not None]
            if params:
                self._step_group(group, params)

    def _step_group(self, group: dict[str, Any], params: list[torch.Tensor]) -> None:
        for param in params:
            if not self.state[param]:
                self.state[param]["exp_avg"] = torch.zeros_like(param)
                self.state[param]["exp_avg_sq"] = torch.zeros_like(param)
        # the kernel counts a tensor of its own up for each parameter, from the steps before this one
        steps = torch.full((len(params),), float(group["step"] - 1), device=params[0].device)
        self._update(
            params,
            [param.grad for param in params if param.grad is not None],
            [self.state[param]["exp_avg"] for param in params],
            [self.state[param]["exp_avg_sq"] for param in params],
            [],
            list(steps.unbind()),
            fused=True,
            amsgrad=False,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
        )


def use_fused_adam() -> None:
    """Make Megatron build this class and treat it as Apex's, where neither Apex nor Transformer Engine is installed."""
    import megatron.core.optimizer as optimizer
    from megatron.core.optimizer import distrib_optimizer

    if optimizer.USING_PYTORCH_OPTIMIZER:
        optimizer.Adam = distrib_optimizer.Adam = FusedAdam
        optimizer.USING_PYTORCH_OPTIMIZER = False
        distrib_optimizer.HAVE_APEX_OR_TE = True
        distrib_optimizer.USING_APEX_OPTIMIZER = True
