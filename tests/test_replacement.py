"""One folder is the user's: with another model in model/ and tests/model/, all the other tests of a project pass."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
from conftest import BakedProject, Baker, install, run_ok
from pages import blocks, environment_of, perform


def replace_model(project: BakedProject, folder: Path) -> BakedProject:
    """Copy a project, delete both folders, and put a network of another kind in their place."""
    path = folder / project.slug
    shutil.copytree(project.path, path)
    begin = next(blocks(path / "docs" / "sequences.md"))
    assert "rm -rf src/" in begin.text and "cp -r docs/sequences/" in begin.text
    perform(begin, path, environment_of(project, path, folder / "bin"))
    return BakedProject(path)


@pytest.fixture(scope="module")
def replaced(default_project: BakedProject, tmp_path_factory) -> BakedProject:
    return replace_model(default_project, tmp_path_factory.mktemp("replaced"))


def test_nothing_else_is_touched(default_project: BakedProject, replaced: BakedProject):
    before, after = default_project.files(), replaced.files()
    changed = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    folders = (f"src/{default_project.package}/model/", "tests/model/", "configs/")
    assert {name for name in changed if not name.startswith(folders)} == {"pyproject.toml"}
    assert {Path(name).name for name in changed} >= {"network.py", "tiny.py", "dataset.py"}


@pytest.mark.slow
def test_all_other_tests_hold_whatever_the_model_is(replaced: BakedProject, tmp_path):
    """The quick ones; that the slow ones hold for a model of another kind, test_starters.py tells of every one."""
    installed = install(replaced, tmp_path)
    command = (sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-m", "not slow")
    output = run_ok(*command, cwd=replaced.path, timeout=3000, env=installed.env)
    assert " passed" in output and " skipped" not in output


@pytest.mark.slow
def test_nothing_speaks_of_the_other_starter_when_it_is_gone(baker: Baker, tmp_path):
    replaced = replace_model(baker.bake(tmp_path, starter="protein"), tmp_path / "replaced")
    assert "transformers" not in (replaced.path / "pyproject.toml").read_text()
    installed = install(replaced, tmp_path)
    command = (sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "tests/test_readme.py")
    assert " passed" in run_ok(*command, cwd=replaced.path, timeout=3000, env=installed.env)
