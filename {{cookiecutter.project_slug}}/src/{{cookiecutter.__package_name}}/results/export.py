"""A run's network for the world outside: its weights, what describes them, and plain PyTorch that loads both.

Nobody needs Megatron, NeMo, Lightning or this package to use an export. Its `load.py` is `model/plain.py`, which says
once more in plain PyTorch what `model/network.py` says: a change of one is a change of the other, as each export checks
on a few test items. What it must give is `load(folder)`: a network called with what `network.py` reads of a batch, by
name, `network(data=...)`, which returns the same outputs.
"""

from __future__ import annotations

import json
import math
import shutil
from collections import UserDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from ..contracts import names
from ..contracts.errors import UserError, imports_of_model
from ..contracts.files import check_only, write_whole_folder
from ..contracts.item import Key
from ..contracts.settings import ParallelSettings
from ..contracts.stage import PipelineStage
from ..model.settings import Settings
from ..runtime.backend import prepared
from ..runtime.checkpoint import score_of
from ..runtime.failures import tell
from ..runtime.seal import step_of
from ..training.run_settings import check_writable
from ..training.train import DTYPES, best_of, config_of, make_data, make_module, make_trainer

MODEL_FILE, PLAIN_FILE = "model.json", "load.py"

Tensors = dict[str, Tensor]

TOLERANCES = {"fp32": 1e-4, "bf16": 0.1}
"""How far the outputs of both may differ, relative to the largest if that is above 1. Seen: 1.1e-6 and 0.034, since
Megatron's layers round before they add the bias and torch's only after it."""


def export_run(settings: Settings, output: Path | None = None) -> Path:
    """Write the network of a run's best checkpoint: one process on the CPU does, whatever layout trained it.

    The weights are written by the config's `export`; model.json says what rebuilds the network, and what goes in and
    comes out; load.py does so, and is left out, with a word, if it computes anything else than the network, or if the
    run's data are not here to see that.

    Args:
        settings: the run; or a foreign start, of which there is none.
        output: folder of these files, written whole or not at all; an older export is replaced. Default: in the run.

    Returns:
        The folder.

    Raises:
        UserError: the run has no checkpoint or a damaged one, or the folder holds something else.
    """
    run = Path(settings.run_dir)
    folder = output or run / names.EXPORT_FOLDER
    _check_room(folder, config_of(settings).export_files)
    checkpoint = best_of(settings)
    with _network(settings, checkpoint) as network:
        weights = {name: weight for name, weight in network.state_dict().items() if not name.endswith("_extra_state")}
        inputs, outputs, keys, untried = _try(network, settings)
    with write_whole_folder(folder.resolve()) as new:
        description = _describe(settings, checkpoint, inputs, outputs, keys)
        if note := network.config.export(new, weights, settings, description):
            tell(note)
        (new / MODEL_FILE).write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
        if problem := untried or _misfit(new, inputs, outputs, TOLERANCES[settings.training.precision]):
            tell(f"no {PLAIN_FILE}: {problem}")
        else:
            shutil.copyfile(str(_plain().__file__), new / PLAIN_FILE)
    return folder


class _Batch(UserDict[str, Tensor]):
    """A batch that knows which of its keys have been read."""

    def __init__(self, batch: Tensors) -> None:
        super().__init__(batch)
        self.read: set[str] = set()

    def __getitem__(self, key: str) -> Tensor:
        self.read.add(key)
        return super().__getitem__(key)


def _try(network: nn.Module, settings: Settings) -> tuple[Tensors, Tensors, dict[str, Key], str | None]:
    """Compute a few test items; return what the network read of them, its outputs, what items hold, and what failed."""
    try:
        loader, keys = _items(settings)
        batch = _Batch(next(iter(DataLoader(loader.dataset, batch_size=4, collate_fn=loader.collate_fn))))
        with torch.no_grad():
            given = network.forward(batch)  # past the hook of PipelineStage, which reads `idx`
        outputs = {name: value for name, value in given.items() if not name.startswith("_")}
    except Exception as error:  # the data may be on another machine, and the weights are wanted all the same
        problem = f"the network cannot be tried on test items ({_in_words(error)})"
        return {}, {}, {}, f"{problem}; nor does {MODEL_FILE} say what goes in and comes out"
    return {key: value for key, value in batch.data.items() if key in batch.read}, outputs, keys, None


