"""Loaders whose processes leave signals to the training process, and are not waited for without end.

A scheduler sends its signal to all processes of a job. A worker of a loader's ends by SIGTERM, and takes the training
with it before the step is saved.
"""

from __future__ import annotations

import multiprocessing
import os
import re
import shutil
import traceback
from contextlib import suppress
from multiprocessing import synchronize
from multiprocessing.queues import Queue
from typing import Any

from nemo.lightning.pytorch.plugins import MegatronDataSampler
from torch.utils.data import DataLoader
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from . import launch, meeting, signals
from .disk import causes

_FULL = 28
"""exit code of a worker that found no room in shared memory: errno's ENOSPC"""
_MORE = "give it more (in a container, --shm-size 8g), or use --data.num_workers 0"
"""what helps then"""
_LOST = re.compile(
    r"DataLoader (?:timed out after (?P<seconds>[\d.]+) seconds|worker \(pid(?:\(s\))? [\d, ]+\) "
    r"(?:is killed by signal: (?P<signal>[^.]+)|exited unexpectedly(?: with exit code (?P<code>\d+))?))"
)
"""what torch says when workers are gone, or bring nothing"""

_MultiProcessingDataLoaderIter._shutdown = True  # one that finds no room has nothing to shut down, and fails at that


class Sampler(MegatronDataSampler):
    """NeMo's, which makes a loader of its own from the one it is given and forgets two of its parts."""

    def transform_dataloader(self, dataloader: DataLoader, consumed_samples: int = 0) -> DataLoader:
        """Return NeMo's loader, with the limit of the given one, and workers that ignore signals."""
        loader = super().transform_dataloader(dataloader, consumed_samples)
        loader.timeout = dataloader.timeout
        loader.worker_init_fn = _begin
        return loader


def lost(error: BaseException | None) -> str | None:
    """Say what became of the processes that load data if an error is about that, and end those that are left.

    Returns:
        what happened and what may help, in one line; None if it is another error.
    """
    found, is_full = None, False
    for cause in causes(error):
        found = _LOST.search(str(cause)) or found  # the first cause says most
        is_full = is_full or _finds_no_room(cause)
    if found is None and not is_full:
        return None
    for worker in multiprocessing.active_children():  # they ignore SIGTERM, and Python would wait for them at its end
        with suppress(RuntimeError):  # torch's handler, which tells of this one too
            worker.kill()
            worker.join(5)
    full = f"processes that load data find no room for their semaphores in /dev/shm{_size()}: {_MORE}"
    return f"{_in_words(**found.groupdict()) if found else full}; {launch.GO_ON}"


def _in_words(seconds: str | None, signal: str | None, code: str | None) -> str:
    if seconds:
        what = f"the processes that load data brought no batch for {meeting.in_minutes(float(seconds))}"
        return f"{what}: try --data.num_workers 0, which needs none of /dev/shm{_size()}, or give them longer"
    if signal == "Bus error" or code == str(_FULL):
        return f"a process that loads data found no room for a batch in /dev/shm{_size()}: {_MORE}"
    if signal:
        why = ", perhaps because memory ran out: fewer --data.num_workers need less" if signal == "Killed" else ""
        return f'a process that loads data was ended by the signal "{signal}"{why}'
    return "a process that loads data has ended" + (f" with exit code {code}" if code else "")


def _finds_no_room(error: BaseException) -> bool:
    """Tell whether an error is of a semaphore, which Python makes in /dev/shm; the error names no file."""
    places = {frame.f_code.co_filename for frame, _ in traceback.walk_tb(error.__traceback__)}
    return isinstance(error, OSError) and error.errno == _FULL and synchronize.__file__ in places


def _size() -> str:
    """Say how large the memory is through which batches come, if that is little."""
    with suppress(OSError):
        if (size := shutil.disk_usage("/dev/shm").total) < 2**30:
            return f" (it has {size / 2**20:,.2f} MiB)"
    return ""


def _begin(worker: int) -> None:
    signals.ignore()
    Queue._on_queue_feeder_error = staticmethod(_end)  # type: ignore[attr-defined]


def _end(error: Exception, batch: Any) -> None:
    """End the worker: the batch that it cannot hand over would be waited for."""
    if "shared memory" in str(error):
        os._exit(_FULL)
    traceback.print_exception(error)
    os._exit(1)
