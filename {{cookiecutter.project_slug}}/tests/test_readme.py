"""What the README, the docs and the heads of the configs promise exists: commands, settings, files, make targets."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, fields, replace
from pathlib import Path

import pytest

from {{ cookiecutter.__package_name }} import cli
from {{ cookiecutter.__package_name }}.contracts import names
from {{ cookiecutter.__package_name }}.contracts.settings import ModelSettings, RunSettings, TrainingSettings
from {{ cookiecutter.__package_name }}.model.settings import FINETUNE, Settings
from {{ cookiecutter.__package_name }}.parsing import rename

PROJECT = Path(__file__).resolve().parents[1]
PACKAGE = Path(cli.__file__).parent
_, README = (PROJECT / "README.md").read_text(encoding="utf-8").split("\n## ", maxsplit=1)  # above: name, description
DOCS = {path.name: path.read_text(encoding="utf-8") for path in (PROJECT / "docs").glob("*.md")} | {"README": README}
CONFIGS = sorted((PROJECT / "configs").glob("*.yaml"))
DEFAULTS = {"pretrain": Settings(), "finetune": FINETUNE}


@dataclass(frozen=True)
class EvenSizes(ModelSettings):
    """Sizes that can be split, whatever yours are."""

    sequence_length: int = 64


def commands(text: str) -> list[str]:
    """Return the lines that call the project's command, without prompt and comment."""
    return [line.split("  #")[0].strip() for line in re.findall(rf"(?:^|: ){cli.PROG} .*", text, flags=re.MULTILINE)]


def parse(line: str, monkeypatch: pytest.MonkeyPatch, **changes: object) -> Settings | None:
    """Parse a command line as the command would, from the project's folder; nothing is run."""
    monkeypatch.chdir(PROJECT)
    command, *arguments = shlex.split(line.removeprefix(": "))[1:]
    assert command in cli.COMMANDS
    if command not in DEFAULTS:
        return None
    return cli._parse(command, rename(arguments, "--from", "--from_run"), replace(DEFAULTS[command], **changes))


@pytest.mark.parametrize("line", sorted({line for text in DOCS.values() for line in commands(text)}))
def test_a_command_of_readme_and_docs_parses(line: str, monkeypatch):
    settings = parse(line, monkeypatch, training=TrainingSettings())  # not your own, which may not be split so
    if settings:
        values = {item.name: getattr(settings, item.name) for item in fields(RunSettings)}
        assert RunSettings(**{**values, "model": EvenSizes()}).problems() == []


def test_the_readme_shows_every_command():
    shown = {line.split()[1] for line in commands(README)}
    assert shown == set(cli.COMMANDS)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.name)
def test_the_command_in_the_head_of_a_config_parses(config: Path, monkeypatch):
    lines = commands(config.read_text(encoding="utf-8"))
    assert len(lines) == 1
    assert f"configs/{config.name}" in lines[0]
    settings = parse(lines[0], monkeypatch)
    assert settings is None or settings.problems() == []


def test_a_setting_that_does_not_exist_would_be_found(monkeypatch):
    with pytest.raises(cli.UserError, match="there is no setting"):
        parse(f"{cli.PROG} pretrain --parallel.tensors 2", monkeypatch)


@pytest.mark.parametrize("document", DOCS)
def test_the_files_that_it_names_exist(document):
    found = set(re.findall(r"`((?:[\w.-]+/)*[\w-]+\.(?:py|yaml|lock|md)|(?:\w+/)+)`", DOCS[document]))
    found -= {names.SETTINGS_FILE, "load.py"}  # of a run, and of an export
    assert found
    house = (PACKAGE, PROJECT / "tests")
    for name in found:
        assert (PROJECT / name).exists() or any(any(folder.rglob(name)) for folder in house), name


def test_the_make_targets_that_the_readme_names_exist():
    makefile = (PROJECT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"\bmake ([a-z]+)\b", README))
    assert targets
    for target in targets:
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target
