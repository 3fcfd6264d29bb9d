"""What the template's README and CHANGELOG say about questions, commands, files and the version is so."""

from __future__ import annotations

import json
import re

from conftest import TEMPLATE, BakedProject

README = (TEMPLATE / "README.md").read_text(encoding="utf-8")


def test_the_table_of_questions_is_that_of_cookiecutter_json():
    answers = json.loads((TEMPLATE / "cookiecutter.json").read_text(encoding="utf-8"))
    asked = [name for name in answers if not name.startswith("_")]
    assert re.findall(r"^\| `(\w+)` \|", README, flags=re.MULTILINE) == asked
    assert len(asked) <= 9


def test_the_make_targets_exist():
    makefile = (TEMPLATE / "Makefile").read_text(encoding="utf-8")
    for target in set(re.findall(r"\bmake ([a-z]+)\b", README)) - {"it"}:
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target


def test_continuous_integration_calls_the_readmes_test_command():
    assert "make test " in README
    assert "make test" in (TEMPLATE / ".ci" / "run").read_text(encoding="utf-8")


def test_the_files_of_the_overview_are_in_the_project(default_project: BakedProject):
    overview = README.split("```\nmy-model/\n")[1].split("```")[0]
    files = [file.replace(default_project.package, "my_model") for file in default_project.files()]
    folder = ""
    for line in overview.splitlines():
        name = line.split()[0]
        if line.startswith("    "):
            name = folder + name
        elif name.endswith("/"):
            folder = name
        assert any(file == name or (name.endswith("/") and file.startswith(name)) for file in files), name


def test_the_slug_decides_the_command_in_the_projects_readme(default_project: BakedProject):
    assert f"\n{default_project.slug} pretrain\n" in (default_project.path / "README.md").read_text(encoding="utf-8")


def test_the_newest_version_of_the_changelog_is_the_templates_and_that_of_its_projects(default_project: BakedProject):
    changelog = (TEMPLATE / "CHANGELOG.md").read_text(encoding="utf-8")
    sections = re.findall(r"^## \[(.+?)\]", changelog, flags=re.MULTILINE)
    answers = json.loads((TEMPLATE / "cookiecutter.json").read_text(encoding="utf-8"))
    pyproject = default_project.pyproject
    assert sections[0] == "Unreleased"
    assert sections[1] == answers["__template_version"] == pyproject["tool"]["template"]["version"]
    numbers = [tuple(map(int, version.split("."))) for version in sections[1:]]
    assert numbers == sorted(numbers, reverse=True)
