"""Ends a run of which a rank is no longer heard: a machine without power, a cut cable, a stopped process.

Nothing else notices within the limit. A collective waits for it as long as its group allows, and NCCL's watchdog then
kills every process without saying who was missing.
"""

from __future__ import annotations

import math
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import torch
from torch.distributed import PrefixStore, Store  # type: ignore[attr-defined]

from ..contracts.errors import LOST
from .launch import GO_ON
from .meeting import MISTAKE, REASON, Meeting, in_minutes, open_room

_REFUSED = 2
_GRACE = 10.0
"""seconds that a rank has to end by itself when the run ends"""
_POLL = 0.05


@contextmanager
def heard(meeting: Meeting) -> Iterator[None]:
    """Let the ranks of a run hear of each other while it lasts; one that hears nothing for the limit ends itself.

    A rank that ends well is no longer missed: others may have more to do. The first one ends last.
    """
    heart = _Heart(meeting)
    for work in (heart.beat, heart.watch):
        threading.Thread(target=work, daemon=True).start()
    try:
        yield
        heart.say_farewell()
    finally:
        heart.has_ended.set()


class _Heart:
    def __init__(self, meeting: Meeting) -> None:
        self.meeting, self.has_ended = meeting, threading.Event()
        self.watched = range(1, meeting.size) if meeting.rank == 0 else [0]
        self.beats = dict.fromkeys(self.watched, "")
        self.when = dict.fromkeys(self.watched, time.monotonic())
        self.pause = min(meeting.limit / 10, 5.0)
        self.reason: str | None = None
        """why the run ends: what a rank has said, or what this one has found"""

    def beat(self) -> None:
        """Say again and again that this rank is there, and listen for the others; a dead network may block it."""
        store: Store | None = None
        count = 0
        while not self.has_ended.wait(self.pause):
            count += 1
            try:
                store = store or self._own_store()
                store.set(f"beat {self.meeting.rank}", str(count))
                self._listen(store)
            except torch.distributed.DistError:
                store = None  # the first rank may just have ended; `watch` sees when it has not

    def _own_store(self) -> Store:
        """Return another connection to the meeting's store: in one, a thread that waits holds up the other."""
        meeting = self.meeting
        return PrefixStore(meeting.session, open_room(meeting.host, meeting.port, meeting.limit))

    def _listen(self, store: Store) -> None:
        for rank in self.watched:
            heard = store.get(f"beat {rank}").decode() if store.check([f"beat {rank}"]) else ""
            if heard != self.beats[rank]:
                self.beats[rank], self.when[rank] = heard, time.monotonic()
            if store.check([f"farewell {rank}"]):
                self.when[rank] = math.inf  # it is not missed any more
        if self.reason:
            store.compare_set(REASON, "", self.reason)
        elif store.check([REASON]):
            self.reason = store.get(REASON).decode()

    def say_farewell(self) -> None:
        """Say that this rank has ended well; the first waits until all have, for the store may be in its process.

        Meanwhile `watch` ends this process if one of them is lost, or has failed.
        """
        store, rank, others = self.meeting.store, self.meeting.rank, range(1, self.meeting.size)
        with suppress(torch.distributed.DistError):  # whoever held the store has ended, and this rank has done its work
            if rank:
                store.set(f"farewell {rank}", "")
            while rank == 0 and not store.check([f"farewell {other}" for other in others]):
                time.sleep(_POLL)

    def watch(self) -> None:
        """End this process when a rank has not been heard for too long, or the run ends and it does not."""
        while not self.has_ended.wait(min(self.pause, 1.0)):
            if self.reason or self._misses():
                break
        if not self.has_ended.wait(2 * self.pause + _GRACE):  # others read the reason, and this process may end itself
            if not self.meeting.has_lost and self.meeting.repeats(self.reason or ""):
                print(self.reason, file=sys.stderr, flush=True)
            os._exit(_REFUSED if (self.reason or "").startswith(MISTAKE) else LOST)

    def _misses(self) -> bool:
        meeting = self.meeting
        lost = [rank for rank in self.watched if time.monotonic() - self.when[rank] > meeting.limit]
        if not lost:
            return False
        meeting.has_lost.extend(lost)
        who = ", ".join(map(meeting.name, lost))
        self.reason = f"error: {who} not heard of for {in_minutes(meeting.limit)}; {GO_ON}"
        if meeting.tells_of_others:
            print(self.reason, file=sys.stderr, flush=True)
        return True
