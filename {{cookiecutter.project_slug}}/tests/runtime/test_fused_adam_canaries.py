"""The canaries of fused_adam.py: what Megatron does to torch's own AdamW, one failure behind the other."""

from pathlib import Path
from typing import Any

import pytest
import torch
from canaries import fails_without, mended, train_shortly, with_argument

from {{cookiecutter.__package_name}}.runtime import fused_adam
from {{cookiecutter.__package_name}}.runtime.strategy import Strategy

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

ADAM = "fused_adam.py (if the other canaries of Adam say so too)"


@pytest.fixture
def torch_adam(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Megatron as it comes: with torch's AdamW where neither Apex nor Transformer Engine is installed."""
    from megatron.core import optimizer
    from megatron.core.optimizer import distrib_optimizer

    fused_adam.use_fused_adam()
    if optimizer.Adam is not fused_adam.FusedAdam:
        pytest.skip("Apex or Transformer Engine is installed")
    monkeypatch.setattr(fused_adam, "use_fused_adam", lambda: None)
    monkeypatch.setattr(optimizer, "Adam", torch.optim.AdamW)
    monkeypatch.setattr(distrib_optimizer, "Adam", torch.optim.AdamW)
    monkeypatch.setattr(optimizer, "USING_PYTORCH_OPTIMIZER", True)
    monkeypatch.setattr(distrib_optimizer, "HAVE_APEX_OR_TE", False)
    monkeypatch.setattr(distrib_optimizer, "USING_APEX_OPTIMIZER", False)
    return monkeypatch


def test_canary_adam_saves_in_the_default_format(tmp_path: Path, torch_adam: pytest.MonkeyPatch) -> None:
    with_argument(Strategy.__mro__[1], "ckpt_optim_fully_reshardable", False, torch_adam)
    with fails_without(ADAM, AssertionError, r"torch\.Size\(\[\]\), 0"):
        train_shortly(tmp_path)


def test_canary_adam_loads_without_state(tmp_path: Path, torch_adam: pytest.MonkeyPatch) -> None:
    with fails_without(ADAM, AssertionError, "^$"):
        train_shortly(tmp_path, resumed=train_shortly(tmp_path))


def give_state_before_loading(patch: pytest.MonkeyPatch) -> list[Any]:
    """Get past the failure before; return a list that gets Megatron's optimizers when they are loaded."""
    loaded: list[Any] = []
    load = Strategy.load_checkpoint

    def load_checkpoint(self: Any, *args: Any, **kwargs: Any) -> Any:
        loaded.extend(self.optimizers[0].mcore_optimizer.chained_optimizers)
        for optimizer in loaded:
            optimizer._init_optimizer_states_with_dummy_values()
        return load(self, *args, **kwargs)

    patch.setattr(Strategy, "load_checkpoint", load_checkpoint)
    return loaded


def test_canary_adam_loads_its_step(tmp_path: Path, torch_adam: pytest.MonkeyPatch) -> None:
    run = train_shortly(tmp_path)
    give_state_before_loading(torch_adam)
    with fails_without(ADAM, KeyError, "step"):
        train_shortly(tmp_path, resumed=run)


def test_canary_adam_shares_one_step(tmp_path: Path, torch_adam: pytest.MonkeyPatch) -> None:
    from megatron.core.optimizer.distrib_optimizer import DistributedOptimizer

    run = train_shortly(tmp_path)
    loaded = give_state_before_loading(torch_adam)
    set_states = DistributedOptimizer._set_main_param_and_optimizer_states

    def keep_step(self: Any, param: Any, tensors: dict[str, Any]) -> None:
        group, order = self.model_param_group_index_map[param]
        state = self.optimizer.state[self.optimizer.param_groups[group]["params"][order]]
        set_states(self, param, {**tensors, "step": state["step"]})

    torch_adam.setattr(DistributedOptimizer, "_set_main_param_and_optimizer_states", keep_step)
    train_shortly(tmp_path, resumed=run)
    steps = [state["step"] for optimizer in loaded for state in optimizer.optimizer.state.values()]
    if all(float(step) == 4 for step in steps):
        mended(ADAM)
    assert len(steps) > 1 and len({id(step) for step in steps}) == 1  # so each parameter counts for all of them
