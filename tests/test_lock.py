"""requirements.lock: one file for every Python, complete, within the declared bounds, and of no one machine."""

from __future__ import annotations

import re

import pytest
from conftest import BakedProject
from packaging.markers import default_environment
from packaging.requirements import Requirement

PYTHONS = ["3.10", "3.11", "3.12"]


def environment(python: str) -> dict[str, str]:
    linux = {"sys_platform": "linux", "platform_system": "Linux", "platform_machine": "x86_64"}
    return {**default_environment(), **linux, "python_version": python, "python_full_version": f"{python}.9"}


def pins(project: BakedProject, python: str) -> dict[str, str]:
    """The versions that this Python gets, by distribution; fails if the lock names two of one."""
    found: dict[str, str] = {}
    for line in (project.path / "requirements.lock").read_text().splitlines():
        if line.startswith("#"):
            continue
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate(environment(python)):
            name = re.sub(r"[-_.]+", "-", requirement.name).lower()
            (version,) = requirement.specifier
            assert version.operator == "=="
            assert name not in found, f"two versions of {name} for Python {python}"
            found[name] = version.version
    return found


@pytest.mark.parametrize("python", PYTHONS)
def test_every_dependency_is_pinned_within_its_bounds(default_project, python):
    project = default_project.pyproject["project"]
    declared = [
        *project["dependencies"],
        *(line for extra in project["optional-dependencies"].values() for line in extra),
    ]
    pinned = pins(default_project, python)
    assert len(pinned) > 150
    for requirement in map(Requirement, declared):
        name = re.sub(r"[-_.]+", "-", requirement.name).lower()
        assert pinned[name] in requirement.specifier, requirement
        assert len(requirement.specifier) == 2 or "==" in str(requirement.specifier), f"{requirement} lacks a bound"


def test_it_names_no_machine_and_no_index(default_project):
    text = (default_project.path / "requirements.lock").read_text()
    assert not re.search(r"https?:|file:|--index|--find-links|(^|\s)/", text)


def test_every_dependency_says_why_it_is_there(default_project):
    text = (default_project.path / "pyproject.toml").read_text()
    section = re.search(r"^dependencies = \[\n(.*?)^\]", text, re.MULTILINE | re.DOTALL).group(1)
    lines = section.splitlines()
    assert len(lines) > 8
    assert [line for line in lines if not re.search(r'", # .{10}', line)] == []
