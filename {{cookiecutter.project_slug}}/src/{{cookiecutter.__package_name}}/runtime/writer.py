"""Writes checkpoints, so that all ranks agree whether one is whole: in the training process, and sealed at the end.

Megatron writes between its collectives: a rank that finds no room leaves, and the others wait for it. It also spawns a
manager process (which imports the program again, and outlives a killed run) and forks a writer for each file. Here all
ranks plan first, then each writes its files, then they tell how that went.
"""

from __future__ import annotations

import io
import queue
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from megatron.core.dist_checkpointing.core import CheckpointingConfig, save_config
from megatron.core.dist_checkpointing.serialization import _CONTENT_METADATA_KEY
from megatron.core.dist_checkpointing.state_dict_utils import save_preprocess
from megatron.core.dist_checkpointing.strategies import filesystem_async
from megatron.core.dist_checkpointing.strategies.common import COMMON_STATE_FNAME
from megatron.core.dist_checkpointing.strategies.fully_parallel import FullyParallelSaveStrategyWrapper
from megatron.core.dist_checkpointing.strategies.torch import TorchDistSaveShardedStrategy
from nemo.lightning.ckpt_utils import ckpt_to_dir
from nemo.lightning.io.pl import MegatronCheckpointIO, ckpt_to_weights_subdir

from .background import Copies
from .disk import DiskError, in_words, reason
from .seal import Entries, entries, seal

Done = TypeVar("Done")


class Writer(MegatronCheckpointIO):
    """NeMo's CheckpointIO, which reads as before."""

    copies: Copies | None = None
    """holds the state while it is written and training goes on"""
    planned: Callable[[Any], None]
    """writes the checkpoint that was saved last, and seals it; DiskError on all ranks if some rank cannot"""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Plan what each rank writes into a folder; `planned` writes it."""
        filesystem_async._results_queue = queue.SimpleQueue()  # else planning spawns a manager for it
        folder = ckpt_to_weights_subdir(path, is_saving=True)
        checkpoint[_CONTENT_METADATA_KEY] = storage_options["content_metadata"]
        sharded, common = save_preprocess(checkpoint)
        if self.copies:
            self.copies.of_weights(sharded)
        files, metadata = self.save_sharded_strategy.async_save(sharded, folder)
        content = io.BytesIO()
        if torch.distributed.get_rank() == 0:
            torch.save(common, content)
        self.planned = partial(_write, Path(ckpt_to_dir(path)), content, files, metadata, self.copies)

    def _determine_dist_ckpt_save_strategy(self) -> Any:
        return FullyParallelSaveStrategyWrapper(_Plan("torch_dist", 1))


class _Plan(TorchDistSaveShardedStrategy):
    """Megatron's way to share out the writing; `async_save` returns what to write, and what is known of all of it."""

    def _get_save_and_finalize_callbacks(self, writer: Any, planned: Any) -> Any:
        return writer, planned[1]


def _write(
    checkpoint: Path, common: io.BytesIO, files: Any, metadata: Any, copies: Copies | None, group: Any = None
) -> None:
    folder, is_first = Path(files.checkpoint_dir), torch.distributed.get_rank() == 0
    if copies:
        copies.gather()

    def write_mine() -> tuple[list[Any], Entries]:
        written, paths = [], []
        # copies are in the memory of the host; and waiting for a GPU here would break a recording of its steps
        for bucket in files.write_buckets if copies else files.preload_tensors(files.write_buckets):
            written += _write_bucket(files, bucket)
            paths.append(Path(bucket[0]))
        if is_first:
            paths.append(folder / COMMON_STATE_FNAME)
            paths[-1].write_bytes(common.getbuffer())
        return written, entries(checkpoint, paths)

    def complete(shares: list[Any]) -> None:
        if is_first:
            files.finish(metadata, [written for written, _ in shares])
            save_config(CheckpointingConfig("torch_dist", 1), str(folder))
            seal(checkpoint, {name: entry for _, mine in shares for name, entry in mine.items()})

    shares = together(write_mine, checkpoint.parent, group)
    together(lambda: complete(shares), checkpoint.parent, group)


def _write_bucket(files: Any, bucket: Any) -> list[Any]:
    """Write one file; return what torch notes of its tensors."""
    answer: queue.SimpleQueue[tuple[int, Any]] = queue.SimpleQueue()
    pending: queue.Queue[int] = queue.Queue()
    pending.put(0)
    files.write_preloaded_data([files.transforms], 0, bucket, answer, pending, use_fsync=True)
    _, outcome = answer.get()
    if isinstance(outcome, Exception):
        raise outcome
    return list(outcome)


def together(do: Callable[[], Done], folder: Path, group: Any = None) -> list[Done]:
    """Let each rank do something on the disk, and return what all of them did.

    Raises:
        DiskError: one could not; raised by all of them.
        RuntimeError: another one failed for another reason.
    """
    mine, problem, defect = None, None, None
    try:
        mine = do()
    except OSError as error:
        problem = in_words(error, folder)
    except Exception as error:
        problem = reason(error, folder)
        defect = None if problem else error
    shares: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(shares, (mine, problem, defect and repr(defect)), group)
    if defect:
        raise defect
    if defects := [defect for _, _, defect in shares if defect]:
        raise RuntimeError(f"another rank failed: {defects[0]}")
    if problems := [problem for _, problem, _ in shares if problem]:
        raise DiskError(problems[0])
    return [done for done, _, _ in shares]
