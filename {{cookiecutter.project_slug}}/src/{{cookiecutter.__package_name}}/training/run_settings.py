"""The settings of a run that exists: saved in its folder, read again, held against those of a resume.

A file of its own because `contracts/settings.py` knows values only, and no files. No torch here either.
"""

from __future__ import annotations

import shlex
import sys
from contextlib import suppress
from dataclasses import asdict, fields, is_dataclass
from operator import attrgetter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, get_args, get_origin, get_type_hints

import yaml

from ..contracts.errors import UserError
from ..contracts.files import write_whole
from ..contracts.names import CHECKPOINTS_FOLDER, SETTINGS_FILE
from ..contracts.reading import first_comment, read_whole
from ..contracts.settings import RunSettings
from ..model.settings import DataSettings, ModelSettings, Settings

_GENERAL = {item.name for item in fields(RunSettings)}
# What a checkpoint brings along (weights and where they came from, schedule, optimizer groups), or what its position
# counts in (the data).
_KEPT = (
    "network",
    "from_run",
    "new_heads",
    "redraw_heads",
    "seed",
    *(item.name for item in fields(Settings) if item.name not in _GENERAL | Settings.ONLY_PREDICT.keys()),
    *(f"model.{item.name}" for item in fields(ModelSettings)),
    *(f"data.{item.name}" for item in fields(DataSettings) if item.name not in DataSettings.NOT_KEPT),
    *(f"training.{name}" for name in ("lr", "min_lr", "head_lr_factor", "warmup_steps", "weight_decay", "precision")),
)


def save_settings(settings: RunSettings, run: Path) -> None:
    """Write the resolved settings into a run folder, as YAML that `--config` reads, under the command that began it."""
    values = {name: value for name, value in asdict(settings).items() if name not in settings.ONLY_PREDICT}
    command = first_comment(read_whole(run / SETTINGS_FILE)) if is_run(str(run)) else _command()
    with write_whole(run / SETTINGS_FILE) as file:
        if command:
            file.write(f"# {command}\n")
        yaml.safe_dump(values, file, sort_keys=False)


def _command() -> str:
    """Return the command line of this process in a line, if it is one of this program, installed or run with -m."""
    package, program = Settings.__module__.partition(".")[0], Path(sys.argv[0])
    name = package.replace("_", "-")
    words = shlex.join([name, *sys.argv[1:]])
    is_ours = program.name == name or program.parts[-2:] == (package, "__main__.py")
    return words if is_ours and words.isprintable() else ""


def load_settings(run: Path) -> Settings:
    """Read the settings of a run folder.

    Raises:
        UserError: the folder holds no run, or its settings are not those of this version.
    """
    path = run / SETTINGS_FILE
    try:
        values = yaml.safe_load(read_whole(path))
        settings: Settings = _from_dict(Settings, values)
    except FileNotFoundError:
        missing = f"{SETTINGS_FILE} is missing" if run.exists() else "there is no such folder"
        raise UserError(f"{run} holds no run ({missing}): give the folder of a training") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): give the folder of a training") from None
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
    return cls(
        **{
            name: _from_dict(types[name], value) if name in nested else _of_type(types[name], value)
            for name, value in values.items()
        }
    )


def _of_type(hint: Any, value: Any) -> Any:
    """Return a value as its setting has it: YAML makes lists of tuples, and takes 1e-3 for a word."""
    kinds = {get_origin(kind) or kind for kind in (hint, *get_args(hint))}
    if tuple in kinds and isinstance(value, list):
        return tuple(value)
    if float in kinds and isinstance(value, str):
        with suppress(ValueError):
            return float(value)
    return value


def is_run(folder: str) -> bool:
    """Tell whether a folder holds the settings of a run; UserError if nobody can look."""
    try:
        return Path(folder, SETTINGS_FILE).exists()
    except OSError as error:
        raise UserError(f"{folder} cannot be read ({error.strerror}): name another folder") from None


def is_resumed(settings: Settings) -> bool:
    """Tell whether there is a run to go on with, as is wished."""
    return settings.resume and is_run(settings.run_dir)


def holds_run(settings: Settings) -> bool:
    """Tell whether the run folder holds a run to go on with; if not, one can start there.

    Raises:
        UserError: the folder holds a run of other settings or one that is not to be resumed, or cannot be written.
    """
    run, has_settings = Path(settings.run_dir), is_run(settings.run_dir)
    has_checkpoints = (run / CHECKPOINTS_FOLDER).exists()
    if not has_settings:
        if has_checkpoints:
            raise UserError(f"{run} has checkpoints but no {SETTINGS_FILE}: restore it, or use another --run_dir")
        check_writable(run)
        return False
    if not settings.resume:
        state = "a run" if has_checkpoints else "a run without a checkpoint"
        raise UserError(f"{run} already holds {state}: go on with it (--resume true), or choose another --run_dir")
    check_same_run(settings, load_settings(run))
    return True


def check_command(command: str, saved: Settings) -> None:
    """Raise a UserError if `pretrain` or `finetune` is to go on with a run that the other one has begun."""
    starts_elsewhere = bool(saved.from_run or saved.foreign_start)
    other = "finetune" if starts_elsewhere and saved.new_heads else "pretrain" if not starts_elsewhere else command
    if other != command:
        mend = f"go on with `{other} --resume true`, or choose another --run_dir"
        raise UserError(f"{saved.run_dir} holds a run of {other}: {mend}")


def check_writable(folder: Path) -> None:
    """Raise a UserError if a folder cannot be made, or nothing in it."""
    existing = folder
    try:
        existing = next(path for path in (folder, *folder.parents) if path.exists())
        with TemporaryDirectory(dir=existing):
            pass
    except OSError as error:
        raise UserError(f"{folder} cannot be written: {existing}: {error.strerror}") from None


def check_same_run(settings: Settings, saved: Settings) -> None:
    """Raise a UserError if resuming with these settings would be another run, or would silently keep the old value."""
    if others := others_than(kept(saved), settings):
        raise UserError(
            f"the run in {settings.run_dir} has {others}, and keeps what it has: resume with that, or choose another "
            "--run_dir"
        )


def kept(settings: RunSettings) -> dict[str, Any]:
    """Return the settings that make a run what it is, and that a resumed one keeps, by their dotted names."""
    return {name: attrgetter(name)(settings) for name in _KEPT}


def others_than(before: dict[str, Any], settings: RunSettings) -> str:
    """Say which of the kept settings were others before, of those that both versions of the project have."""
    pairs = [(name, before[name], value) for name, value in kept(settings).items() if name in before]
    return "; ".join(f"--{name} {old}, not {value}" for name, old, value in pairs if value != old)


def other_heads(settings: Settings, start: Settings) -> bool:
    """Tell whether the heads of a run answer something else than those of the run that it starts from.

    Raises:
        UserError: they do, and none of them is a new one.
    """
    others = [name for name in settings.model.OF_HEADS if getattr(settings.model, name) != getattr(start.model, name)]
    if others and settings.network == start.network and not settings.new_heads:
        raise UserError(
            f"--model.{others[0]} is not that of {settings.from_run}, whose head is kept: leave it out, or name what "
            "starts anew with --new_heads"
        )
    return bool(others)


def check_same_sizes(settings: Settings, saved: Settings) -> None:
    """Raise a UserError if a trained network would be built in other sizes."""
    if settings.model != saved.model:
        raise UserError(f"the network in {settings.run_dir} has the sizes that it was trained in: leave out --model")
