"""The other starter: a model of another kind in the same house, whose own tests all pass."""

from __future__ import annotations

import sys

import pytest
from conftest import OF_A_SUITE, BakedProject, Baker, install, run_ok

# What a starter brings; everything else is the house.
BROUGHT = ("src/{package}/model/", "tests/model/", "configs/", "docs/proteins.md")
FILLED_IN = {"README.md", "pyproject.toml"}


@pytest.fixture(scope="module")
def protein_project(baker: Baker, default_project: BakedProject, tmp_path_factory) -> BakedProject:
    """A project of the other starter, under the name of the default one."""
    answers = {"project_name": "MNIST Megatron", "description": "The same"}
    return baker.bake(tmp_path_factory.mktemp("protein"), starter="protein", **answers)


def house(project: BakedProject) -> dict[str, bytes]:
    brought = tuple(place.format(package=project.package) for place in BROUGHT)
    return {name: content for name, content in project.files().items() if not name.startswith(brought)}


def test_the_house_is_the_same_to_the_byte(default_project: BakedProject, protein_project: BakedProject):
    one, other = house(default_project), house(protein_project)
    assert len(one) > 100
    assert one.keys() == other.keys()
    assert {name for name in one if one[name] != other[name]} == FILLED_IN


@pytest.mark.parametrize(("starter", "word"), [("mnist", "esm"), ("protein", "mnist")])
def test_no_trace_is_left_of_the_starter_that_was_not_chosen(baker: Baker, tmp_path, starter, word):
    project = baker.bake(tmp_path, starter=starter)
    files = {name: content for name, content in project.files().items() if name.endswith((".py", ".toml", ".yaml"))}
    files = {name: content for name, content in files.items() if not name.startswith(("docs/", "requirements"))}
    assert [name for name, content in files.items() if word.encode() in content.lower()] == []


@pytest.mark.slow
@pytest.mark.timeout(OF_A_SUITE + 600)
def test_its_own_tests_pass(protein_project: BakedProject, tmp_path):
    installed = install(protein_project, tmp_path)
    # the cellar is the same to the byte, and the other project's tests have been down there
    command = (sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--ignore", "tests/runtime")
    output = run_ok(*command, cwd=protein_project.path, timeout=OF_A_SUITE, env=installed.env)
    assert " passed" in output
