"""Chooses the device and applies the workarounds, before a trainer is built; cleans up behind it."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from nemo.lightning.callback_group import CallbackGroup

from ..errors import UserError
from . import cpu, fused_adam, writer

_PR_SET_PDEATHSIG = 1  # from Linux' <sys/prctl.h>


@contextmanager
def prepared(accelerator: str, devices: int) -> Iterator[str]:
    """Make this process ready to train or predict, and leave it ready for another run.

    Args:
        accelerator: "auto", "cpu" or "gpu".
        devices: processes on this machine.

    Yields:
        "cpu" or "gpu".

    Raises:
        UserError: more GPUs are asked for than there are.
    """
    chosen = _choose(accelerator, devices)
    _die_with_the_parent()
    if chosen == "cpu":
        cpu.use_cpu()
    CallbackGroup.get_instance().callbacks.clear()  # NeMo's telemetry, which fails under torchrun and Slurm
    fused_adam.use_fused_adam()
    writer.write_in_this_process()
    try:
        yield chosen
    finally:
        _forget_the_run()


def _choose(accelerator: str, devices: int) -> str:
    gpus = torch.cuda.device_count()
    chosen = accelerator if accelerator != "auto" else ("gpu" if gpus else "cpu")
    if chosen == "gpu" and devices > gpus:
        raise UserError(f"--parallel.devices {devices} needs {devices} GPUs, but this machine has {gpus}")
    return chosen


def _die_with_the_parent() -> None:
    """End the ranks that Lightning started when their parent is killed; without this they wait for it for ever."""
    if sys.platform == "linux" and "LOCAL_RANK" in os.environ and os.environ["LOCAL_RANK"] != "0":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _forget_the_run() -> None:
    """Drop the groups and counters that Megatron and NeMo keep for the whole process."""
    from megatron.core import num_microbatches_calculator, parallel_state
    from nemo.utils import AppState

    parallel_state.destroy_model_parallel()
    num_microbatches_calculator.unset_num_microbatches_calculator()
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    AppState().model_parallel_size = None
