"""orphans.py: no rank outlives the one that started it."""

import contextlib
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from {{cookiecutter.__package_name}}.runtime import backend, orphans

# A process that starts another one, and is then killed.
PARENT = """
import os, sys, time
sys.path.insert(0, {folder!r})
import orphans
if os.fork() == 0:
    orphans.die_with_the_parent()
    print(os.getpid(), flush=True)
time.sleep(60)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux's")
def test_started_rank_dies_with_its_parent() -> None:
    script = PARENT.format(folder=str(Path(orphans.__file__).parent))
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    is_gone, _, _ = select.select([parent.stdout], [], [], 10)  # readable at its end
    with contextlib.suppress(ProcessLookupError):
        os.kill(child, signal.SIGKILL)
    parent.stdout.close()
    assert is_gone


@pytest.mark.parametrize(("rank", "dies"), [("0", False), ("1", True)])
def test_only_ranks_that_were_started_die_with_their_parent(
    rank: str, dies: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setenv("LOCAL_RANK", rank)
    monkeypatch.setattr(orphans, "die_with_the_parent", lambda: asked.append(rank))
    with backend.prepared("cpu"):
        assert bool(asked) == dies
