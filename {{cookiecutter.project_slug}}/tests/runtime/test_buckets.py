"""buckets.py: what is saved of an optimizer belongs to the weight whose name it has, and the canary of that."""

from pathlib import Path
from typing import Any

import pytest
import torch
from canaries import mended, train_shortly

from {{cookiecutter.__package_name}}.contracts.config import NetworkConfig
from {{cookiecutter.__package_name}}.proof.differences import saved_tensors
from {{cookiecutter.__package_name}}.runtime import buckets

STATE = "optimizer.state.param."

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


@pytest.fixture
def two_buckets(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Give the network's last weight a bucket of its own, which comes first, as if it were a tied embedding."""
    build = NetworkConfig.configure_model

    def build_with_mark(self: Any, vp_stage: int = 0) -> Any:
        stage = build(self, vp_stage)
        list(stage.parameters())[-1].shared_embedding = True
        return stage

    monkeypatch.setattr(NetworkConfig, "configure_model", build_with_mark)
    return monkeypatch


def saved_with_another_weight(run: Path) -> list[str]:
    """Return the names of the weights that the optimizer has other values of: in fp32 they are the same numbers."""
    tensors = saved_tensors(run)
    states = [name for name in tensors if name.startswith(STATE)]
    assert states
    return [name for name in states if not torch.equal(tensors[name], tensors[name.removeprefix(STATE)])]


def test_the_state_of_each_weight_is_saved_as_its_own(tmp_path: Path, two_buckets: pytest.MonkeyPatch) -> None:
    assert saved_with_another_weight(train_shortly(tmp_path)) == []


def test_canary_state_behind_a_padded_bucket(tmp_path: Path, two_buckets: pytest.MonkeyPatch) -> None:
    from megatron.core.optimizer.distrib_optimizer import DistributedOptimizer

    buckets.use_places_without_padding()
    name = "sharded_param_state_fully_reshardable"
    two_buckets.setattr(DistributedOptimizer, name, getattr(DistributedOptimizer, name).misled)
    two_buckets.setattr(buckets, "use_places_without_padding", lambda: None)
    if not saved_with_another_weight(train_shortly(tmp_path)):
        mended("buckets.py")
