"""Chooses the device and applies the workarounds, before a trainer is built; cleans up behind it."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal
from weakref import WeakSet

import torch
from nemo.lightning.callback_group import CallbackGroup
from torch.distributed import ProcessGroup, distributed_c10d

from ..contracts.errors import UserError
from ..contracts.settings import ParallelSettings
from . import (
    agreement,
    buckets,
    clipping,
    cluster,
    cpu,
    cuda_graph,
    failures,
    fused_adam,
    heartbeat,
    launch,
    lone_rank,
    meeting,
    network,
    orphans,
    weak_hooks,
)

_RANKS = ("RANK", "LOCAL_RANK", "NODE_RANK", "WORLD_SIZE")
_PLACES = ("MASTER_ADDR", "MASTER_PORT", "GLOO_SOCKET_IFNAME", "TORCH_NCCL_HEARTBEAT_TIMEOUT_SEC", *_RANKS)
ALONE = ParallelSettings()
_left: WeakSet[ProcessGroup] = WeakSet()
"""groups of runs that have ended, which something still holds"""


@contextmanager
def prepared(
    accelerator: Literal["auto", "cpu", "gpu"], layout: ParallelSettings = ALONE, given: dict[str, Any] | None = None
) -> Iterator[Literal["cpu", "gpu"]]:
    """Make this process ready to train or predict, and leave it ready for another run.

    Args:
        accelerator: "auto", "cpu" or "gpu".
        layout: the processes of the run; the others are started, if nobody has, and met.
        given: what all machines must have been given alike, by name.

    Yields:
        "cpu" or "gpu".

    Raises:
        UserError: more GPUs are asked for than there are, what started this process does not fit the layout, other
            ranks did not come, or were given something else; and what the run raises, once for all ranks.
    """
    chosen = choose(accelerator, layout.devices)
    if launch.start_ranks(layout.devices, layout.num_nodes):
        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))  # as theirs, who read it before they imported torch
    if os.environ.get("LOCAL_RANK", "0") != "0":  # a rank that another process started
        orphans.die_with_the_parent()
    if chosen == "cpu":
        cpu.use_cpu()
    cluster.leave_slurm_to_us()
    CallbackGroup.get_instance().callbacks.clear()  # NeMo's telemetry
    fused_adam.use_fused_adam()
    buckets.use_places_without_padding()
    clipping.use_few_kernels()
    lone_rank.skip_collectives_with_oneself()
    weak_hooks.use_weak_hooks()
    hook, places = sys.excepthook, {name: os.environ.get(name) for name in _PLACES}
    _set_apart()
    try:
        with _met(layout), failures.told_once():
            agreement.check_alike(given or {})
            yield chosen
    except BaseException:
        _forget_the_run(distributed_c10d._abort_process_group)  # without waiting for the other ranks
        raise
    else:
        _forget_the_run(torch.distributed.destroy_process_group)
        gc.collect()  # network, trainer and optimizer hold each other, and the groups
    finally:
        gc.unfreeze()
        for name, value in places.items():  # Lightning leaves its own there, which say that a launcher began this
            os.environ.pop(name, None)
            os.environ.update({name: value} if value is not None else {})
        if layout.devices * layout.num_nodes == 1:
            sys.excepthook = hook  # torch's writes "[rank0]: " before every line


@contextmanager
def _met(layout: ParallelSettings) -> Iterator[None]:
    """Meet the other ranks of a run, and hear of them until it ends."""
    size = layout.devices * layout.num_nodes
    if size == 1:
        here = {"MASTER_ADDR": launch.HERE} if launch.launcher() == "nobody" else {}
        os.environ.update(here, RANK="0")
        yield
        return
    environment = cluster.environment()
    rank = cluster.rank_in(environment, layout.devices)
    os.environ["RANK"] = str(rank)  # NeMo asks it before SLURM_PROCID, which a shell of a job gives to all ranks
    met = meeting.meet(environment, rank, size, layout.devices, layout.timeout_minutes)
    network.choose_interface(met)
    try:
        with heartbeat.heard(met):
            yield
    finally:
        meeting.leave()


def choose(accelerator: Literal["auto", "cpu", "gpu"], devices: int) -> Literal["cpu", "gpu"]:
    """Return the device to run on: the one asked for, and for "auto" the GPU where there is one.

    Raises:
        UserError: more GPUs are asked for than there are, or any in a process that has used the CPU.
    """
    if cpu.hidden and accelerator != "cpu":
        raise UserError(
            f"--accelerator {accelerator}: a process that has used the CPU keeps to it; use another process for the GPU"
        )
    gpus = torch.cuda.device_count()
    chosen = accelerator if accelerator != "auto" else ("gpu" if gpus else "cpu")
    if chosen == "gpu" and gpus == 0:
        raise UserError("--accelerator gpu: PyTorch sees no GPU on this machine; use cpu (doctor says more)")
    if chosen == "gpu" and devices > gpus:
        raise UserError(f"--parallel.devices {devices} needs {devices} GPUs, but this machine has {gpus}")
    return chosen


def _set_apart() -> None:
    """Set apart from the garbage collector what is there when a run starts, but for what a failed one has left."""
    if _left:  # the error held it until now
        gc.collect()  # takes half a second
        _left.clear()  # whoever still holds them may have them
    gc.freeze()  # what has been imported is no garbage: Megatron looks for some in every save


def _forget_the_run(leave_groups: Callable[[], None]) -> None:
    """Drop the groups and counters that Megatron and NeMo keep for the whole process."""
    from megatron.core import num_microbatches_calculator, parallel_state
    from nemo.utils import AppState

    cuda_graph.forget()
    _left.update(distributed_c10d._world.pg_names)
    parallel_state.destroy_model_parallel()
    for kept in (vars(parallel_state), vars(AppState())):
        kept.update({name: None for name, value in kept.items() if isinstance(value, ProcessGroup)})
    num_microbatches_calculator.unset_num_microbatches_calculator()
    if torch.distributed.is_initialized():
        leave_groups()
