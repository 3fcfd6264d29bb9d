"""What the tests let ranks do, which import it by name: train, be stopped, or be broken on purpose."""

import hashlib
import os
import shutil
import signal
import sys
from collections.abc import Callable
from functools import partial, wraps
from importlib import import_module
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from megatron.core.tensor_parallel import RowParallelLinear
from megatron.core.transformer.module import MegatronModule

from {{cookiecutter.__package_name}}.contracts import loss, start
from {{cookiecutter.__package_name}}.contracts.config import NetworkConfig
from {{cookiecutter.__package_name}}.contracts.names import CHECKPOINTS_FOLDER
from {{cookiecutter.__package_name}}.contracts.stage import PipelineStage
from {{cookiecutter.__package_name}}.layers import gather_sequence, row_by_row, scatter_sequence
from {{cookiecutter.__package_name}}.model.settings import Settings
from {{cookiecutter.__package_name}}.runtime import checkpoint, fused_adam, rng, seal, strategy
from {{cookiecutter.__package_name}}.training import train as training
from {{cookiecutter.__package_name}}.training.datamodule import DataModule


def train(settings: Settings, broken: str | None = None) -> int:
    """Train, after something was broken or added if a name of BREAK is given; return the finished steps."""
    if broken:
        BREAK[broken]()
    return training.train(settings).steps


def stop(settings: Settings, step: int) -> tuple[int, bool]:
    """Train, and send SIGTERM to the last rank in a step; return the finished steps and whether it has stopped."""
    in_step(step, signal_last_rank)
    result = training.train(settings)
    return result.steps, result.has_stopped


def signal_last_rank(trainer: Any) -> None:
    if trainer.global_rank == trainer.world_size - 1:
        os.kill(os.getpid(), signal.SIGTERM)


def replayed(settings: Settings) -> tuple[int, str]:
    """Train; return how often a CUDA graph was replayed, and a digest of the last weights."""
    replays, replay = 0, torch.cuda.CUDAGraph.replay
    digest = hashlib.sha256()

    def counted(graph: Any) -> None:
        nonlocal replays
        replays += 1
        replay(graph)

    def read_weights(trainer: Any) -> None:
        for weight in trainer.lightning_module.parameters():
            digest.update(weight.detach().float().cpu().numpy().tobytes())

    torch.cuda.CUDAGraph.replay = counted  # type: ignore[method-assign]
    in_step(settings.training.max_steps, read_weights)
    training.train(settings)
    return replays, digest.hexdigest()


