"""signals.py: signals are kept until a step can be saved."""

import signal
import subprocess
import sys

import pytest
from conftest import ENVIRONMENT, PACKAGE

from {{cookiecutter.__package_name}}.runtime import signals

TWICE = """
import os, signal
from {package}.runtime import signals
with signals.kept():
    os.kill(os.getpid(), signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGTERM)  # at once: the same wish
    print(signals.received, flush=True)
    signals.SAME = 0.0
    os.kill(os.getpid(), signal.SIGTERM)
    print("not reached", flush=True)
"""


@pytest.fixture(autouse=True)
def as_it_was():
    before = {number: signal.getsignal(number) for number in signals.STOPPING}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", signals.STOPPING[:-1])
def test_the_first_signal_is_kept_and_forgotten_afterwards(number):
    signal.signal(number, signal.SIG_DFL)
    with signals.kept():
        with signals.kept():  # the command's, and the training's
            signal.raise_signal(number)
        assert signals.received == number.name
    assert signals.received is None
    assert signal.getsignal(number) is signal.SIG_DFL


def test_ctrl_c_ends_what_has_no_step_to_save_yet():
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with pytest.raises(KeyboardInterrupt), signals.kept():
        signal.raise_signal(signal.SIGINT)
    with signals.kept():
        signals.listen()
        signal.raise_signal(signal.SIGINT)
        assert signals.received == "SIGINT"


def test_what_nohup_lets_a_process_ignore_stays_ignored():
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with signals.kept():
        signal.raise_signal(signal.SIGHUP)
        assert signals.received is None


def test_a_later_signal_ends_the_process_at_once():
    words = [sys.executable, "-c", TWICE.format(package=PACKAGE)]
    answer = subprocess.run(words, capture_output=True, text=True, env=ENVIRONMENT, timeout=900)
    assert (answer.returncode, answer.stdout, answer.stderr) == (-signal.SIGTERM, "SIGTERM\n", "")
