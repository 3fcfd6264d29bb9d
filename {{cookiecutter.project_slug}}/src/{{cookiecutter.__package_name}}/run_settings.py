"""The settings of a run that exists: saved in its folder, read again, held against those of a resume.

A file of its own because `settings.py` knows values only, and no files. No torch here either.
"""

from __future__ import annotations

from dataclasses import asdict, fields, is_dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any, get_type_hints

import yaml

from .errors import UserError
from .files import write_whole
from .names import SETTINGS_FILE
from .settings import DataSettings, ModelSettings, Settings

# What a checkpoint brings along (weights, schedule, optimizer groups), or what its position counts in (the data).
_KEPT = (
    "network",
    "seed",
    *(f"model.{item.name}" for item in fields(ModelSettings)),
    *(f"data.{item.name}" for item in fields(DataSettings) if item.name not in ("root", "download", "num_workers")),
    *(f"training.{name}" for name in ("lr", "min_lr", "warmup_steps", "weight_decay", "precision")),
)


def save_settings(settings: Settings, run: Path) -> None:
    """Write the resolved settings into a run folder, as YAML that `--config` reads."""
    values = asdict(settings)
    values["new_heads"] = list(settings.new_heads)  # YAML has no tuples
    with write_whole(run / SETTINGS_FILE) as file:
        yaml.safe_dump(values, file, sort_keys=False)


def load_settings(run: Path) -> Settings:
    """Read the settings of a run folder.

    Raises:
        UserError: the folder holds no run, or its settings are not those of this version.
    """
    path = run / SETTINGS_FILE
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
        settings: Settings = _from_dict(Settings, values)
    except FileNotFoundError:
        raise UserError(f"{run} holds no run ({SETTINGS_FILE} is missing): give the folder of a training") from None
    except (TypeError, ValueError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path} cannot be read ({reason}): mend it, or train again") from error
    return settings


def _from_dict(cls: type, values: dict[str, Any]) -> Any:
    """Build a settings dataclass from plain values; TypeError on a name that it does not have."""
    types = get_type_hints(cls)
    if not isinstance(values, dict):
        raise TypeError(f"expected settings by name, got {values!r}")
    if unknown := set(values) - {item.name for item in fields(cls)}:
        raise TypeError(f"there is no setting {', '.join(sorted(unknown))}")
    nested = {item.name for item in fields(cls) if item.name in values and is_dataclass(types[item.name])}
    arguments = {name: _from_dict(types[name], value) if name in nested else value for name, value in values.items()}
    if isinstance(arguments.get("new_heads"), list):
        arguments["new_heads"] = tuple(arguments["new_heads"])
    return cls(**arguments)


def check_same_run(settings: Settings, saved: Settings) -> None:
    """Raise a UserError if resuming with these settings would be another run, or would silently keep the old value."""
    values = {name: (attrgetter(name)(settings), attrgetter(name)(saved)) for name in _KEPT}
    others = [f"--{name} {old}, not {value}" for name, (value, old) in values.items() if value != old]
    if others:
        raise UserError(
            f"the run in {settings.run_dir} has {'; '.join(others)}, and keeps what it has: resume with that, or "
            "choose another --run_dir"
        )