def dropped(settings: Settings) -> list[list[int]]:
    """Train one step; return where each dropout of this rank has dropped at first, in the order of the calls."""
    found: list[list[int]] = []
    original = F.dropout

    def watched(x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        output = original(torch.ones_like(x), *args, **kwargs)
        found.append(output.flatten()[:100].nonzero().flatten().tolist())
        return x * output

    F.dropout = watched  # type: ignore[assignment]
    training.train(settings)
    return found


def samples(settings: Settings) -> list[int]:
    """Train one process; return the idx of every item that it trained on, in order."""
    found: list[int] = []
    forward = loss.LossReduction.forward

    def watched(self: Any, batch: Any, forward_out: Any) -> Any:
        if torch.is_grad_enabled():
            found.extend(batch["idx"].tolist())
        return forward(self, batch, forward_out)

    loss.LossReduction.forward = watched  # type: ignore[method-assign]
    training.train(settings)
    return found


def between_files(settings: Settings) -> tuple[int, list[str]]:
    """Train, with a checkpoint in the way of the last one, and look before each file that is made, renamed or removed.

    Returns:
        How often that was, and the checkpoints that had neither seal nor marker then.
    """
    folder = Path(settings.run_dir, CHECKPOINTS_FOLDER)
    marker = seal.UNFINISHED
    watching, moments, found = True, 0, set()

    def look(event: str, arguments: Any) -> None:
        nonlocal watching, moments
        if not watching or event not in ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree"):
            return
        watching = False  # what follows are events too
        saved = [path for path in folder.glob("step=*") if path.is_dir() and not Path(f"{path}{marker}").exists()]
        found.update(f"{path.name}, before {event}" for path in saved if not seal.is_sealed(path))
        watching, moments = True, moments + 1

    def get_in_the_way(trainer: Any) -> None:
        nonlocal watching
        watching = False
        shutil.copytree(next(folder.glob("*-last")), folder / f"step={trainer.max_steps}-last")
        watching = True

    in_step(settings.training.max_steps, get_in_the_way)
    sys.addaudithook(look)
    training.train(settings)
    watching = False
    return moments, sorted(found)


def in_step(step: int, do: Callable[[Any], None]) -> None:
    """Have something done in the middle of a step, which is counted from 1."""
    original = training.Progress.on_train_batch_end

    def on_train_batch_end(self: Any, trainer: Any, *args: Any) -> None:
        if trainer.global_step == step:
            do(trainer)
        original(self, trainer, *args)

    training.Progress.on_train_batch_end = on_train_batch_end  # type: ignore[method-assign]


# --- what must not go unnoticed


def _average_the_means() -> None:
    """Minimise and report a mean of the micro batches' means, as most examples do, and not sum over count."""
    forward = loss.LossReduction.forward

    def mean(self: Any, batch: Any, forward_out: Any) -> Any:
        total, count, kept = forward(self, batch, forward_out)
        totals = kept["totals"].clone()
        totals[:, 0] /= totals[:, 1].clamp(min=1)
        totals[:, 1] = 1
        return total / count.clamp(min=1), torch.ones_like(count), {"totals": totals}

    loss.LossReduction.forward = mean  # type: ignore[method-assign]


def _report_one_rank_only() -> None:
    """Leave out the sum over the data parallel ranks, in training."""
    whole_group = loss.parallel_state.get_data_parallel_group

    def get_data_parallel_group(**kwargs: Any) -> Any:
        return SimpleNamespace(size=lambda: 1) if torch.is_grad_enabled() else whole_group(**kwargs)

    loss.parallel_state = SimpleNamespace(get_data_parallel_group=get_data_parallel_group)  # type: ignore[assignment]


def _add_the_bias_on_every_rank() -> None:
    """Add a bias before the sum over the tensor parallel ranks."""
    forward = RowParallelLinear.forward

    @wraps(forward)
    def on_every_rank(self: Any, x: torch.Tensor) -> tuple[torch.Tensor, Any]:
        output, bias = forward(self, x)
        again = 0 if self.bias is None else (self.config.tensor_model_parallel_size - 1) * self.bias
        return output + again, bias

    RowParallelLinear.forward = on_every_rank


def _forget_that_some_layers_see_a_part() -> None:
    """Do not sum the gradients of norms and biases that see some rows only, with sequence parallel."""
    module = import_module("megatron.core.distributed.finalize_model_grads")
    module._allreduce_non_tensor_model_parallel_grads = lambda *_: None  # type: ignore[attr-defined]


def _draw_start_weights_in_turn() -> None:
    """Number the parts as they are built, which depends on what a stage holds."""
    built = count()

    class Seeded:
        def crc32(self, text: bytes) -> int:
            return next(built)

    start.zlib = Seeded()  # type: ignore[assignment]


def _exchange_in_batches() -> None:
    """Let virtual pipeline stages exchange in batches, as is Megatron's default."""
    del strategy.Strategy.connect


def _compute_in_fp32() -> None:
    """Ignore the precision that was asked for."""
    training.DTYPES["bf16"] = torch.float32
    training.MegatronMixedPrecision = partial(_mixed_precision, training.MegatronMixedPrecision)  # type: ignore[misc]


def _mixed_precision(original: Any, precision: str, **kwargs: Any) -> Any:
    return original(precision="32", **kwargs)


def _forget_the_position() -> None:
    """Start the data anew on resume."""
    DataModule.load_state_dict = lambda self, state: setattr(self, "is_resumed", True)  # type: ignore[method-assign]


def _forget_the_random_numbers() -> None:
    """Start dropout anew on resume."""
    rng.RandomNumbers.load_state_dict = lambda self, state: None  # type: ignore[method-assign]


def _forget_the_optimizer() -> None:
    """Start Adam's first moment anew on resume."""
    step = fused_adam.FusedAdam.step

    def forgetful(self: Any) -> None:
        if not hasattr(self, "has_forgotten"):
            self.has_forgotten = True
            for state in self.state.values():
                state["exp_avg"].zero_()
        step(self)

    fused_adam.FusedAdam.step = forgetful  # type: ignore[method-assign,assignment]


def _validate_again() -> None:
    """Leave Lightning's own ways on resume."""
    training.ValidationSchedule = type("Nothing", (training.pl.Callback,), {})  # type: ignore[misc]


def _trust_every_checkpoint() -> None:
    """Do not look at the seal."""
    checkpoint.damage = lambda path: None  # type: ignore[assignment]


class _Grown(MegatronModule):
    """Layers of torch's own: one row by row, one along the whole sequence."""

    def __init__(self, config: Any, is_marked: bool) -> None:
        super().__init__(config)
        size, dtype = config.hidden_size, config.params_dtype
        with start.start_weights(config, "grown"):
            self.rows = torch.nn.Linear(size, size, dtype=dtype)
            self.sequence = torch.nn.Conv1d(size, size, 3, padding=1, dtype=dtype)
        if is_marked:
            row_by_row(self.rows, config)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        hidden = hidden + self.rows(hidden)
        whole = gather_sequence(hidden, self.config).permute(1, 2, 0)  # B H S
        return hidden + scatter_sequence(self.sequence(whole).permute(2, 0, 1).contiguous(), self.config)


def _add_layers_of_torch(is_marked: bool = True) -> None:
    """Let layers of torch's own stand between the first stage and the next."""
    build = NetworkConfig.configure_model

    def grown(config: Any, vp_stage: int = 0) -> PipelineStage:
        stage = build(config, vp_stage)
        if stage.pre_process and not stage.post_process:
            stage.grown = _Grown(config, is_marked)
            stage.register_forward_hook(lambda stage, arguments, output: stage.grown(output))
        return stage

    NetworkConfig.configure_model = grown  # type: ignore[method-assign]


BREAK: dict[str, Callable[[], None]] = {
    "mean of means": _average_the_means,
    "loss of one rank": _report_one_rank_only,
    "bias on every rank": _add_the_bias_on_every_rank,
    "norms not summed": _forget_that_some_layers_see_a_part,
    "start weights in turn": _draw_start_weights_in_turn,
    "exchange in batches": _exchange_in_batches,
    "fp32": _compute_in_fp32,
    "position forgotten": _forget_the_position,
    "random numbers forgotten": _forget_the_random_numbers,
    "optimizer forgotten": _forget_the_optimizer,
    "validated again": _validate_again,
    "seal ignored": _trust_every_checkpoint,
    "layers of torch": _add_layers_of_torch,
    "layers of torch, unmarked": partial(_add_layers_of_torch, is_marked=False),
}
