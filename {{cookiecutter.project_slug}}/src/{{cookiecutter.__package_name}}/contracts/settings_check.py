"""Holds `model/settings.py` against what `settings.py` says of it, before anything is made of its values.

Settings are saved as YAML and read back, on the command line too: they must be what YAML can hold.
"""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, ClassVar, Literal, Union, get_args, get_origin, get_type_hints

from .errors import UserError, need
from .settings import DataSettings, ModelSettings, RunSettings

FILE = "model/settings.py"
BASES = {"DataSettings": DataSettings, "ModelSettings": ModelSettings, "Settings": RunSettings}
TAKEN = ("model", "data", "seed")
PLAIN = (bool, int, float, str, NoneType)
RULE = "settings are numbers, texts, true or false, lists and tuples of these"


def check_settings(model: Any) -> None:
    """Raise a UserError for what the module `model/settings.py` lacks, or has in a form that cannot be saved."""
    need(model, *BASES, "FINETUNE", "FROM_START", "LAYOUTS")
    for name, base in BASES.items():
        if not issubclass(getattr(model, name), base):
            raise UserError(f"{FILE}: {name} must be a subclass of {base.__name__} in contracts/settings.py")
    _check_class(model.Settings)
    _check_values(model.Settings(), model.Settings, "Settings")
    for name in ("FINETUNE", "LAYOUTS"):
        _check_values(getattr(model, name), model.Settings, name)
    _check_no_text(model.FROM_START, "FROM_START")
    if unknown := set(model.FROM_START).difference(TAKEN):
        raise UserError(f"{FILE}: FROM_START names {', '.join(sorted(unknown))}; there are {', '.join(TAKEN)}")


def _check_class(cls: type) -> None:
    """Hold the fields of a group of settings, and of those in it, against what can be saved."""
    hints = _hints(cls)
    for name in (field.name for field in fields(cls)):
        where, hint = f"{cls.__name__}.{name}", hints[name]
        if name.isupper():
            raise UserError(f"{FILE}: {where} is no setting: annotate it as ClassVar, or write its name small")
        if _is_group(hint):
            _check_class(hint)
        elif not all(map(_is_savable, _options(hint))):
            raise UserError(f"{FILE}: {where} is a {hint.__name__ if isinstance(hint, type) else hint}: {RULE}")
    for name, hint in hints.items():
        if get_origin(hint) is ClassVar and _is_tuple(*get_args(hint)):
            _check_no_text(getattr(cls, name), f"{cls.__name__}.{name}")


def _hints(cls: type) -> dict[str, Any]:
    try:
        return get_type_hints(cls)
    except Exception as error:  # an annotation may say anything
        raise UserError(f"{FILE}: a field of {cls.__name__} is annotated wrongly ({error})") from error


def _check_values(found: Any, cls: type, where: str) -> None:
    """Hold the values of a group of settings, and of those in it, against their fields."""
    if not isinstance(found, cls):
        raise UserError(f"{FILE}: {where} is a {type(found).__name__}: write {cls.__name__}(...)")
    hints = _hints(cls)
    for name in (field.name for field in fields(cls)):
        inner, value, hint = f"{where}.{name}", getattr(found, name), hints[name]
        if _is_group(hint):
            _check_values(value, hint, inner)
            continue
        if _is_tuple(hint):
            _check_no_text(value, inner)
        parts = value if isinstance(value, list | tuple) else [value]
        if odd := [type(part).__name__ for part in parts if type(part) not in PLAIN]:
            raise UserError(f"{FILE}: {inner} holds a {odd[0]}: {RULE}")


def _check_no_text(value: Any, where: str) -> None:
    """Tell a text that stands for a tuple of one, and would be taken for a tuple of its letters."""
    if isinstance(value, str):
        raise UserError(f'{FILE}: {where} is a text, and must be a tuple: write ("{value}",)')


def _options(hint: Any) -> tuple[Any, ...]:
    """Return the types that an annotation allows."""
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)


def _is_group(hint: Any) -> bool:
    return isinstance(hint, type) and is_dataclass(hint)


def _is_tuple(hint: Any) -> bool:
    kinds = {get_origin(kind) or kind for kind in _options(hint)}
    return tuple in kinds and str not in kinds


def _is_savable(kind: Any) -> bool:
    """Tell whether YAML can hold what is of a type: something plain, or a list or tuple of that."""
    if (get_origin(kind) or kind) in (list, tuple):
        parts = [option for part in get_args(kind) for option in _options(part)]
        return all(part is ... or _is_plain(part) for part in parts)
    return _is_plain(kind)


def _is_plain(kind: Any) -> bool:
    is_choice = get_origin(kind) is Literal
    return kind in PLAIN or (is_choice and all(type(value) in PLAIN for value in get_args(kind)))
