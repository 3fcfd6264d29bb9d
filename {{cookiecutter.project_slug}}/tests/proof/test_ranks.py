"""ranks.py: the processes of a short run answer, fail together and leave nothing behind."""

import os
import sys
import time

import pytest
import torch

from {{cookiecutter.__package_name}}.contracts.errors import UserError
from {{cookiecutter.__package_name}}.proof.ranks import RanksFailed, _context, run_ranks

pytestmark = pytest.mark.slow


def sleep_for_ever():
    time.sleep(600)


def answer_at_length():
    return "word " * 100_000


def fail_on_the_second():
    if os.environ["LOCAL_RANK"] == "1":
        raise ValueError("no such luck")
    sleep_for_ever()


def test_ranks_answer_at_any_length(tmp_path):
    assert run_ranks(answer_at_length, processes=2, logs=tmp_path, limit=900) == ["word " * 100_000] * 2


def threads() -> int:
    return torch.get_num_threads()


def test_ranks_share_the_cores_that_this_process_may_use(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: range(12))  # of a larger machine
    assert run_ranks(threads, processes=2, logs=tmp_path) == [6, 6]


def test_ranks_fail_together_and_say_why(tmp_path):
    with pytest.raises(RanksFailed, match=r"(?s)rank 1 ended with exit code 1; the end of .*ValueError: no such luck"):
        run_ranks(fail_on_the_second, processes=2, logs=tmp_path)


def fail_in_words():
    raise UserError("it cannot be, because it may not be")


def test_a_rank_that_fails_for_the_user_to_mend_it_says_only_that(tmp_path):
    with pytest.raises(RanksFailed, match=r"rank 0 ended with exit code 1; the end of .*:\nit cannot be, because"):
        run_ranks(fail_in_words, processes=1, logs=tmp_path)


def test_a_rank_that_cannot_even_begin_is_named(tmp_path, monkeypatch):
    main = sys.modules["__main__"]
    monkeypatch.setattr(main, "__spec__", None)
    monkeypatch.setattr(main, "__file__", str(tmp_path / "gone.py"), raising=False)  # which every rank reads first
    with pytest.raises(RanksFailed, match=r"rank 0 ended with exit code 1; the end of .*rank0\.log"):
        run_ranks(fail_in_words, processes=1, logs=tmp_path)


CONTEXTS = f"""
import torch
from {_context.__module__} import _context
if __name__ == "__main__":
    methods = [_context(kind).get_start_method() for kind in ("cpu", "gpu")]
    print(methods == ["forkserver", "forkserver" if torch.cuda.device_count() else "spawn"])
"""


def test_ranks_that_use_cuda_are_forked_where_that_is_possible(command, tmp_path):
    """In a process of its own: a training on the CPU has hidden all GPUs from this one."""
    (script := tmp_path / "contexts.py").write_text(CONTEXTS)
    answer = command(script=script)
    assert answer.stdout == "True\n", answer.stderr


def test_ranks_have_a_limit(tmp_path):
    with pytest.raises(RanksFailed, match="rank 0, rank 1 not done after 1 s"):
        run_ranks(sleep_for_ever, processes=2, logs=tmp_path, limit=1)
