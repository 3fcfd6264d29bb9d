"""Where the ranks of a run meet: each time anew, within a limit, and with a word about whom they wait for.

Every meeting has a room of its own in the store that the processes share. Torch's own way has none: a rank that comes
again, in another run or after torchrun restarted it, reads addresses of the last time and waits for ever.
"""

from __future__ import annotations

import json
import math
import os
import socket
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta

import torch
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from torch.distributed import PrefixStore, Store, TCPStore  # type: ignore[attr-defined]

from ..contracts.errors import UserError
from . import launch

WORD = 10.0
"""seconds after which is told whom a rank waits for"""
REASON = "why the run ends"
MISTAKE = "error on"
"""how the reason begins that is a mistake of the user's; after any other the run may be tried again"""
_POLL = 0.05

_room: Store | None = None
"""holds all meetings of this process; rank 0's lives as long as the process"""
current: Meeting | None = None
"""the run's that is being made"""


@dataclass(frozen=True)
class Meeting:
    """The ranks of a run, that know each other."""

    session: str
    """name of this meeting's room"""
    store: Store
    """that room"""
    rank: int
    machines: list[str]
    """name of the machine of each rank"""
    addresses: list[str]
    """address of each rank's machine in the network in which it reached rank 0; that of rank 0 is not known"""
    per_machine: int
    """processes of a machine"""
    host: str
    """where this process reaches the store"""
    port: int
    limit: float
    """seconds that ranks wait for each other"""
    has_lost: list[int] = field(default_factory=list)
    """ranks that are not heard of any more (heartbeat.py)"""

    @property
    def size(self) -> int:
        """Number of ranks."""
        return len(self.machines)

    @property
    def tells_of_others(self) -> bool:
        """Whether this rank says that another is lost: one of each machine does, and rank 1, if that is rank 0."""
        return self.rank <= 1 or self.rank % self.per_machine == 0

    def name(self, rank: int) -> str:
        """Return what a person calls a rank."""
        return f"rank {rank} on {self.machines[rank]}" if self.size > self.per_machine else f"rank {rank}"

    def repeats(self, reason: str) -> bool:
        """Tell whether this rank repeats a reason of another machine's on its own; srun and MPI show those of all."""
        is_first = self.size > self.per_machine and self.rank % self.per_machine == 0
        are_shown = launch.launcher() in ("srun", *launch.MPI)
        return is_first and not are_shown and f" on {self.machines[self.rank]}" not in reason

    def fail(self, reason: str) -> str:
        """Write down why the run ends, if nobody has; return what then stands there."""
        return self.store.compare_set(REASON, "", reason).decode()

    def failure(self) -> str | None:
        """Return why the run ends, if a rank has said so."""
        return self.store.get(REASON).decode() if self.store.check([REASON]) else None

    def from_first(self, what: str, decide: Callable[[], str]) -> str:
        """Return what rank 0 decides, on all ranks.

        That may take as long as it likes, to read a large checkpoint, say: the others wait for it to begin within the
        limit, and then while it is heard of (`heartbeat.py`).

        Raises:
            UserError: on rank 0, what `decide` raises; on the others, when it does not begin.
            RuntimeError: on the others, when a rank has said why the run ends.
        """
        begun = f"{what}: begun"
        if self.rank == 0:
            self.store.set(begun, "")
            self.store.set(what, decide())
        self.said(begun, 0)
        return self.said(what, 0, math.inf)

    def said(self, what: str, by: int, limit: float | None = None) -> str:
        """Wait for what a rank says; RuntimeError if one has said why the run ends, UserError after the limit.

        Args:
            what: its name.
            by: the rank.
            limit: seconds; None: that of the meeting.
        """
        for _ in polls(self.limit if limit is None else limit):
            if self.store.check([what]):
                return self.store.get(what).decode()
            if reason := self.failure():
                raise RuntimeError(reason)
        raise UserError(f"{self.name(by)} has said nothing for {in_minutes(self.limit)}")


def meet(environment: ClusterEnvironment, rank: int, size: int, per_machine: int, minutes: float) -> Meeting:
    """Wait for all ranks of a run.

    Raises:
        UserError: some did not come within the limit, or the place cannot be reached.
    """
    global _room, current
    address, port, limit = environment.main_address, environment.main_port, 60 * minutes
    place = f"{address}:{port}"
    os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"] = address, str(port)
    told = _Word(size > per_machine and rank % per_machine == 0)
    is_host = rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    host = "localhost" if is_host else address  # its own name may lead elsewhere
    try:
        own = "" if is_host else _reach(address, port, limit, told)
        if _room is None:
            _room = open_room(host, port, limit, is_host)
        meet_them = _receive if rank == 0 else _come
        session, machines, addresses = meet_them(_room, rank, size, own, place, limit, told)
    except torch.distributed.DistError as error:
        remedy = "" if is_host else "; what listens there has ended, or is no run: start the command everywhere again"
        raise UserError(f"the ranks cannot meet at {place} ({' '.join(str(error).split())[:200]}){remedy}") from error
    room = PrefixStore(session, _room)
    current = Meeting(session, room, rank, machines, addresses, per_machine, host, port, limit)
    return current


