"""`plan` answers on any machine, at once and alone."""

import json

import pytest
from conftest import PACKAGE, run

from {{cookiecutter.__package_name}}.training.run_settings import save_settings

MOST = 2.2
"""seconds of a processor that a plan of 64 GPUs may take for each that importing torch takes, which is part of it"""

PROGRAM = """
import json, os, socket, sys, time
from contextlib import suppress
STARTS = ("subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.exec", "os.system", "socket.bind")
LOOKS = ("ldconfig", "gcc", "cc", "ld", "objdump")  # by which ctypes looks for libraries while torch is imported
started = []

def watch(event, arguments):
    if event in STARTS and not str(arguments[0]).endswith(LOOKS):
        started.append(event)

def sockets():
    found = set()
    for fd in os.listdir("/proc/self/fd"):
        with suppress(OSError), socket.socket(fileno=os.dup(int(fd))) as opened:
            if opened.family != socket.AF_UNIX:  # as a driver of GPUs has
                found.add(os.fstat(int(fd)).st_ino)
    return found

inherited = sockets()
sys.addaudithook(watch)
import torch
importing = time.process_time()
from PACKAGE.cli import main
code = main()
print(json.dumps([code, time.process_time() / importing, started, sorted(sockets() - inherited)]))
"""


@pytest.fixture
def planned(command, tiny, tmp_path):
    """Plan with a script that watches; return what it saw, and the lines of the plan."""

    def plan(**changes):
        (tmp_path / "plan.py").write_text(PROGRAM.replace("PACKAGE", PACKAGE))
        save_settings(tiny(accelerator="auto", **changes), tmp_path)
        done = command("plan", "--config", str(tmp_path / "settings.yaml"), script=tmp_path / "plan.py")
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        *lines, seen = done.stdout.splitlines()
        return json.loads(seen), lines

    return plan


def test_64_gpus_are_planned_in_three_seconds_and_nothing_is_started(planned):
    layout = {"num_nodes": 8, "devices": 8, "tensor": 2, "pipeline": 2}
    (code, times, started, sockets), lines = planned(
        parallel=layout, training={"global_batch_size": 128, "precision": "bf16"}
    )
    assert (code, started, sockets) == (0, [], [])
    assert times <= MOST
    assert max(map(len, lines)) <= 120
    assert lines[1] == "64 GPUs on 8 nodes = tensor 2 x pipeline 2 x data 16"
    nodes = [line.split() for line in lines[4:12]]
    assert nodes[0] == ["0", "0-7", "0-1", "0", "0-3"] and nodes[7] == ["7", "56-63", "0-1", "1", "12-15"]


def test_all_that_is_wrong_with_a_layout_is_said_at_once(capfd):
    assert run("plan", "--parallel.devices", 7, "--parallel.tensor", 3, "--training.global_batch_size", 5) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert "needs a multiple of 3 processes, but there are 7" in err and "--training.global_batch_size 5" in err
