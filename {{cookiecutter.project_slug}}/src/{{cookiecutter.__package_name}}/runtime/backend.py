"""Choose the device, quiet the libraries, apply the workarounds: once in a process, before the trainer is built."""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ..errors import UserError

_PR_SET_PDEATHSIG = 1  # from Linux' <sys/prctl.h>


@contextmanager
def prepared(accelerator: str, devices: int, verbose: bool = False) -> Iterator[str]:
    """Make this process ready to train or predict, and leave it ready for another run.

    Args:
        accelerator: "auto", "cpu" or "gpu".
        devices: processes on this machine.
        verbose: leave what the libraries log as it is.

    Yields:
        "cpu" or "gpu".

    Raises:
        UserError: more GPUs are asked for than there are.
    """
    chosen = _choose(accelerator, devices)
    if not verbose:
        _quiet()
    _die_with_the_parent()
    from . import cpu, fused_adam, writer  # after the noise is off: they import Megatron

    if chosen == "cpu":
        cpu.use_cpu()
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


def _quiet() -> None:
    """Keep to errors what NeMo, Megatron, Lightning and torch log; Python's warnings stay out of a training log too."""
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    os.environ.setdefault("NEMO_LOG_MEMORY_USAGE", "0")
    if not sys.warnoptions:  # python -W, PYTHONWARNINGS and pytest have the last word
        warnings.simplefilter("ignore")
    for name in ("lightning.pytorch", "lightning.fabric", "megatron", "torch.distributed", "nv_one_logger"):
        logging.getLogger(name).setLevel(logging.ERROR)
    from nemo.utils import logging as nemo_logging

    nemo_logging.set_verbosity(logging.ERROR)


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
