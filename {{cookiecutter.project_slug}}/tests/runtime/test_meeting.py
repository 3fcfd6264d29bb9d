"""meeting.py: the ranks of a run meet within a limit, anew each time, and the first decides for all."""

import re
import subprocess
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import ENVIRONMENT, PACKAGE
from torch.distributed import DistNetworkError, PrefixStore, Store, TCPStore

from {{cookiecutter.__package_name}}.contracts.errors import UserError
from {{cookiecutter.__package_name}}.runtime import agreement, lock, meeting


@pytest.fixture
def rooms() -> list[Store]:
    """The store of three ranks, each with a connection of its own."""
    server = TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
    return [server, *(TCPStore("localhost", server.port, is_master=False, wait_for_workers=False) for _ in range(2))]


@pytest.fixture
def ranks():
    with ThreadPoolExecutor(3) as threads:
        yield threads


def come(ranks: ThreadPoolExecutor, room: Store, rank: int, limit: float = 900.0) -> Future:
    told = meeting._Word(speaks=False)
    role = meeting._come if rank else meeting._receive
    return ranks.submit(role, room, rank, 3, f"10.0.0.{rank}", "here:1", limit, told)


def test_all_ranks_learn_who_has_come(rooms, ranks):
    answers = [come(ranks, room, rank).result for rank, room in enumerate(rooms)]
    first, *others = [answer() for answer in answers]
    assert others == [first, first]
    assert first[2] == ["10.0.0.0", "10.0.0.1", "10.0.0.2"]


def test_ranks_that_come_again_do_not_meet_those_of_the_last_time(rooms, ranks):
    before = [come(ranks, room, rank) for rank, room in enumerate(rooms)]
    old = {answer.result()[0] for answer in before}
    early = [come(ranks, rooms[rank], rank) for rank in (1, 2)]
    deadline = time.monotonic() + 900
    [session] = old
    while rooms[0].num_keys() < 12 and time.monotonic() < deadline and not any(rank.done() for rank in early):
        time.sleep(0.01)  # both have looked at the meeting that is over
        if all(rooms[0].get(f"{session}/came/{rank}") != rooms[0].get(f"{session}/welcome/{rank}") for rank in (1, 2)):
            break
    assert not any(rank.done() for rank in early)
    again = {answer.result()[0] for answer in (come(ranks, rooms[0], 0), *early)}
    assert len(again) == 1 and again != old


def test_who_did_not_come_is_named(rooms, ranks):
    second = come(ranks, rooms[1], 1, limit=0.3)
    with pytest.raises(UserError, match=r"^rank 2 of 3 did not come to here:1 for 0.005 minutes \(--parallel\.timeout"):
        come(ranks, rooms[0], 0, limit=0.3).result()
    with pytest.raises(UserError, match="not all 3 processes came to here:1"):
        second.result()


def test_a_place_that_cannot_be_reached_is_told_while_a_rank_waits(capsys):
    told = meeting._Word(speaks=True)
    told.when = 0.0
    with pytest.raises(UserError, match=r"could not be reached at localhost:1: .+ for 0.005 minutes"):
        meeting._reach("localhost", 1, 0.3, told)
    assert re.fullmatch(r"waiting for rank 0 at localhost:1 \(.+\)\n", capsys.readouterr().err)


