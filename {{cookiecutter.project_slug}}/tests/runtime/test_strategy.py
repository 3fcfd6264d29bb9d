"""strategy.py: every pipeline stage knows the metrics, which only the last one computes."""

from datetime import timedelta
from typing import Any

import pytest
import torch
from megatron.core import parallel_state
from nemo import lightning as nl

from {{cookiecutter.__package_name}}.contracts.loss import LossReduction
from {{cookiecutter.__package_name}}.runtime import meeting
from {{cookiecutter.__package_name}}.runtime.strategy import Strategy


class TwoFigures(LossReduction):
    names = ("loss", "other")


@pytest.mark.parametrize("is_last", [True, False])
def test_metrics_travel_from_the_last_stage_to_all(is_last: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel_state, "get_pipeline_model_parallel_world_size", lambda: 2)
    monkeypatch.setattr(parallel_state, "get_pipeline_model_parallel_last_rank", lambda: 7)
    monkeypatch.setattr(parallel_state, "get_pipeline_model_parallel_group", lambda: "stages")
    totals, nothing = torch.tensor([[6.0, 4.0], [1.0, 2.0]], dtype=torch.float64), torch.tensor(0.0)
    sent = []

    def broadcast(values: torch.Tensor, source: int, group: object) -> None:
        sent.append((values.tolist(), source, group))
        values.copy_(totals)

    monkeypatch.setattr(torch.distributed, "broadcast", broadcast)
    monkeypatch.setattr(Strategy, "root_device", torch.device("cpu"))
    strategy: Any = Strategy.__new__(Strategy)
    strategy._lightning_module = type("Module", (), {"loss_reduction": TwoFigures()})()
    found = strategy._from_last_stage(TwoFigures().of_totals(totals.clone()) if is_last else nothing)
    assert torch.equal(found["totals"], totals) and found["loss"] == 1.5
    assert sent == [(totals.tolist() if is_last else [[0.0, 0.0], [0.0, 0.0]], 7, "stages")]


def test_nothing_goes_on_until_the_gpu_has_made_the_buffers(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: done.append("wait"))
    monkeypatch.setattr(nl.MegatronStrategy, "init_model_parallel", lambda self: done.append("buffers"))
    strategy: Any = Strategy.__new__(Strategy)
    for device, expected in (("cuda", ["buffers", "wait"]), ("cpu", ["buffers"])):
        monkeypatch.setattr(Strategy, "root_device", torch.device(device))
        strategy.init_model_parallel()
        assert done == expected
        done.clear()


def test_what_ranks_give_each_other_stays_in_the_memory_of_the_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[dict[str, Any]] = []

    def new_group(**how: Any) -> str:
        made.append(how)
        return "hosts"

    def exchange(shares: list[Any], mine: Any, group: Any = None) -> None:
        assert group == "hosts"
        shares[:] = [mine, "theirs"]

    monkeypatch.setattr(torch.distributed, "new_group", new_group)
    monkeypatch.setattr(torch.distributed, "all_gather_object", exchange)
    strategy: Any = Strategy.__new__(Strategy)
    assert strategy.of_all_ranks("mine") == ["mine"] and made == []
    machines = ["here"] * 2
    met = meeting.Meeting("", torch.distributed.HashStore(), 0, machines, machines, 2, "here", port=0, limit=60.0)
    monkeypatch.setattr(meeting, "current", met)
    assert strategy.of_all_ranks("mine") == ["mine", "theirs"]
    assert made == [{"backend": "gloo", "timeout": timedelta(seconds=90)}]
