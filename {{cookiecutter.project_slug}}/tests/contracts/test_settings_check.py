"""What `model/settings.py` says in a form that cannot be used or saved is one line, before any work."""

from dataclasses import asdict, dataclass, field, replace
from enum import Enum
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, Literal

import pytest
from conftest import change

from {{cookiecutter.__package_name}}.contracts import settings as base
from {{cookiecutter.__package_name}}.contracts.errors import UserError
from {{cookiecutter.__package_name}}.contracts.names import SETTINGS_FILE
from {{cookiecutter.__package_name}}.contracts.settings_check import RULE, check_settings
from {{cookiecutter.__package_name}}.model import settings as model
from {{cookiecutter.__package_name}}.model.settings import Settings
from {{cookiecutter.__package_name}}.parsing import parse
from {{cookiecutter.__package_name}}.training import run_settings
from {{cookiecutter.__package_name}}.training.run_settings import check_same_run, load_settings, save_settings


class Kind(Enum):
    ONE = 1


def with_field(hint: Any, value: Any = None, name: str = "mine", **more: Any) -> Any:
    """Return what a `model/settings.py` gives whose ModelSettings have one more field."""
    default = field(default_factory=lambda: value) if isinstance(value, list) else value
    names = {"__annotations__": {name: hint}, name: default, "sequence_length": 4, **more}
    sizes = dataclass(frozen=True)(type("ModelSettings", (base.ModelSettings,), names))
    names = {"__annotations__": {"model": sizes}, "model": field(default_factory=sizes)}
    own = dataclass(frozen=True)(type("Settings", (base.RunSettings,), names))
    return SimpleNamespace(
        __name__="a.model.settings",
        DataSettings=base.DataSettings,
        ModelSettings=sizes,
        Settings=own,
        FINETUNE=own(),
        FROM_START=("model",),
        LAYOUTS=own(),
    )


def refusal(module: Any) -> str:
    with pytest.raises(UserError) as caught:
        check_settings(module)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_your_settings_can_be_used_and_saved():
    check_settings(model)


@pytest.mark.parametrize(
    ("hint", "default"),
    [
        (str | None, None),
        (tuple[int, ...], (1, 2)),
        (tuple[int, str] | None, None),
        (list[float | None], [0.5, None]),
        (Literal["a", 1], "a"),
        (str | tuple[str, ...], "a"),
    ],
)
def test_what_yaml_can_hold_may_be_set(hint, default):
    check_settings(with_field(hint, default))


@pytest.mark.parametrize(
    ("hint", "default", "told"),
    [
        (Path, None, "ModelSettings.mine is a Path"),
        (Path | None, None, "ModelSettings.mine is a pathlib.Path | None"),
        (set[str], None, "ModelSettings.mine is a set"),
        (Kind, Kind.ONE, "ModelSettings.mine is a Kind"),
        (Literal[Kind.ONE], Kind.ONE, "ModelSettings.mine is a typing.Literal[<Kind.ONE: 1>]"),
        (list[Path], [], "ModelSettings.mine is a list[pathlib.Path]"),
        (tuple[tuple[int, int], ...], (), "ModelSettings.mine is a tuple[tuple[int, int], ...]"),
        (dict[str, int], None, "ModelSettings.mine is a dict"),
        (str, Path("data"), f"Settings.model.mine holds a {type(Path()).__name__}"),
        (tuple[str, ...], (Path("data"),), f"Settings.model.mine holds a {type(Path()).__name__}"),
    ],
)
def test_what_yaml_cannot_hold_is_one_line(hint, default, told):
    line = refusal(with_field(hint, default))
    assert line.startswith(f"model/settings.py: {told}") and line.endswith(f": {RULE}")


def test_a_wrong_annotation_is_one_line():
    told = "model/settings.py: a field of ModelSettings is annotated wrongly (name 'Pathh' is not defined)"
    assert refusal(with_field("Pathh")) == told


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("FINETUNE", asdict(Settings()), "FINETUNE is a dict: write Settings(...)"),
        ("LAYOUTS", base.RunSettings(), "LAYOUTS is a RunSettings: write Settings(...)"),
        ("LAYOUTS", replace(Settings(), training={"lr": 1}), "LAYOUTS.training is a dict: write TrainingSettings(...)"),
        (
            "FINETUNE",
            replace(Settings(), new_heads="scores"),
            'FINETUNE.new_heads is a text, and must be a tuple: write ("scores",)',
        ),
        ("FROM_START", "model", 'FROM_START is a text, and must be a tuple: write ("model",)'),
        ("FROM_START", ("model", "weather"), "FROM_START names weather; there are model, data, seed"),
        ("Settings", base.TrainingSettings, "Settings must be a subclass of RunSettings in contracts/settings.py"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_wrong_defaults_of_commands_are_one_line(name, value, told, monkeypatch):
    monkeypatch.setattr(model, name, value)
    assert refusal(model) == f"model/settings.py: {told}"


def test_a_name_in_capitals_is_no_setting():
    told = "model/settings.py: ModelSettings.NOT_SPLIT is no setting: annotate it as ClassVar, or write its name small"
    assert refusal(with_field(tuple[str, ...], ("mine",), name="NOT_SPLIT")) == told
    check_settings(with_field(ClassVar[tuple[str, ...]], ("mine",), name="NOT_SPLIT"))


def test_a_text_in_place_of_the_names_that_are_not_split_is_one_line():
    line = refusal(with_field(int, 1, NOT_SPLIT="mine"))
    assert line == 'model/settings.py: ModelSettings.NOT_SPLIT is a text, and must be a tuple: write ("mine",)'


def test_a_tuple_is_saved_and_read_back_as_one(tmp_path, monkeypatch):
    own = with_field(tuple[int, str] | None, None).Settings
    monkeypatch.setattr(run_settings, "Settings", own)
    saved = change(own(), new_heads=("a", "b"), model={"mine": (3, "x")})
    save_settings(saved, tmp_path)
    assert load_settings(tmp_path) == saved
    monkeypatch.setattr("{{cookiecutter.__package_name}}.parsing.Settings", own)
    given = parse(["--config", str(tmp_path / SETTINGS_FILE)], own(), "", "")
    assert given == saved
    monkeypatch.setattr(run_settings, "_KEPT", ("new_heads", "model.mine"))
    check_same_run(given, load_settings(tmp_path))
