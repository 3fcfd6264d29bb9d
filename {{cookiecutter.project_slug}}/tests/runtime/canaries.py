"""What the cellar's canaries share: each runs without one workaround and expects today's failure of the libraries.

A red canary is good news or a change to look at. If its message says "upstream mended this", delete what it names.
"""

import contextlib
import importlib.util
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any

import pytest
import torch
from conftest import ENVIRONMENT, PACKAGE, TINY, change, free_port

from {{cookiecutter.__package_name}}.runtime import cpu, lone_rank
from {{cookiecutter.__package_name}}.training.run_settings import save_settings

no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="with a GPU another thing goes wrong")
NEEDS_CUDA = r"NVIDIA|CUDA"  # torch's words differ with the driver that is or is not there


@contextlib.contextmanager
def fails_without(
    workaround: str, error: type[Exception] | tuple[type[Exception], ...], message: str
) -> Iterator[None]:
    """Expect today's failure."""
    try:
        yield
    except error as failure:
        assert re.search(message, str(failure)), f"another failure than the one in README.md: {failure!r}"
    else:
        mended(workaround)


def mended(workaround: str) -> None:
    pytest.fail(f"upstream mended this: delete {workaround}, its row in runtime/README.md and this test")


def fresh(name: str, retargeted: bool = False) -> ModuleType:
    """Execute a module once more, as upstream wrote it (or that, retargeted); what is imported stays as it is."""
    spec = find_spec(name)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if retargeted:
        for function in cpu._functions(module):
            function.__code__ = cpu._retarget(function.__code__)
    return module


def train_shortly(folder: Path, resumed: Path | None = None, **changes: Any) -> Path:
    """Train two steps, or what `training` says, in a new run below `folder`; or go on with a copy of a run."""
    from {{cookiecutter.__package_name}}.training.train import train

    run = folder / f"run{len(list(folder.iterdir()))}"
    if resumed:
        shutil.copytree(resumed, run)
    steps = {"max_steps": 4 if resumed else 2, "val_check_interval": 2, "warmup_steps": 1}
    training = {**steps, **changes.pop("training", {})}
    train(change(TINY, run_dir=str(run), resume=bool(resumed), training=training, **changes))
    return run


def without(name: str, cls: Any, patch: pytest.MonkeyPatch) -> None:
    """Give a class upstream's method in the place of its own."""
    patch.setattr(cls, name, getattr(cls.__mro__[1], name))


def with_argument(cls: Any, name: str, value: object, patch: pytest.MonkeyPatch) -> None:
    """Change one argument with which a class of upstream's is built."""
    build = cls.__init__
    patch.setattr(cls, "__init__", lambda self, *args, **kwargs: build(self, *args, **{**kwargs, name: value}))


def without_lone_rank(patch: pytest.MonkeyPatch) -> None:
    """Use Megatron's own synchronisation, also in a process where an earlier run has replaced it."""
    from megatron.core.distributed.param_and_grad_buffer import _ParamAndGradBucketGroup as BucketGroup

    for name in ("start_grad_sync", "start_param_sync"):
        method = getattr(BucketGroup, name)
        patch.setattr(BucketGroup, name, getattr(method, "unless_alone", method))
    patch.setattr(lone_rank, "skip_collectives_with_oneself", lambda: None)


PROGRAM = """
import json, logging, pathlib, sys, warnings
import torch
members = set(dir(torch.cpu))
spoke, call = set(), logging.Logger.callHandlers
logging.Logger.callHandlers = lambda log, record: (spoke.add(log.name), call(log, record))[1]
warnings.simplefilter("ignore")

from PACKAGE.runtime import cpu
from PACKAGE.training import run_settings, train

settings = run_settings.load_settings(pathlib.Path(sys.argv[1]))

def failure():
    try:
        train.train(settings)
    except Exception as error:
        return f"{type(error).__name__}: {error}"

use_cpu, cpu.use_cpu = cpu.use_cpu, lambda: None
without_cpu = failure()
cpu.use_cpu = use_cpu
seen = {"without use_cpu": without_cpu, "with it": failure()}
seen |= {"added": sorted(set(dir(torch.cpu)) - members), "spoke": sorted(spoke)}
seen |= {"generation": "transformers.generation.utils" in sys.modules}
from transformers.generation import GenerationConfig
seen |= {"real": "transformers.generation.configuration_utils" == GenerationConfig.__module__}
print(json.dumps(seen))
"""


@cache
def seen_in_a_fresh_process() -> dict[str, Any]:
    """What is seen in a new process, of which torchrun's variables say that it is the only rank."""
    torchrun = {"RANK": "0", "LOCAL_RANK": "0", "GROUP_RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1"}
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port(), "TORCHELASTIC_RUN_ID": "test"}
    environment = {**ENVIRONMENT, **torchrun, **address}
    steps = {"max_steps": 2, "warmup_steps": 1, "val_check_interval": 2}
    with TemporaryDirectory() as folder:
        save_settings(change(TINY, run_dir=f"{folder}/run", training=steps), Path(folder))
        words = [sys.executable, "-c", PROGRAM.replace("PACKAGE", PACKAGE), folder]
        done = subprocess.run(words, capture_output=True, text=True, timeout=900, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    seen: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return seen
