"""heartbeat.py: a rank that is not heard of any more ends the run, and is named."""

import math
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor, TimeoutError
from contextlib import suppress

import pytest
from conftest import ENVIRONMENT, PACKAGE, free_port
from torch.distributed import PrefixStore, TCPStore

from {{cookiecutter.__package_name}}.contracts.errors import LOST
from {{cookiecutter.__package_name}}.runtime import heartbeat, meeting

LIVES = """
import os, time
from dataclasses import replace
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from {package}.runtime import heartbeat, meeting
heartbeat._GRACE = 0.2
met = meeting.meet(LightningEnvironment(), int(os.environ["LOCAL_RANK"]), 2, 2, minutes=15.0)
with heartbeat.heard(replace(met, limit={seconds})):
    print("met", flush=True)
    met.from_first("decision", lambda: str(time.sleep(600)))
"""


def when_one_stands_still(lost: int, seconds: float) -> tuple[int | None, str]:
    """Let two processes meet that wait so long for each other, and stop one; return how the other ends."""
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", LIVES.format(package=PACKAGE, seconds=seconds)],
            env={**ENVIRONMENT, **place, "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        for rank in ranks:
            rank.stdout.readline()  # "met", or nothing if it has ended
        os.kill(ranks[lost].pid, signal.SIGSTOP)
        _, told = ranks[1 - lost].communicate(timeout=900)
        return ranks[1 - lost].returncode, told
    finally:
        for rank in ranks:
            rank.kill()
            rank.communicate()


@pytest.mark.slow
@pytest.mark.parametrize("lost", [0, 1])
def test_a_rank_that_stands_still_is_named_and_ends_the_others(lost):
    for seconds in (2.0, 30.0, 300.0):  # on a busy machine one may not come to say anything for two seconds
        code, told = when_one_stands_still(lost, seconds)
        if f"rank {lost} not heard of" in told:
            break
    assert code == LOST == 69
    missing = f"rank {lost} not heard of for {seconds / 60:g} minutes (--parallel.timeout_minutes)"
    assert f"error: {missing}; a training" in told


def meet(size: int, limit: float) -> list[meeting.Meeting]:
    """Return the meeting as each rank has it."""
    server = TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
    room, machines = PrefixStore("s", server), ["a"] * size
    return [
        meeting.Meeting("s", room, rank, machines, [], size, "localhost", server.port, limit) for rank in range(size)
    ]


def test_ranks_that_are_heard_are_not_lost():
    hearts = [heartbeat._Heart(met) for met in meet(2, limit=1.0)]
    threads = [heartbeat.threading.Thread(target=heart.beat) for heart in hearts]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 900
    while any(int(beat or 0) < 30 for heart in hearts for beat in heart.beats.values()):  # three times the limit
        assert time.monotonic() < deadline
        time.sleep(0.05)
    for heart in hearts:
        heart.has_ended.set()
        assert not heart._misses() and heart.reason is None
    for thread in threads:
        thread.join()
    hearts[0].when[1] -= 60
    assert hearts[0]._misses() and hearts[0].meeting.has_lost == [1]


def end(met: meeting.Meeting, *errors: Exception) -> None:
    with suppress(ValueError), heartbeat.heard(met):
        for error in errors:
            raise error


def test_a_rank_that_has_ended_well_is_not_missed_and_one_that_has_failed_is():
    first, second, third = meet(3, limit=900.0)
    end(second)
    end(third, ValueError("no such luck"))
    heart = heartbeat._Heart(first)
    heart.when = dict.fromkeys(heart.watched, -math.inf)
    heart._listen(first.store)
    assert heart._misses() and first.has_lost == [2]


def test_the_first_rank_whose_store_the_others_need_ends_last():
    first, second = meet(2, limit=900.0)
    with ThreadPoolExecutor(1) as threads:
        ending = threads.submit(end, first)
        with pytest.raises(TimeoutError):
            ending.result(timeout=0.5)
        end(second)
        ending.result(timeout=900)
    end(first, ValueError("it waits for nobody then"))
