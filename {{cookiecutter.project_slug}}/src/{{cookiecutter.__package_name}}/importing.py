"""Imports what a command needs, and says in words why that may fail. Standard library only, until it does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

from .contracts.errors import UserError, imports_of_model
from .model.settings import Settings
from .runtime import launch, noise
from .saying import PROG, complain

is_command = False
"""Whether this process runs one command of the command line and nothing else."""


def quiet_unless(verbose: bool) -> None:
    """Keep the libraries from talking; call it before they are imported."""
    if not verbose:
        noise.quiet()


def check_loggers(settings: Settings) -> None:
    """Raise a UserError if what the figures shall go to is not installed."""
    mends = {"wandb": "pip install wandb", "mlflow": f"pip install '{PROG}[mlflow]'"}
    for name, mend in mends.items():
        if name in settings.logger_names and find_spec(name) is None:
            raise UserError(f"--loggers {settings.loggers} needs {name}, which is not installed: {mend}")


def import_room(room: str, settings: Settings) -> ModuleType:
    """Import what trains or evaluates, in all ranks at once."""
    quiet_unless(settings.verbose)
    launch.check_gpus(settings.accelerator, settings.parallel.devices)
    launch.start_ranks(settings.parallel.devices, settings.parallel.num_nodes)
    with explained():
        return import_module(f".{room}", __package__)


def import_planning(settings: Settings) -> ModuleType:
    """Import what plans, in this process alone, and without what only training needs."""
    quiet_unless(settings.verbose)
    with explained():
        if is_command:  # else other things are done here too, which may need all of it
            from .runtime.lean import use_lean_imports

            use_lean_imports()
        from .planning import words

        return words


@contextmanager
def explained() -> Iterator[None]:
    """Say which file of `model/` is wrong if an import fails, or else which versions do not fit.

    Raises:
        UserError: it fails, and one of both is so.
    """
    try:
        with imports_of_model():
            yield
    except (ImportError, AttributeError) as error:
        from .doctor import misfits

        for misfit in (problems := misfits()):
            complain(misfit)
        if not problems:
            raise
        raise UserError(f"that may be why an import failed: {error}") from error
