"""cuda_graph.py: training steps are recorded and nothing else is; and the canaries of that."""

from types import SimpleNamespace

import pytest
from canaries import mended

from {{cookiecutter.__package_name}}.contracts.errors import UserError
from {{cookiecutter.__package_name}}.runtime import cuda_graph


def test_only_what_is_inside_is_recorded() -> None:
    config = SimpleNamespace()
    with cuda_graph.recorded(config):
        assert config.enable_cuda_graph and config.cuda_graph_scope == "full_iteration"
        assert not config.batch_p2p_sync
    assert not config.enable_cuda_graph


def test_what_cannot_be_recorded_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    from megatron.core.full_cuda_graph import FullCudaGraphWrapper

    for step, error in ((0, RuntimeError), (1, UserError), (2, RuntimeError)):
        monkeypatch.setitem(FullCudaGraphWrapper.curr_iteration, "training", step)
        with pytest.raises(error, match="stream is capturing") as caught, cuda_graph.recorded(SimpleNamespace()):
            try:
                raise RuntimeError("operation not permitted when stream is capturing\nmore of it")
            finally:
                if step == 1:
                    raise RuntimeError("failed due to a previous error")
        assert isinstance(caught.value, UserError) == ("--training.cuda_graph false" in str(caught.value))


def test_another_run_records_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    from megatron.core.full_cuda_graph import FullCudaGraphWrapper, StaticBufferLoader

    for name, value in (("curr_iteration", 7), ("cuda_graph", object()), ("result", [object()])):
        monkeypatch.setitem(getattr(FullCudaGraphWrapper, name), "training", value)
    monkeypatch.setitem(StaticBufferLoader.static_buffers, "training", [object()])
    cuda_graph.forget()
    assert FullCudaGraphWrapper.curr_iteration["training"] == 0
    assert FullCudaGraphWrapper.cuda_graph["training"] is FullCudaGraphWrapper.result["training"] is None
    assert StaticBufferLoader.static_buffers["training"] == []


def test_canary_stages_wait_for_the_gpu() -> None:
    from megatron.core import ModelParallelConfig

    if not ModelParallelConfig().batch_p2p_sync:
        mended("batch_p2p_sync in cuda_graph.recorded")


def test_canary_graphs_outlive_a_run() -> None:
    from megatron.core.full_cuda_graph import FullCudaGraphWrapper, StaticBufferLoader

    if "cuda_graph" not in vars(FullCudaGraphWrapper) or "static_buffers" not in vars(StaticBufferLoader):
        mended("cuda_graph.forget")