def _items(settings: Settings) -> tuple[Any, dict[str, Key]]:
    """Return the loader of the single items to test with, or to validate with if there are none; and their keys."""
    data = make_data(settings)
    try:
        data.setup("test")
        return data.test_dataloader(), data.keys
    except UserError as error:
        try:
            data.setup("validate")
        except UserError:
            raise error from None
        return data.val_dataloader(), data.keys


def _misfit(folder: Path, inputs: Tensors, outputs: Tensors, tolerance: float) -> str | None:
    """Say how the example, which loads an export, computes something else than the network did; None if it does not."""
    try:
        with torch.no_grad():
            difference = _difference(_plain().load(folder)(**inputs), outputs, tolerance)
    except UserError as error:
        return str(error)
    except Exception as error:  # it may hold anything
        difference = _in_words(error)
    return difference and f"model/plain.py is not the network of model/network.py ({difference}); change it likewise"


def _plain() -> ModuleType:
    """Import the example only now: the weights are wanted even if it is broken."""
    with imports_of_model():
        return import_module("..model.plain", __package__)


def _in_words(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


def _difference(found: Tensors, outputs: Tensors, tolerance: float) -> str | None:
    """Say how outputs differ from those of the network; None if they do not."""
    shapes = [{name: tuple(value.shape) for name, value in each.items()} for each in (found, outputs)]
    if shapes[0] != shapes[1]:
        return f"it gives {shapes[0]}, not {shapes[1]}"
    for name, value in outputs.items():
        ours, theirs = value.double(), found[name].double()
        difference = float((theirs - ours).abs().max() / ours.abs().max().clamp(min=1))
        if not difference <= tolerance:
            return f"its {name} differs by {difference:.1e}"
    return None


def _check_room(folder: Path, files: tuple[str, ...]) -> None:
    """Raise a UserError unless the folder can be written: it is new, empty, or an older export."""
    if folder.resolve() == Path.cwd():
        raise UserError(f"--output {folder} is where you are, and would be replaced: name another folder")
    check_writable(folder)
    ours = {*files, MODEL_FILE, PLAIN_FILE, "__pycache__"}
    check_only(folder, ours, "export", "name a new or an empty folder, --output DIR")


@contextmanager
def _network(settings: Settings, checkpoint: Path | None) -> Iterator[PipelineStage]:
    """Build the whole network in this process, in evaluation mode, with the weights of a checkpoint or foreign ones."""
    alone = replace(settings, accelerator="cpu", parallel=ParallelSettings())
    with prepared(alone.accelerator, alone.parallel) as accelerator:
        module = make_module(alone, checkpoint, same_network=True)
        strategy = make_trainer(alone, accelerator).strategy
        strategy.connect(module)  # gives the config its dtype
        strategy.setup_environment()
        module.configure_model()
        yield module.module.eval()
        del module, strategy  # nothing of the run stays


def _describe(
    settings: Settings, checkpoint: Path | None, inputs: Tensors, outputs: Tensors, keys: dict[str, Key]
) -> dict[str, Any]:
    """Return what MODEL_FILE holds."""
    score = score_of(checkpoint) if checkpoint else math.inf
    packages = ("torch", "safetensors", "megatron-core", "nemo-toolkit")
    return {
        "network": settings.network,
        "sizes": asdict(settings.model),
        "inputs": {
            name: {
                "shape": list(value.shape[1:]),
                "dtype": _name_of(value.dtype),
                "range": keys[name].about or None,
            }
            for name, value in inputs.items()
        }
        or None,
        "outputs": {name: list(value.shape[1:]) for name, value in outputs.items()} or None,
        "dtype": _name_of(DTYPES[settings.training.precision]),
        "step": step_of(checkpoint) if checkpoint else None,
        names.VAL_LOSS: score if math.isfinite(score) else None,
        "versions": {package: version(package) for package in packages},
    }


def _name_of(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
