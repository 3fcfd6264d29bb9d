"""One folder is the user's: with another model in model/ and tests/model/, the other tests of a project pass."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
from conftest import BakedProject, install, run_ok
from pages import blocks, environment_of, perform


@pytest.fixture(scope="module")
def replaced(default_project: BakedProject, tmp_path_factory) -> BakedProject:
    """A project in which both folders were deleted, and a network of another kind put in their place."""
    path = tmp_path_factory.mktemp("replaced") / default_project.slug
    shutil.copytree(default_project.path, path)
    environment = environment_of(default_project, path, tmp_path_factory.mktemp("bin") / "bin")
    begin = next(blocks(path / "docs" / "sequences.md"))
    assert "rm -r src/" in begin.text and "cp -r docs/sequences/" in begin.text
    perform(begin, path, environment)
    return BakedProject(path)


def test_nothing_else_is_touched(default_project: BakedProject, replaced: BakedProject):
    before, after = default_project.files(), replaced.files()
    changed = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    folders = (f"src/{default_project.package}/model/", "tests/model/", "configs/")
    assert {name for name in changed if not name.startswith(folders)} == {"pyproject.toml"}
    assert {Path(name).name for name in changed} >= {"network.py", "tiny.py", "dataset.py"}


# Of the slow tests, those that show the other network split, stopped and killed, with counts that differ; all would be
# as long again as the project's own suite.
SOME_SLOW_TESTS = (
    "tests/proof/test_layouts.py::test_every_layout_trains_to_the_figures_and_weights_of_one_process[all at once]",
    "tests/training/test_resume.py::test_a_run_stopped_at_any_step_and_resumed_ends_bit_for_bit_as_the_whole_one[data "
    "2-7]",
    "tests/training/test_counts.py::test_every_split_minimises_and_reports_one_sum_over_one_count[tensor 2]",
)


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_the_other_tests_hold_whatever_the_model_is(replaced: BakedProject, tmp_path):
    installed = install(replaced, tmp_path)
    for which in (("-m", "not slow"), SOME_SLOW_TESTS):
        command = (sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *which)
        output = run_ok(*command, cwd=replaced.path, timeout=700, env=installed.env)
        assert " passed" in output and " skipped" not in output
    assert f"{len(SOME_SLOW_TESTS)} passed" in output
