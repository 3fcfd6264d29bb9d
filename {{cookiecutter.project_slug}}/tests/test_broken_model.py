"""A file of `model/` that cannot be imported is one line with its file and line, whatever command is asked for."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ENVIRONMENT, PACKAGE

from {{cookiecutter.__package_name}} import cli
from {{cookiecutter.__package_name}}.cli import PROG
from {{cookiecutter.__package_name}}.contracts.errors import HOUSE, UserError, imports_of_model
from {{cookiecutter.__package_name}}.importing import explained
from {{cookiecutter.__package_name}}.model import settings

MUTABLE = "from dataclasses import dataclass\n\n@dataclass\nclass Bad:\n    sizes: list = []\n"


@pytest.fixture
def broken(tmp_path):
    """Answer a command in a copy of this package in which a file of `model/` says something else."""

    def run(file, text, *argv):
        house = tmp_path / "src" / PACKAGE
        shutil.copytree(HOUSE, house, copy_function=os.symlink, ignore=shutil.ignore_patterns("__pycache__"))
        (house / "model" / file).unlink()
        (house / "model" / file).write_text(text)
        return subprocess.run(
            [sys.executable, "-m", PACKAGE, *argv],
            capture_output=True,
            text=True,
            env={**ENVIRONMENT, "PYTHONPATH": str(house.parent), "PYTHONDONTWRITEBYTECODE": "1"},
            timeout=900,
            cwd=tmp_path,
        )

    return run


@pytest.mark.parametrize("argv", [["--help"], ["doctor"], ["pretrain"], ["report", "--from", "run"]], ids=" ".join)
def test_settings_that_cannot_be_imported_are_one_line_from_every_command(argv, broken):
    text = Path(settings.__file__).read_text() + "\n\nAGAIN = Settings(max_steps=10)\n"
    answer = broken("settings.py", text, *argv)
    where = f"model/settings.py, line {len(text.splitlines())}, cannot be imported: TypeError: "
    assert (answer.returncode, answer.stdout) == (2, "")
    [line] = answer.stderr.splitlines()
    assert line.startswith(f"{PROG}: error: {where}") and "max_steps" in line


@pytest.mark.slow
def test_a_config_that_cannot_be_imported_is_one_line(broken):
    answer = broken("config.py", "import math\n\nfrom math import tau, nothing_of_this_name\n", "pretrain")
    [line] = answer.stderr.splitlines()
    assert (answer.returncode, answer.stdout) == (2, "")
    assert line.startswith(f"{PROG}: error: model/config.py, line 3, cannot be imported: ImportError: ")


def raised_by(file, text):
    """Run a text as if it were a file of this package, among imports of `model/`."""
    with imports_of_model():
        exec(compile(text, str(HOUSE / file), "exec"), {"__name__": "a_file_of_the_model"})


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("import no_such_package", "line 1, cannot be imported: ModuleNotFoundError: No module named"),
        (MUTABLE, "line 3, cannot be imported: ValueError: mutable default <class 'list'> for field sizes"),
        ("\nprint(unheard)", "line 2, cannot be imported: NameError: name 'unheard' is not defined"),
        ("x = 1\nx =", "line 2, cannot be imported: SyntaxError: invalid syntax"),
        ("raise ValueError('two\\nlines')", "line 1, cannot be imported: ValueError: two lines"),
    ],
)
@pytest.mark.parametrize("file", ["model/network.py", "model/parts/network.py"])
def test_the_place_of_a_mistake_is_that_in_the_models_file(file, text, told):
    with pytest.raises(UserError) as caught:
        raised_by(file, text)
    assert str(caught.value).startswith(f"{file}, {told}")


def test_what_the_house_or_a_user_error_says_is_left_as_it_is():
    with pytest.raises(ImportError):
        raised_by("training/train.py", "import no_such_package")
    with pytest.raises(SyntaxError):
        raised_by("training/train.py", "x =")
    with pytest.raises(UserError, match=r"^mend this$"):
        raised_by("model/item.py", f"from {PACKAGE}.contracts.errors import UserError\nraise UserError('mend this')")


def test_a_mistake_in_the_model_is_told_before_versions_are_blamed(monkeypatch):
    monkeypatch.setattr(cli, "complain", lambda line: pytest.fail(line))
    with pytest.raises(UserError, match=r"^model/network\.py, line 1, cannot be imported: ImportError: "), explained():
        raised_by("model/network.py", "from math import nothing_of_this_name")


def test_figures_that_cannot_be_imported_are_one_line_of_the_report(broken):
    answer = broken("figures.py", "SHARES = (\n", "report", "--from", ".")
    assert (answer.returncode, answer.stdout) == (2, "")
    [line] = answer.stderr.splitlines()
    assert line == f"{PROG}: error: model/figures.py, line 1, cannot be imported: SyntaxError: '(' was never closed"
