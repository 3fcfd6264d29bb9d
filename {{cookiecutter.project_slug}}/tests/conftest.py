"""What the tests share: tiny runs, Megatron without a trainer, commands in processes of their own. All on the CPU."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from multiprocessing import parent_process
from pathlib import Path
from random import SystemRandom
from typing import Any

import numpy as np
import pytest
from model.tiny import DATA, MODEL

from {{cookiecutter.__package_name}}.__main__ import main
from {{cookiecutter.__package_name}}.cli import PROG
from {{cookiecutter.__package_name}}.contracts import names
from {{cookiecutter.__package_name}}.contracts.names import METRICS_FILE
from {{cookiecutter.__package_name}}.contracts.reading import read_metrics
from {{cookiecutter.__package_name}}.contracts.settings import TrainingSettings
from {{cookiecutter.__package_name}}.model.settings import FINETUNE, Settings

PACKAGE = "{{cookiecutter.__package_name}}"
# What a launcher, a scheduler or a shell may have left in the environment, and no test is about: a rank above 0 says
# nothing, a narrow terminal breaks lines, and a warning of a command's own is none of its answer.
LEFT = r"(LOCAL_|NODE_|GROUP_|ROLE_)?(RANK|WORLD_SIZE)|MASTER_(ADDR|PORT)"
LEFT += "|(SLURM|TORCHELASTIC|OMPI|PMI|MPI|JSONARGPARSE)_.*"
SET = "OMP_NUM_THREADS|COLUMNS|FORCE_COLOR|PYTHONWARNINGS"
for name in [name for name in os.environ if re.fullmatch(rf"{LEFT}|{SET}", name)]:
    if parent_process() is None:  # else this is a rank, which was told so
        del os.environ[name]
# torch, which nothing has imported yet, lets threads sleep while they wait for each other. Else they turn in circles,
# and take the cores from those that they wait for: on two cores with four busy processes, 324 s for 64 s.
os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
ENVIRONMENT = dict(os.environ)  # as it was before a trainer in this process added LOCAL_RANK and the like

TINY = Settings(
    accelerator="cpu",
    data=DATA[Settings().network],
    model=MODEL,
    training=TrainingSettings(
        max_steps=20, warmup_steps=2, global_batch_size=32, val_check_interval=10, log_every_n_steps=1
    ),
)


def free_port() -> str:
    """Return a port that is free, and not one of those that connections are given meanwhile."""
    above = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    while True:
        port = SystemRandom().randrange(5_000, max(above, 10_000))
        with socket.socket() as server, suppress(OSError):
            server.bind(("", port))
            return str(port)


@dataclass
class Trained:
    """A training in this process, as it was seen from outside."""

    settings: Settings
    start: dict[str, Any] = field(default_factory=dict)
    """weights by name when the first step began"""
    end: dict[str, Any] = field(default_factory=dict)
    """weights by name after the last step"""
    main_dtypes: set[Any] = field(default_factory=set)
    """dtypes of the weights that the optimizer steps"""
    result: Any = None

    @property
    def folder(self) -> Path:
        return Path(self.settings.run_dir)

    @property
    def rows(self) -> list[dict[str, str]]:
        return read_rows(self.folder)


def read_rows(run: Path) -> list[dict[str, str]]:
    """Return the rows of a run's metrics.csv, without what the clock and the machine say: that is never the same."""
    _, rows = read_metrics(run / METRICS_FILE)
    return [{name: value for name, value in row.items() if not names.is_measured(name)} for row in rows]


def change(settings: Settings, **changes: Any) -> Settings:
    """Return other settings; those of a group are a dict, as training={"max_steps": 3}. A network brings its data."""
    if changes.get("network", settings.network) != settings.network and settings.data == DATA[settings.network]:
        settings = replace(settings, data=DATA[changes["network"]])
    new = {
        name: replace(getattr(settings, name), **value) if isinstance(value, dict) else value
        for name, value in changes.items()
    }
    return replace(settings, **new)


def needs_sequence_for(settings: Settings) -> None:
    """Skip a test of sequence parallel if so many ranks cannot share your sequence; all other layouts must work."""
    length = settings.sequence_length
    if settings.parallel.sequence and length % settings.parallel.tensor:
        pytest.skip(f"{settings.parallel.tensor} ranks cannot share a sequence of {length}")


@pytest.fixture
def tiny(tmp_path: Path) -> Callable[..., Settings]:
    """Make settings of a run of a few seconds, in a folder of this test."""
    return lambda **changes: change(TINY, **{"run_dir": str(tmp_path / "run"), **changes})


def run(*argv: Any) -> Any:
    """Return the exit code of a command in this process."""
    try:
        return main([str(word) for word in argv])
    except SystemExit as end:
        return end.code


@pytest.fixture
def refused(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Callable[..., str]:
    """Run a command that must be refused before it works, and return the one line that it says."""

    def check(*argv: Any) -> str:
        before = sorted(tmp_path.rglob("*"))
        assert run(*argv) == 2
        out, err = capfd.readouterr()
        assert out == ""
        [line] = err.splitlines()
        assert line.startswith(f"{PROG}: error: ")
        assert sorted(tmp_path.rglob("*")) == before, "something was left behind"
        return line

    return check


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Settings]:
    """Catch the settings that a command hands to the rooms that work."""
    from {{cookiecutter.__package_name}}.results import evaluate
    from {{cookiecutter.__package_name}}.training import train

    caught = []

    def train_nothing(settings: Settings) -> Any:
        caught.append(settings)
        return train.TrainingResult(Path(settings.run_dir), 0, {}, 0.0, has_stopped=False)

    def predict_nothing(settings: Settings) -> list[Path]:
        caught.append(settings)
        return []

    monkeypatch.setattr(train, "train", train_nothing)
    monkeypatch.setattr(evaluate, "predict", predict_nothing)
    return caught


