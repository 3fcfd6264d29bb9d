"""The canaries of strategy.py: NeMo's strategy with one of our changes less."""

import inspect
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from canaries import NEEDS_CUDA, fails_without, mended, no_gpu, train_shortly, with_argument, without, without_lone_rank

from {{cookiecutter.__package_name}}.runtime import strategy
from {{cookiecutter.__package_name}}.runtime.strategy import Strategy

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.slow
def test_canary_megatron_looks_for_nan_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_lone_rank(monkeypatch)
    monkeypatch.setattr(strategy, "DistributedDataParallelConfig", lambda **_: "megatron")  # NeMo's default
    with fails_without("Strategy(ddp=...)", RuntimeError, "Unexpected result nan"):
        train_shortly(tmp_path, training={"lr": 1e30})


@pytest.mark.slow
def test_canary_callbacks_that_do_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nemo.lightning.megatron_parallel import CallbackConnector, CallbackMethods

    called: list[bool] = []
    event = CallbackConnector.event

    def watched(self: Any, name: str, *args: Any, **kwargs: Any) -> None:
        nothing = getattr(CallbackMethods, name)
        called.extend(getattr(type(callback), name) is nothing for callback in self.callbacks.get(name, []))
        event(self, name, *args, **kwargs)

    monkeypatch.setattr(CallbackConnector, "event", watched)
    train_shortly(tmp_path)
    assert called and not any(called)
    without("setup_megatron_parallel", Strategy, monkeypatch)
    train_shortly(tmp_path)
    if not any(called):
        mended("Strategy.setup_megatron_parallel")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "error", "message"),
    [
        pytest.param("training_step", RuntimeError, NEEDS_CUDA, marks=no_gpu),
        pytest.param("optimizer_step", RuntimeError, NEEDS_CUDA, marks=no_gpu),
        ("validation_step", ValueError, r"(?s)self\.log\(val_loss, .*`dict` values cannot be logged"),
    ],
)
def test_canary_nemo_logs_in_every_step(
    method: str, error: type[Exception], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without(method, Strategy, monkeypatch)
    with fails_without(f"Strategy.{method}", error, message):
        train_shortly(tmp_path)


@pytest.mark.slow
def test_canary_seed_of_the_ranks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from megatron.core.tensor_parallel import get_cuda_rng_tracker

    ours = Strategy.setup_distributed

    def upstream_then_ours(self: Any) -> None:
        get_cuda_rng_tracker().reset()
        Strategy.__mro__[1].setup_distributed(self)
        seen.append((torch.initial_seed(), list(get_cuda_rng_tracker().get_states())))
        ours(self)
        seen.append((torch.initial_seed(), list(get_cuda_rng_tracker().get_states())))

    seen: list[tuple[int, list[str]]] = []
    monkeypatch.setattr(Strategy, "setup_distributed", upstream_then_ours)
    train_shortly(tmp_path, seed=7)
    assert seen[1][0] == 7 and "model-parallel-rng" in seen[1][1]
    if seen[0][1]:
        mended("Strategy.setup_distributed")


@pytest.mark.slow
def test_canary_default_optimizer_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = train_shortly(tmp_path)
    with_argument(Strategy.__mro__[1], "ckpt_optim_fully_reshardable", False, monkeypatch)
    run = train_shortly(tmp_path)
    with fails_without("ckpt_optim_fully_reshardable", RuntimeError, "a view of a leaf Variable that requires grad"):
        train_shortly(tmp_path, resumed=run)


@pytest.mark.parametrize("rank_zero", [True, False])
def test_canary_progress_printer_waits_for_all_ranks_on_one(rank_zero: bool) -> None:
    from lightning.pytorch.callbacks import TQDMProgressBar
    from megatron.core import timers
    from nemo.lightning.pytorch.strategies.utils import fix_progress_bar

    asked = []

    class Timers(timers.Timers):
        def get_all_timers_string(self, **arguments: Any) -> None:
            asked.append(arguments)

    trainer: Any = SimpleNamespace(is_global_zero=rank_zero, current_epoch=0, max_steps=1)
    trainer.callbacks = [TQDMProgressBar()]
    trainer.strategy = SimpleNamespace(current_epoch_step=1, timers=Timers(2, "minmax"))
    fix_progress_bar(trainer, True, 1)
    [printer] = trainer.callbacks
    printer.get_metrics = lambda *_: {}
    printer.on_train_start(trainer)
    printer.on_train_batch_end(trainer, None)
    collect = timers.Timers._get_elapsed_time_all_ranks.__code__
    if bool(asked) != rank_zero or "dist_all_gather_func" not in collect.co_names:
        mended("replace_progress_bar=False")


def test_canary_nothing_waits_for_the_stream_of_the_buffers() -> None:
    from nemo.lightning.megatron_parallel import MegatronParallel

    source = inspect.getsource(MegatronParallel.init_model_parallel)
    if "torch.cuda.stream(torch.cuda.Stream())" not in source or "wait_stream" in source or "synchronize" in source:
        mended("Strategy.init_model_parallel")
