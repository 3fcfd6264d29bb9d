"""Starts the processes of a short run on this machine: clean ones, that have already imported everything.

For `layouts` and for the tests, which make many runs of many processes: importing takes longer than such a run. The
processes of a training that you start yourself come from Lightning, torchrun or Slurm.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NoReturn

from ..contracts.errors import UserError
from ..runtime import noise, orphans


class RanksFailed(Exception):
    """A rank ended with an error, or was not done in time. The text says which one, and how its output ended."""


@dataclass
class Ranks:
    """The processes of one run."""

    processes: list[BaseProcess]
    answers: list[Connection]
    logs: list[Path]
    store: Any
    """server of the store through which they find each other; lives as long as this object"""

    def results(self, limit: float = 900.0) -> list[Any]:
        """Wait for all ranks; return what each returned. None of them is left behind.

        Args:
            limit: seconds after which they are killed.

        Raises:
            RanksFailed: a rank failed, or the limit is over.
        """
        deadline = time.monotonic() + limit
        results: list[Any] = [None] * len(self.processes)
        pending: dict[Any, int] = {answer: rank for rank, answer in enumerate(self.answers)}
        pending |= {process.sentinel: rank for rank, process in enumerate(self.processes)}
        try:
            while pending:
                for source in wait(list(pending), timeout=max(deadline - time.monotonic(), 0)) or self._late(limit):
                    rank = pending.pop(source)
                    if source is not self.answers[rank]:
                        self._check(rank)
                    else:
                        with suppress(EOFError):  # it ended without an answer, which its exit code explains
                            results[rank] = self.answers[rank].recv()
            return results
        finally:
            self.kill()

    def kill(self) -> None:
        """End every rank at once, as `kill -9` does."""
        for process in self.processes:
            process.kill()
        for process in self.processes:
            process.join()

    def _late(self, limit: float) -> NoReturn:
        still = ", ".join(process.name for process in self.processes if process.is_alive())
        raise RanksFailed(f"{still} not done after {limit:.0f} s; {self._last_words(self.logs[0])}")

    def _check(self, rank: int) -> None:
        process = self.processes[rank]
        process.join()
        if process.exitcode:
            words = self._last_words(self.logs[rank])
            raise RanksFailed(f"{process.name} ended with exit code {process.exitcode}; {words}")

    @staticmethod
    def _last_words(log: Path) -> str:
        return f"the end of {log}:\n{log.read_text(errors='replace')[-4000:]}"


def start_ranks(
    target: Callable[..., Any], *arguments: Any, processes: int, logs: Path, accelerator: str = "cpu"
) -> Ranks:
    """Call `target(*arguments)` in that many processes, from which a trainer of that many devices makes its group.

    Args:
        target: a function that can be imported; it trains, evaluates or predicts once, for one group can be made.
        arguments: what it takes; what it takes and returns is pickled.
        processes: number of ranks.
        logs: folder for `rank<n>.log`, all that a rank prints.
        accelerator: "cpu" or "gpu".
    """
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    logs.mkdir(parents=True, exist_ok=True)
    context = _context(accelerator)
    work = pickle.dumps((target, arguments))  # so that a rank can mute itself before it imports the target's module
    ranks = Ranks([], [], [], TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False))
    for rank in range(processes):
        answer, far_end = context.Pipe(duplex=False)
        log = logs / f"rank{rank}.log"
        log.touch()  # for a rank that ends before it can write
        environment = _environment(rank, processes, ranks.store.port)
        process = context.Process(
            target=_rank, args=(work, environment, log, far_end), name=f"rank {rank}", daemon=True
        )
        process.start()
        far_end.close()
        ranks.processes.append(process)
        ranks.answers.append(answer)
        ranks.logs.append(log)
    return ranks


@cache
def _context(accelerator: str) -> Any:
    """Fork, unless an import of the network's has used CUDA: what is forked from there cannot; then import anew."""
    forked = multiprocessing.get_context("forkserver")
    forked.set_forkserver_preload([f"{__package__}.preload"])
    if accelerator == "cpu":
        return forked
    trial = forked.Process(target=_use_cuda)
    trial.start()
    trial.join()
    return multiprocessing.get_context("spawn") if trial.exitcode else forked


def _use_cuda() -> None:
    import torch

    try:
        torch.zeros(1, device="cuda")
    except (AssertionError, RuntimeError):
        sys.exit(1)


def run_ranks(
    target: Callable[..., Any],
    *arguments: Any,
    processes: int,
    logs: Path,
    accelerator: str = "cpu",
    limit: float = 900.0,
) -> list[Any]:
    """Start ranks, wait for them and return what each returned; see `start_ranks` and `Ranks.results`."""
    return start_ranks(target, *arguments, processes=processes, logs=logs, accelerator=accelerator).results(limit)


def _environment(rank: int, processes: int, port: int) -> dict[str, str]:
    """Return the variables by which Lightning and torch find the other ranks: those of torchrun."""
    return {
        "LOCAL_RANK": str(rank),
        "NODE_RANK": "0",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",  # the store is not rank 0's, but the starting process's
        "TORCHELASTIC_RESTART_COUNT": "0",
        "OMP_NUM_THREADS": str(max(len(os.sched_getaffinity(0)) // processes, 1)),
    }


def _rank(work: bytes, environment: dict[str, str], log: Path, answer: Connection) -> None:
    orphans.die_with_the_parent()
    with log.open("w") as file:
        os.dup2(file.fileno(), sys.stdout.fileno())
        os.dup2(file.fileno(), sys.stderr.fileno())
    os.environ.update(environment)
    noise.quiet()
    import torch

    torch.set_num_threads(int(environment["OMP_NUM_THREADS"]))
    target, arguments = pickle.loads(work)
    try:
        answer.send(target(*arguments))
    except UserError as error:
        sys.exit(str(error))  # the last line of the log, and no traceback
    except Exception:
        sys.excepthook(*sys.exc_info())  # which multiprocessing does not ask
        sys.exit(1)
