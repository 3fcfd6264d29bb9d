"""Chooses the device and applies the workarounds, before a trainer is built; cleans up behind it."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from nemo.lightning.callback_group import CallbackGroup
from torch.distributed import distributed_c10d

from ..contracts.errors import UserError
from . import (
    buckets,
    clipping,
    cluster,
    cpu,
    cuda_graph,
    failures,
    fused_adam,
    launch,
    lone_rank,
    orphans,
    weak_hooks,
)


@contextmanager
def prepared(
    accelerator: Literal["auto", "cpu", "gpu"], devices: int, num_nodes: int = 1
) -> Iterator[Literal["cpu", "gpu"]]:
    """Make this process ready to train or predict, and leave it ready for another run.

    Args:
        accelerator: "auto", "cpu" or "gpu".
        devices: processes on this machine.
        num_nodes: machines.

    Yields:
        "cpu" or "gpu".

    Raises:
        UserError: more GPUs are asked for than there are, or what started this process does not fit the layout; and
            what the run raises, once for all ranks.
    """
    chosen = choose(accelerator, devices)
    launch.check(devices, num_nodes)
    if os.environ.get("LOCAL_RANK", "0") != "0":  # a rank that another process started
        orphans.die_with_the_parent()
    if chosen == "cpu":
        cpu.use_cpu()
    cluster.leave_slurm_to_us()
    CallbackGroup.get_instance().callbacks.clear()  # NeMo's telemetry, which fails under torchrun and Slurm
    fused_adam.use_fused_adam()
    buckets.use_places_without_padding()
    clipping.use_few_kernels()
    lone_rank.skip_collectives_with_oneself()
    weak_hooks.use_weak_hooks()
    hook, meeting = sys.excepthook, {name: os.environ.get(name) for name in ("MASTER_ADDR", "MASTER_PORT")}
    gc.freeze()  # what has been imported is no garbage: Megatron looks for some in every save
    try:
        with failures.told_once():
            yield chosen
    except BaseException:
        _forget_the_run(distributed_c10d._abort_process_group)  # without waiting for the other ranks
        raise
    else:
        _forget_the_run(torch.distributed.destroy_process_group)
    finally:
        gc.unfreeze()
        for name, value in meeting.items():  # Lightning leaves its own there, and other processes would inherit them
            os.environ.pop(name, None)
            os.environ.update({name: value} if value is not None else {})
        if devices * num_nodes == 1:
            sys.excepthook = hook  # torch's writes "[rank0]: " before every line


def choose(accelerator: Literal["auto", "cpu", "gpu"], devices: int) -> Literal["cpu", "gpu"]:
    """Return the device to run on: the one asked for, and for "auto" the GPU where there is one.

    Raises:
        UserError: more GPUs are asked for than there are.
    """
    gpus = torch.cuda.device_count()
    chosen = accelerator if accelerator != "auto" else ("gpu" if gpus else "cpu")
    if chosen == "gpu" and gpus == 0:
        raise UserError("--accelerator gpu: PyTorch sees no GPU on this machine; use cpu (doctor says more)")
    if chosen == "gpu" and devices > gpus:
        raise UserError(f"--parallel.devices {devices} needs {devices} GPUs, but this machine has {gpus}")
    return chosen


def _forget_the_run(leave_groups: Callable[[], None]) -> None:
    """Drop the groups and counters that Megatron and NeMo keep for the whole process."""
    from megatron.core import num_microbatches_calculator, parallel_state

    cuda_graph.forget()
    parallel_state.destroy_model_parallel()
    num_microbatches_calculator.unset_num_microbatches_calculator()
    if torch.distributed.is_initialized():
        leave_groups()