def test_a_first_rank_that_leaves_before_all_have_come_is_told(rooms, monkeypatch):
    def leave(*_):
        raise DistNetworkError("Failed to recv,\ngot 0 bytes")

    for name in ("MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "set")  # is put back
    monkeypatch.setattr(meeting, "_room", rooms[1])
    monkeypatch.setattr(meeting, "_come", leave)
    environment = SimpleNamespace(main_address="localhost", main_port=rooms[0].port)
    told = rf"cannot meet at localhost:{rooms[0].port} \(Failed to recv, got 0 bytes\); what listens there has ended"
    with pytest.raises(UserError, match=told):
        meeting.meet(environment, 1, 3, 1, minutes=15.0)


def meet(rooms: list[Store], rank: int, limit: float = 60.0) -> meeting.Meeting:
    room = PrefixStore("session", rooms[rank])
    return meeting.Meeting("session", room, rank, ["a", "b", "c"], [], 1, "localhost", rooms[0].port, limit)


def test_what_the_first_decides_holds_for_all(rooms, ranks):
    def fails() -> str:
        raise UserError("cannot")

    others = [ranks.submit(meet(rooms, rank).from_first, "step", fails) for rank in (1, 2)]
    assert meet(rooms, 0).from_first("step", lambda: "7") == "7"
    assert [other.result() for other in others] == ["7", "7"]
    other = ranks.submit(meet(rooms, 1).from_first, "size", str)
    with pytest.raises(UserError, match="cannot"):
        meet(rooms, 0).from_first("size", fails)
    assert meet(rooms, 0).fail("error on rank 0: cannot") == "error on rank 0: cannot"
    with pytest.raises(RuntimeError, match="error on rank 0: cannot"):
        other.result()


def test_the_first_may_take_longer_to_decide_than_the_others_wait_for_it_to_begin(rooms, ranks):
    """To read hundreds of GB, say."""
    second = meet(rooms, 1, limit=0.0)
    with pytest.raises(UserError, match=r"^rank 0 on a has said nothing for 0 minutes"):
        second.from_first("step", str)
    others: list[Future] = []

    def decide() -> str:
        while not second.store.check(["step: begun"]):  # a store sets what it is given a moment later
            time.sleep(0.01)
        others.append(ranks.submit(second.from_first, "step", str))
        wait(others, timeout=1)  # where it has a limit, the other one gives up now
        return "7"

    assert meet(rooms, 0).from_first("step", decide) == "7" == others[0].result()


def test_what_another_machine_was_given_or_has_is_refused(rooms, monkeypatch: pytest.MonkeyPatch):
    given = {"command": "train", "training": {"lr": 0.1}}
    for rank in range(3):
        meet(rooms, 0).store.set(f"alike {rank}", "")
    for rank in range(2):
        monkeypatch.setattr(meeting, "current", meet(rooms, rank))
        agreement.check_alike(given)
    told = "training.lr 0.2, not 0.1: give this machine what a has"
    with pytest.raises(UserError, match=re.escape(told)):
        agreement.check_alike({"command": "train", "training": {"lr": 0.2}})
    monkeypatch.setattr(agreement, "_checksum", lambda: 7)
    with pytest.raises(UserError, match=r"^checksum of the package 7, not \d+: give"):
        agreement.check_alike(given)


WHO_HOLDS = f"import pathlib, sys, {PACKAGE}.runtime.lock as lock; print(lock.holder(pathlib.Path(sys.argv[1])))"


def test_a_run_folder_that_other_machines_do_not_see_is_refused(rooms, tmp_path: Path, monkeypatch):
    first = meet(rooms, 0)
    for rank in range(3):
        first.store.set(f"sees it {rank}", "")
    with lock.locked(tmp_path):
        monkeypatch.setattr(meeting, "current", first)
        agreement.check_shared(tmp_path)
        asked = [sys.executable, "-c", WHO_HOLDS, tmp_path]
        assert subprocess.run(asked, env=ENVIRONMENT, capture_output=True, text=True).stdout.strip() == lock.signature()
    (tmp_path / lock.LOCK_FILE).write_text(lock.signature())
    monkeypatch.setattr(meeting, "current", meet(rooms, 1))
    monkeypatch.setattr(agreement, "_SHARES", 0.2)
    agreement.check_shared(tmp_path)
    for text in ("process 8 on b", None):
        (tmp_path / lock.LOCK_FILE).write_text(text) if text else (tmp_path / lock.LOCK_FILE).unlink()
        with pytest.raises(UserError, match=r" on b is not that of a: --run_dir must lie on a file system that all"):
            agreement.check_shared(tmp_path)
