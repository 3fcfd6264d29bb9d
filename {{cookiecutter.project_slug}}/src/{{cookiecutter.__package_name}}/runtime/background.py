"""Checkpoints written while training goes on: it waits until the state has been copied, and a thread does the rest.

A thread ends with its process, however that ends. What it says to those of the other ranks, it says in groups of its
own, which the training does not use.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any

import torch
from megatron.core.dist_checkpointing.dict_utils import nested_values
from megatron.core.dist_checkpointing.mapping import ShardedTensor
from megatron.core.optimizer.distrib_optimizer import DistributedOptimizer
from torch import Tensor
from torch.distributed import ProcessGroup

STATE = ("param", "exp_avg", "exp_avg_sq")


class Background:
    """Does what is left of a save when the state has been copied: of one step at a time, one thing after the other."""

    def __init__(self, optimizers: list[Any]) -> None:
        """Make groups, with all ranks, and let the optimizers give copies of their state from now on."""
        self.group = torch.distributed.new_group(backend="gloo")
        self.copies = Copies(optimizers)
        self._thread = ThreadPoolExecutor(1, "checkpoint")
        self._running: list[Future[None]] = []
        self._known: list[dict[str, Any]] = []
        self.before: dict[str, Any] = {}
        """what was known before the save that was waited for last"""

    def start(self, finish: Callable[[str | None], None], known: dict[str, Any]) -> None:
        """Let a save run, which is given why one that was started before it failed, if it did; and what was known."""
        self._running.append(self._thread.submit(self._run, finish, list(self._running)))
        self._known.append(known)

    @staticmethod
    def _run(finish: Callable[[str | None], None], before: list[Future[None]]) -> None:
        errors = (future.exception() for future in before)
        finish(next((str(error) for error in errors if error), None))

    def wait(self) -> None:
        """Wait until all is done; raise what went wrong first."""
        running, self._running = self._running, []
        known, self._known = self._known, []
        for future, self.before in zip(running, known, strict=True):
            future.result()

    def close(self) -> None:
        """Wait, and end the thread; what went wrong is no longer of interest."""
        with suppress(Exception):
            self.wait()
        self._thread.shutdown()


class Copies:
    """What this rank holds of network and optimizer, as it was after a step, in memory that each save uses again."""

    def __init__(self, optimizers: list[Any]) -> None:
        """Take the place of the method by which Megatron's distributed optimizers gather their state."""
        self._memory: dict[Any, Tensor] = {}
        self._step = -1
        self._is_new = True
        self._gathers: list[Callable[[], None]] = []
        chained = [part for optimizer in optimizers for part in _parts(optimizer.mcore_optimizer)]
        groups = _groups([part.data_parallel_group for part in chained])
        for number, (part, group) in enumerate(zip(chained, groups, strict=True)):
            part.get_parameter_state_dp_zero = partial(self._collect, part, number, group)  # nothing loads any more

    def begin(self, step: int) -> None:
        """Copy what is asked for next, unless it has been copied after this step."""
        self._is_new, self._step = step != self._step, step

    def of_weights(self, sharded: Any) -> None:
        """Put copies in place of all tensors that are none yet."""
        copied = {tensor.data_ptr() for tensor in self._memory.values()}
        for number, item in enumerate(nested_values(sharded)):
            if isinstance(item, ShardedTensor) and item.data.data_ptr() not in copied:
                data = item.data
                room = self._room(number, data.shape, data.is_cuda, data.dtype)
                if self._is_new:
                    room.copy_(data)
                item.data = room

    def gather(self) -> None:
        """Get what other data parallel ranks have copied of the optimizer's state; in the thread."""
        gathers, self._gathers = self._gathers, []
        for gather in gathers:
            gather()

    def _collect(self, optimizer: Any, number: int, group: Any, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        """Return the state of whole weights, as Megatron's method does; where it is shared out, `gather` fills it."""
        state: dict[Any, Any] = {"buckets_coalesced": True}
        for index, ranges in enumerate(optimizer.gbuf_ranges):
            [(dtype, buckets)] = ranges.items()
            wholes: dict[str, Any] = {name: _Wholes() for name in STATE}
            for weight, (start, end, _) in optimizer.buffers[index].param_index_map.items():
                for name in STATE:
                    wholes[name][start] = self._room((number, index, start, name), end - start, weight.is_cuda)
            state[index] = {dtype: {**wholes, "numel_unpadded": optimizer.buffers[index].numel_unpadded}}
            if self._is_new:
                for bucket, ranges_of_it in enumerate(buckets):
                    self._copy(optimizer, (number, index, bucket), ranges_of_it["param_map"], wholes, group)
        return state

    def _copy(self, optimizer: Any, place: tuple[int, int, int], ranges: Any, wholes: Any, group: Any) -> None:
        """Copy this rank's part of a bucket: into whole weights if it has all of them, else for `gather`."""
        buffer, bucket = optimizer.buffers[place[1]], place[2]
        states = {weight: optimizer._get_main_param_and_optimizer_states(weight) for weight in ranges}
        if group is None:
            for weight, state in states.items():
                for name in STATE:
                    wholes[name][buffer.param_index_map[weight][0]].copy_(state[name].view(-1))
            return
        begin = sum(before.numel_unpadded for before in buffer.buckets[:bucket])
        places = [(start, end) for start, end, number in buffer.param_index_map.values() if number == bucket]
        size = buffer.buckets[bucket].grad_data.numel() // group.size()
        is_on_gpu = buffer.buckets[bucket].grad_data.is_cuda
        for name in STATE:
            part = self._room(("part", *place, name), size, is_on_gpu)
            for weight, state in states.items():
                local = ranges[weight]["gbuf_local"]
                part[local.start : local.end].copy_(state[name].view(-1))
            self._gathers.append(partial(_gather, part, group, wholes[name], places, begin))

    def _room(self, key: Any, shape: Any, is_on_gpu: bool, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return memory of the host for what lies there or on a GPU, which copies faster to pinned memory."""
        if key not in self._memory:
            self._memory[key] = torch.empty(shape, dtype=dtype, pin_memory=is_on_gpu)
        return self._memory[key]


class _Wholes(dict[int, Tensor]):
    """Whole weights by where they start, which are asked for as parts of one tensor."""

    def __getitem__(self, place: Any) -> Tensor:
        return super().__getitem__(place.start if isinstance(place, slice) else place)


def _gather(part: Tensor, group: ProcessGroup, wholes: _Wholes, places: list[tuple[int, int]], begin: int) -> None:
    parts = [torch.empty_like(part) for _ in range(group.size())]
    torch.distributed.all_gather(parts, part, group=group)
    bucket = torch.cat(parts)
    for start, end in places:
        wholes[start].copy_(bucket[start - begin : end - begin])


def _parts(optimizer: Any) -> list[DistributedOptimizer]:
    return list(getattr(optimizer, "chained_optimizers", [optimizer]))


def _groups(of_training: list[Any]) -> list[ProcessGroup | None]:
    """Make groups of the same ranks as those; None where a rank is alone."""
    mine = [tuple(torch.distributed.get_process_group_ranks(group)) for group in of_training]
    ranks: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(ranks, mine)
    wanted = sorted({group for groups in ranks for group in groups if len(group) > 1})
    made: dict[Any, Any] = {group: torch.distributed.new_group(list(group), backend="gloo") for group in wanted}
    return [made.get(group) for group in mine]