def from_first(what: str, decide: Callable[[], str]) -> str:
    """Return what the first rank decides, on all ranks of the run that is being made; see `Meeting.from_first`."""
    return current.from_first(what, decide) if current else decide()


def leave() -> None:
    """Forget the meeting of a run that has ended."""
    global current
    current = None


class _Word:
    """Says once, on one rank of each of several machines, what takes long."""

    def __init__(self, speaks: bool) -> None:
        self.when = time.monotonic() + WORD if speaks else float("inf")

    def __call__(self, line: str) -> None:
        if time.monotonic() > self.when:
            print(line, file=sys.stderr, flush=True)
            self.when = float("inf")


def _reach(address: str, port: int, limit: float, told: _Word) -> str:
    """Wait until something listens there; return the own address in that network."""
    for _ in polls(limit):
        try:
            with socket.create_connection((address, port), timeout=5) as connection:
                return str(connection.getsockname()[0])
        except OSError as error:
            reason = str(error.strerror or error)
            told(f"waiting for rank 0 at {address}:{port} ({reason})")
    raise UserError(
        f"rank 0 could not be reached at {address}:{port}: {reason}, for {in_minutes(limit)}; start the command there "
        "too, or name its address in MASTER_ADDR (torchrun: --master-addr or --rdzv-endpoint)"
    )


def open_room(host: str, port: int, limit: float, is_host: bool = False) -> Store:
    """Connect to the store at an address, which is in this process if it `is_host`; limit in seconds."""
    return TCPStore(
        host, port, is_master=is_host, wait_for_workers=False, timeout=timedelta(seconds=limit), multi_tenant=True
    )


def _receive(
    room: Store, rank: int, size: int, own: str, place: str, limit: float, told: _Word
) -> tuple[str, list[str], list[str]]:
    """Be the first: open a meeting and wait for the others."""
    session, missing = uuid.uuid4().hex, list(range(1, size))
    room.set("session", session)
    for _ in polls(limit):
        while missing and room.check([f"{session}/came/{missing[0]}"]):
            missing.pop(0)
        if not missing:
            break
        told(f"waiting for {_ranks(missing)} of {size} at {place}")
    else:
        absent = [other for other in missing if not room.check([f"{session}/came/{other}"])]
        raise UserError(
            f"{_ranks(absent)} of {size} did not come to {place} for {in_minutes(limit)}: start the command on every "
            "machine, with the same --parallel settings"
        )
    came = [json.loads(room.get(f"{session}/came/{other}")) for other in range(1, size)]
    machines = [socket.gethostname(), *(machine for _, machine, _ in came)]
    addresses = [own, *(address for _, _, address in came)]
    room.set(f"{session}/all", json.dumps((machines, addresses)))
    for other, (nonce, _, _) in enumerate(came, 1):
        room.set(f"{session}/welcome/{other}", nonce)
    return session, machines, addresses


def _come(
    room: Store, rank: int, size: int, own: str, place: str, limit: float, told: _Word
) -> tuple[str, list[str], list[str]]:
    """Come to the meeting of rank 0; one where it welcomes another of this rank's number is over."""
    nonce, session = uuid.uuid4().hex, ""
    for _ in polls(limit):
        if room.check(["session"]) and (latest := room.get("session").decode()) != session:
            session = latest
            room.set(f"{session}/came/{rank}", json.dumps((nonce, socket.gethostname(), own)))
        welcome = f"{session}/welcome/{rank}"
        if session and room.check([welcome]) and room.get(welcome).decode() == nonce:
            machines, addresses = json.loads(room.get(f"{session}/all"))
            return session, machines, addresses
        told(f"waiting for all {size} processes at {place}")
    raise UserError(f"not all {size} processes came to {place} for {in_minutes(limit)}; rank 0 says who is missing")


def _ranks(ranks: list[int]) -> str:
    return f"rank{'s' if len(ranks) > 1 else ''} {', '.join(map(str, ranks[:8]))}{', ...' if len(ranks) > 8 else ''}"


def polls(limit: float) -> Iterator[None]:
    """Come again and again until a limit in seconds; at least once."""
    deadline = time.monotonic() + limit
    yield
    while time.monotonic() < deadline:
        time.sleep(_POLL)
        yield


def in_minutes(seconds: float) -> str:
    """Return the limit as a person gave it."""
    return f"{seconds / 60:g} minutes (--parallel.timeout_minutes)"
