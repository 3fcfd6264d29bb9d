"""The network of a run without a trainer around it: what tests compare results with."""

from pathlib import Path
from typing import Any

from {{cookiecutter.__package_name}}.contracts.names import CHECKPOINTS_FOLDER
from {{cookiecutter.__package_name}}.model.settings import Settings
from {{cookiecutter.__package_name}}.runtime.checkpoint import best_checkpoint
from {{cookiecutter.__package_name}}.training.train import DTYPES, make_module


def best_network(settings: Settings) -> Any:
    """Build the whole network of a run in this process, with its best weights; needs the fixture `megatron`."""
    best = best_checkpoint(Path(settings.run_dir) / CHECKPOINTS_FOLDER)
    config = make_module(settings, best, same_network=True).config
    config.params_dtype = DTYPES[settings.training.precision]
    return config.configure_model().eval()