@pytest.fixture
def run_dir(tmp_path: Path) -> list[str]:
    """Words that let a run lie in the folder of this test."""
    return ["--run_dir", str(tmp_path / "run")]


@pytest.fixture(scope="session")
def train() -> Callable[[Settings], Trained]:
    """Train in this process, and keep the weights at start and end."""
    return _train


def _train(settings: Settings) -> Trained:
    from {{cookiecutter.__package_name}}.training import train

    trained = Trained(settings)

    class Watcher(train.RunRecorder):
        def on_train_start(self, trainer: Any, pl_module: Any) -> None:
            super().on_train_start(trainer, pl_module)
            trained.start = _weights(pl_module)

        def on_train_end(self, trainer: Any, pl_module: Any) -> None:
            super().on_train_end(trainer, pl_module)
            trained.end = _weights(pl_module)
            groups = trainer.strategy.optimizers[0].param_groups
            trained.main_dtypes = {weight.dtype for group in groups for weight in group["params"]}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "RunRecorder", Watcher)
        trained.result = train.train(settings)
    return trained


def _weights(module: Any) -> dict[str, Any]:
    while hasattr(module, "module"):  # Lightning's module, and Megatron's data parallel wrapper
        module = module.module
    return {name: weight.detach().clone() for name, weight in module.named_parameters()}


@pytest.fixture(scope="session")
def pretrained(train: Callable, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Twenty steps of the network that `pretrain` trains. Read only."""
    return train(change(TINY, run_dir=str(tmp_path_factory.mktemp("pretrained") / "run")))


@pytest.fixture(scope="session")
def finetuned(train: Callable, pretrained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Twenty steps of the network that `finetune` trains, on that one's trunk. Read only."""
    run = str(tmp_path_factory.mktemp("finetuned") / "run")
    start = {"from_run": pretrained.settings.run_dir, "network": FINETUNE.network, "new_heads": FINETUNE.new_heads}
    return train(change(TINY, run_dir=run, **start))


@pytest.fixture
def folder(pretrained: Trained, tmp_path: Path) -> Path:
    """A copy of the run of `pretrained`."""
    return Path(shutil.copytree(pretrained.folder, tmp_path / "run"))


MOST_ITEMS = 2 * TINY.training.global_batch_size + 7  # so that the last batch is not full


@pytest.fixture
def few_items(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave only the first items of every test set."""
    from {{cookiecutter.__package_name}}.contracts.view import Section
    from {{cookiecutter.__package_name}}.model.config import NETWORKS

    def shortened(read: Callable) -> Any:
        def read_first(settings: Settings) -> Section:
            items = read(settings)
            return Section(items, 0, min(MOST_ITEMS, len(items)))

        return staticmethod(read_first)

    for config in NETWORKS.values():
        monkeypatch.setattr(config, "read_test", shortened(config.read_test))
        monkeypatch.setattr(config, "read_predict", shortened(config.read_predict))


@pytest.fixture
def pair(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Give the network of `pretrained` other parts: keep=, scores=, predictions=, what it reads, or a loss."""
    from {{cookiecutter.__package_name}}.model.config import NETWORKS

    config = NETWORKS[TINY.network]
    for name, part in {"scores": staticmethod(lambda kept: {}), "useful": None}.items():  # which want others than those
        monkeypatch.setattr(config, name, part)
    monkeypatch.setattr(Settings, "to_predict", lambda settings: settings)

    def change(**parts: Any) -> None:
        for name, part in parts.items():
            monkeypatch.setattr(config, name, part if isinstance(part, type) else staticmethod(part))

    return change


def arrays_of(path: Path) -> dict[str, Any]:
    """Return the arrays of a file."""
    with np.load(path) as arrays:
        return dict(arrays)


@pytest.fixture
def megatron() -> Iterator[None]:
    """Megatron's groups and random numbers for one process, without a trainer."""
    import torch
    from megatron.core import parallel_state, tensor_parallel

    from {{cookiecutter.__package_name}}.runtime.backend import prepared

    with prepared("cpu"):
        torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
        parallel_state.initialize_model_parallel()
        tensor_parallel.model_parallel_cuda_manual_seed(1)
        yield


@pytest.fixture(scope="session")
def command() -> Callable[..., subprocess.CompletedProcess]:
    """Run `python -m <this package> ...`, or a script; all processes that it starts are gone afterwards."""
    return _command


def _command(*arguments: str, script: Path | None = None, limit: float = 900) -> subprocess.CompletedProcess:
    words = [sys.executable, *(["-m", PACKAGE] if script is None else [str(script)]), *arguments]
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT, start_new_session=True
    ) as process:
        try:
            out, err = process.communicate(timeout=limit)
        finally:
            with suppress(ProcessLookupError):  # it has ended, and so have its ranks
                os.killpg(process.pid, signal.SIGKILL)
    return subprocess.CompletedProcess(words, process.returncode, out, err)
