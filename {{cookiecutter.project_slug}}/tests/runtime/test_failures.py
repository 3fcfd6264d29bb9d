"""failures.py: a mistake is told once, by the rank that finds it."""

import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from unittest.mock import MagicMock

import pytest
from canaries import mended
from conftest import PACKAGE, TINY, change
from lightning.pytorch.trainer import call
from torch.distributed import HashStore

from {{cookiecutter.__package_name}}.contracts.errors import LostError
from {{cookiecutter.__package_name}}.contracts.names import SETTINGS_FILE
from {{cookiecutter.__package_name}}.runtime import failures, meeting
from {{cookiecutter.__package_name}}.training.run_settings import save_settings

FAILS = """
import sys
from {package}.runtime import noise
noise.quiet()
from {package} import cli
from {package}.contracts.errors import UserError
from {package}.training import train

class Failing(train.Progress):
    def on_train_batch_end(self, trainer, *arguments):
        if trainer.global_rank == {rank}:
            raise {error}("no such luck")

train.Progress = Failing
sys.exit(cli.main())
"""


IGNORES = """
import sys
from {package} import cli
from {package}.runtime import noise
noise.quiet()
import torch
from {package}.model.config import NETWORKS

config = NETWORKS["{network}"]

class Ignores(config.stage_class):
    def forward(self, batch):
        given = self.input_tensor
        self.input_tensor = given if given is None else given.detach()
        output = super().forward(batch)
        self.input_tensor = given
        return output

config.stage_class = Ignores
sys.exit(cli.main())
"""


@pytest.fixture
def fail(command: Callable, tmp_path: Path) -> Callable:
    """Train in two processes, of which one fails after its first step."""

    def run(rank: int, error: str) -> subprocess.CompletedProcess:
        script = tmp_path / "train.py"
        script.write_text(FAILS.format(package=PACKAGE, rank=rank, error=error))
        save_settings(change(TINY, run_dir=str(tmp_path / "run"), parallel={"devices": 2}), tmp_path)
        return command("pretrain", "--config", str(tmp_path / SETTINGS_FILE), script=script)

    return run


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_mistake_that_one_rank_finds_is_told_once_and_in_words(rank: int, fail: Callable) -> None:
    answer = fail(rank, "UserError")
    assert answer.returncode == 2
    _, begins, *others = answer.stderr.splitlines()
    assert begins.startswith("training steps 1 to ")
    assert others == [f"error on rank {rank}: no such luck"]


@pytest.mark.slow
def test_a_defect_of_one_rank_keeps_its_traceback(fail: Callable) -> None:
    answer = fail(1, "ValueError")
    assert answer.returncode != 0
    assert "ValueError: no such luck" in answer.stderr


def test_a_rank_that_does_something_else_is_named_and_the_run_may_be_tried_again(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    machines = ["here"] * 2
    met = meeting.Meeting("", HashStore(), 0, machines, machines, per_machine=2, host="here", port=0, limit=6.0)
    monkeypatch.setattr(meeting, "current", met)
    monkeypatch.setattr(failures, "VERDICT", 0)
    with pytest.raises(LostError), failures.told_once():
        raise RuntimeError("[gloo/transport/tcp/unbound_buffer.cc:81] Timed out waiting 9000ms for recv operation")
    told = "error: rank 1 did something else for 0.1 minutes (--parallel.timeout_minutes) while others waited for it"
    assert capfd.readouterr().err.startswith(told)


def test_canary_lightning_exits_after_ctrl_c(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    before, trainer = signal.getsignal(signal.SIGINT), MagicMock(loggers=[], callbacks=[])
    trainer.strategy.launcher = None
    try:
        call._call_and_handle_interrupt(trainer, interrupted)
    except SystemExit as end:
        assert isinstance(end.__context__, KeyboardInterrupt)
    except KeyboardInterrupt:
        mended("what failures.told_once does with a SystemExit")
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.slow
def test_a_stage_that_ignores_the_one_before_ends_both_in_words(command: Callable, tmp_path: Path) -> None:
    """Which would wait for its gradients."""
    script = tmp_path / "train.py"
    script.write_text(IGNORES.format(package=PACKAGE, network=TINY.network))
    split = {"devices": 2, "pipeline": 2}
    settings = change(TINY, run_dir=str(tmp_path / "run"), parallel=split, model={"num_layers": 4})
    save_settings(settings, tmp_path)
    answer = command("pretrain", "--config", str(tmp_path / SETTINGS_FILE), script=script)
    assert answer.returncode == 2
    [line] = [line for line in answer.stderr.splitlines() if not line.startswith("training ")]
    assert line.startswith("error on rank 1: model/network.py: a stage that is not the first must go on from")
