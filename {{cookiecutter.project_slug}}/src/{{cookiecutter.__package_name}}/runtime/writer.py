"""Write checkpoints in the training process itself.

Megatron's writer is made for asynchronous saving: it spawns a manager process (which imports the program again, and
outlives a killed run) and forks a writer for each file. A synchronous save waits for all of them; it can as well write.
"""

from __future__ import annotations

import queue
from typing import Any


def write_in_this_process() -> None:
    """Replace the processes of Megatron's file writer by plain calls; for synchronous saving only."""
    from megatron.core.dist_checkpointing.strategies import filesystem_async

    filesystem_async._results_queue = queue.SimpleQueue()
    filesystem_async.FileSystemWriterAsync.write_preloaded_data_multiproc = staticmethod(_write_all)


def _write_all(transforms: list[Any], use_msc: bool, rank: int, buckets: list[Any], results: Any) -> None:
    """Write each bucket to its file; leave {bucket number: what was written}, or the exception, in `results`."""
    from megatron.core.dist_checkpointing.strategies.filesystem_async import FileSystemWriterAsync

    written: dict[int, Any] = {}
    for number, bucket in enumerate(buckets):
        answer: queue.SimpleQueue[tuple[int, Any]] = queue.SimpleQueue()
        pending: queue.Queue[int] = queue.Queue()
        pending.put(number)
        FileSystemWriterAsync.write_preloaded_data(
            transforms, number, bucket, answer, pending, use_fsync=True, use_msc=use_msc
        )
        _, outcome = answer.get()
        if isinstance(outcome, Exception):
            results.put(outcome)
            return
        written[number] = outcome
    results.put(written)
