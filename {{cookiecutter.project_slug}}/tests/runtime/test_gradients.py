"""gradients.py: gradients are divided by the count of the global batch, without asking the device; and the canary."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from canaries import mended
from megatron.core import parallel_state
from megatron.core.distributed import finalize_model_grads
from megatron.core.transformer.module import MegatronModule
from megatron.core.transformer.transformer_config import TransformerConfig

from {{cookiecutter.__package_name}}.runtime import gradients

OF_THE_LAST_STAGE, OF_THE_OTHER_REPLICA, LAST_RANK = 6, 8, 7


class HostWaits(Exception):
    pass


class OnDevice(torch.Tensor):
    """Stands in for a tensor on a GPU: whoever asks what it holds would have to wait for that."""

    def wait(self, *args: Any) -> Any:
        raise HostWaits

    __bool__ = __int__ = __float__ = __index__ = item = tolist = cpu = wait


def on_device(count: int) -> OnDevice:
    return torch.tensor(count, dtype=torch.int).as_subclass(OnDevice)


class Chunk(MegatronModule):
    """A virtual stage with one gradient, in Megatron's data parallel wrapper."""

    def __init__(self, gradient: float = 0.0) -> None:
        super().__init__(TransformerConfig(num_layers=1, hidden_size=1, num_attention_heads=1))
        self.gradient = torch.tensor(gradient)

    def finish_grad_sync(self) -> None:
        pass

    def scale_gradients(self, factor: torch.Tensor) -> None:
        self.gradient *= factor


@pytest.fixture
def finalized(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[float]]:
    """Finish the gradients 3 and 5 of two virtual stages, which are twice as much when Megatron has summed them up."""

    def summed(chunks: list[Chunk], count: Any, **kwargs: Any) -> None:
        assert count is None and kwargs == {"pg_collection": None}  # so it divides by nothing
        for chunk in chunks:
            chunk.gradient *= 2

    def broadcast(count: torch.Tensor, src: int, group: Any) -> None:
        assert (src, group.name) == (LAST_RANK, "stages")
        count.fill_(OF_THE_LAST_STAGE)

    def all_reduce(count: torch.Tensor, group: Any) -> None:
        assert group.name == "replicas"
        count.add_(OF_THE_OTHER_REPLICA)

    def run(count: int | None, stages: int = 1, replicas: int = 1) -> list[float]:
        groups = {"pipeline_model": ("stages", stages), "data": ("replicas", replicas)}
        for kind, (name, size) in groups.items():
            group = SimpleNamespace(name=name, size=lambda size=size: size)
            monkeypatch.setattr(parallel_state, f"get_{kind}_parallel_group", lambda group=group: group)
        chunks = [Chunk(3.0), Chunk(5.0)]
        gradients.finalize(chunks, None if count is None else on_device(count), pg_collection=None)
        return [chunk.gradient.as_subclass(torch.Tensor).tolist() for chunk in chunks]

    monkeypatch.setattr(gradients, "finalize_model_grads", summed)
    monkeypatch.setattr(parallel_state, "get_pipeline_model_parallel_last_rank", lambda: LAST_RANK)
    monkeypatch.setattr(torch.distributed, "broadcast", broadcast)
    monkeypatch.setattr(torch.distributed, "all_reduce", all_reduce)
    return run


@pytest.mark.parametrize(
    ("here", "layout", "count"),
    [
        (4, {}, 4),
        (0, {"stages": 2}, OF_THE_LAST_STAGE),
        (4, {"replicas": 2}, 4 + OF_THE_OTHER_REPLICA),
        (0, {"stages": 2, "replicas": 2}, OF_THE_LAST_STAGE + OF_THE_OTHER_REPLICA),
    ],
)
def test_gradients_are_divided_by_the_count_of_the_global_batch(
    here: int, layout: dict[str, int], count: int, finalized: Callable[..., list[float]]
) -> None:
    assert finalized(here, **layout) == pytest.approx([6 / count, 10 / count])


@pytest.mark.parametrize("count", [None, 0])
def test_gradients_of_what_counts_nothing_are_not_divided(
    count: int | None, finalized: Callable[..., list[float]]
) -> None:
    assert finalized(count) == [6.0, 10.0]


@pytest.mark.usefixtures("megatron")
def test_canary_megatron_asks_for_the_count_on_the_host() -> None:
    try:
        finalize_model_grads([Chunk()], on_device(4))
    except HostWaits:
        return
    mended("gradients.py")
