"""A project takes the template's news with cruft and keeps what its user did: the README's section, executed.

The template lies in a git repository of its own, first in a state of the past that is made here, then as it is now.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest
from answers import ACCEPTED
from conftest import PROJECT_FOLDER, TEMPLATE, BakedProject, Baker, Result, run

pytestmark = pytest.mark.slow  # git, cruft and a dozen bakes

PACKAGE_FOLDER = "src/{{cookiecutter.__package_name}}"
MODEL_FOLDER = "starters/mnist/model"  # which becomes model/ in the package
URL = "https://github.com/org/megatron-model-template"
ADDED = "training/stopping.py"  # the package of the past has not
REMOVED = "outdated.py"  # it has, and the present one has not
OLD, NOW = "v0.0.1", "v9.0.0"
ANSWERS = {"project_name": "My Model", "description": ACCEPTED["shell"], "author": ACCEPTED["backslash-quote"]}
README = (TEMPLATE / "README.md").read_text(encoding="utf-8")


def change(path: Path, old: str, new: str) -> None:
    """Replaces the first of these texts in a file, which must have it."""
    text = path.read_text(encoding="utf-8")
    assert old in text, f"{path} has no {old!r}"
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


def append(path: Path, text: str) -> None:
    path.write_text(path.read_text(encoding="utf-8") + text, encoding="utf-8")


def make_past(template: Path) -> None:
    """Undoes in every kind of file a bit of what the template has now."""
    project = template / PROJECT_FOLDER
    version = json.loads((template / "cookiecutter.json").read_text(encoding="utf-8"))["__template_version"]
    change(template / "cookiecutter.json", f'"{version}"', '"0.0.1"')
    change(project / MODEL_FOLDER / "network.py", "\n", "  # as it was\n")
    (project / PACKAGE_FOLDER / ADDED).unlink()
    (project / PACKAGE_FOLDER / REMOVED).write_text('"""No longer needed."""\n')
    change(project / "README.md", "## Start\n", "## How to begin\n")
    change(project / "tests" / "test_doctor.py", "\n", "  # as it was\n")
    for option in ("LICENSE.MIT", ".github/workflows/ci.yml"):
        append(project / option, "# as it was\n")


def edit(project: Path, package: str) -> None:
    """What a user does: changes the network and the README, writes a file, deletes a test."""
    append(project / "src" / package / "model" / "network.py", '\n\ndef mine() -> None:\n    """Mine."""\n')
    change(project / "README.md", "## Work on it\n", "## Ours\n\nOur words.\n\n## Work on it\n")
    change(project / "pyproject.toml", '    "pyyaml>=', '    "einops>=0.8,<1",\n    "pyyaml>=')
    (project / "src" / package / "ours.py").write_text('"""Ours."""\n')
    (project / "tests" / "test_doctor.py").unlink()


class Desk:
    """A folder with the template's repository, projects, and a shell that knows cruft and git but no network."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.repository = folder / "repository"
        self.repository.mkdir()
        (folder / "bin").mkdir()
        cruft = folder / "bin" / "cruft"
        cruft.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m cruft "$@"\n')
        cruft.chmod(0o755)
        self.sh("git init --quiet --initial-branch main", self.repository)

    def try_sh(self, command: str, cwd: Path) -> Result:
        who = {f"GIT_{role}_{what}": "x@y" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
        alone = {"HOME": str(self.folder), "GIT_CONFIG_NOSYSTEM": "1", "GIT_ALLOW_PROTOCOL": "file", "PWD": str(cwd)}
        paths = f'export PATH={shlex.quote(str(self.folder / "bin"))}:"$PATH"; '
        return run("sh", "-c", paths + command, cwd=cwd, timeout=1800, env={**who, **alone})

    def sh(self, command: str, cwd: Path) -> str:
        result = self.try_sh(command, cwd)
        assert result.status == 0, f"{command}\n{result.output}"
        return result.output

    def publish(self, template: Path, tag: str) -> str:
        """Makes this state of the template the newest one of its repository; gives the commit."""
        for path in self.repository.iterdir():
            if path.name != ".git":
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        shutil.copytree(template, self.repository, dirs_exist_ok=True)
        self.sh(f"git add --all && git commit --quiet --message {tag} && git tag {tag}", self.repository)
        return self.sh("git rev-parse HEAD", self.repository).strip()

    def create(self, **answers: str) -> Path:
        """A project of the newest state, committed."""
        command = readme_command("cruft create").replace(URL, shlex.quote(str(self.repository)))
        extra = shlex.quote(json.dumps({**ANSWERS, **answers}))
        self.sh(f"mkdir -p projects && cd projects && {command} --no-input --extra-context {extra}", self.folder)
        (project,) = (self.folder / "projects").iterdir()
        self.sh("git init --quiet --initial-branch main", project)
        self.commit(project)
        return project

    def commit(self, project: Path) -> None:
        self.sh("git add --all && git commit --quiet --message work", project)


def readme_command(start: str) -> str:
    """The command of the README's section on updates that begins so, without its comment."""
    section = README.split("\n## Update a project\n")[1].split("\n## ")[0]
    (line,) = re.findall(rf"^{start}.*", section, flags=re.MULTILINE)
    return line.split("  #")[0].strip()


def files_of(project: Path) -> dict[str, bytes]:
    """Every file but git's and cruft's own."""
    return {
        name: content
        for name, content in BakedProject(project).files().items()
        if not name.startswith((".git/", ".cruft.json"))
    }


@pytest.fixture
def desk(tmp_path, baker: Baker) -> Desk:
    """The template as it was is published."""
    desk = Desk(tmp_path)
    past = Baker(tmp_path / "past").template
    make_past(past)
    desk.publish(past, OLD)
    return desk


@pytest.mark.parametrize(
    "options",
    [
        {"license": "MIT", "ci": "github", "container": "docker", "cluster": "slurm"},
        {"license": "none", "ci": "none", "project_slug": "q"},
    ],
    ids=["with-options", "without-options"],
)
def test_an_update_brings_the_templates_changes_and_keeps_the_users(desk: Desk, baker: Baker, tmp_path, options):
    project = desk.create(**options)
    package = project.name.replace("-", "_")
    edit(project, package)
    desk.commit(project)
    assert desk.try_sh(readme_command("cruft check"), project).status == 0
    commit = desk.publish(baker.template, NOW)
    assert desk.try_sh(readme_command("cruft check"), project).status == 1

    output = desk.sh(readme_command("cruft update"), project)
    assert "is ready" not in output  # the hooks ran, for two bakes in folders that are gone
    fresh = baker.bake(tmp_path / "fresh", **ANSWERS, **options)
    assert not (files_of(project).keys() & {f"src/{package}/{REMOVED}"})
    assert {f"src/{package}/{ADDED}", f"src/{package}/ours.py"} <= files_of(project).keys()
    assert (project / "LICENSE").exists() == (options["license"] != "none")
    assert (project / ".github").exists() == (options["ci"] != "none")
    edit(fresh.path, package)
    assert files_of(project) == fresh.files()
    state = json.loads((project / ".cruft.json").read_text(encoding="utf-8"))
    assert state["commit"] == commit
    assert ANSWERS.items() <= state["context"]["cookiecutter"].items()
    assert state["context"]["cookiecutter"]["__package_name"] == package

    desk.commit(project)
    assert desk.try_sh(readme_command("cruft check"), project).status == 0
    difference = desk.sh("cruft diff", project)
    named = set(re.findall(r"^diff --git upstream-template-old/(\S+)", difference, flags=re.MULTILINE))
    assert named == {f"src/{package}/model/network.py", "README.md", "pyproject.toml"}
    assert "def mine()" in difference
    assert "up to date" in desk.sh(readme_command("cruft update"), project)


def test_a_conflict_is_marked_in_the_file_and_nothing_is_lost(desk: Desk, baker: Baker):
    project = desk.create()
    change(project / "README.md", "## How to begin\n", "## Our start\n")
    desk.commit(project)
    before = files_of(project)
    desk.publish(baker.template, NOW)
    output = desk.sh(readme_command("cruft update"), project)
    assert "with conflicts" in output
    assert "UU README.md" in desk.sh("git status --short", project)
    assert re.search(
        r"^<{7} .*\n## Our start\n={7}\n## Start\n>{7} ", (project / "README.md").read_text(), flags=re.MULTILINE
    )
    assert (project / "src" / "my_model" / ADDED).exists()  # the rest came
    desk.sh(readme_command("git reset"), project)
    assert files_of(project) == before
    assert desk.try_sh(readme_command("cruft check"), project).status == 1


def test_a_conflict_with_a_file_that_git_never_saw_is_left_beside_it(desk: Desk, baker: Baker, tmp_path):
    """The project's first commit has the user's edits already, so that git cannot merge three ways."""
    project = desk.create()
    change(project / "README.md", "## How to begin\n", "## Our start\n")
    shutil.rmtree(project / ".git")
    desk.sh("git init --quiet --initial-branch main", project)
    desk.commit(project)
    before = (project / "README.md").read_text()
    desk.publish(baker.template, NOW)
    assert "*.rej" in desk.sh(readme_command("cruft update"), project)
    rejected = (project / "README.md.rej").read_text()
    assert "-## How to begin\n" in rejected
    assert "+## Start\n" in rejected
    assert (project / "README.md").read_text() == before
    assert (project / "src" / "my_model" / ADDED).exists()


def test_a_project_of_cookiecutter_can_be_linked_and_updated(desk: Desk, baker: Baker, tmp_path):
    words = shlex.join(f"{key}={value}" for key, value in ANSWERS.items())
    python = shlex.quote(sys.executable)
    desk.sh(f"{python} -m cookiecutter {shlex.quote(str(desk.repository))} --no-input {words}", tmp_path)
    project = tmp_path / "my-model"
    desk.sh("git init --quiet --initial-branch main", project)
    desk.publish(baker.template, NOW)
    link = readme_command("cruft link").replace(URL, shlex.quote(str(desk.repository))).replace("v0.1.0", OLD)
    desk.sh(f"{link} --no-input --extra-context {shlex.quote(json.dumps(ANSWERS))}", project)
    desk.commit(project)
    desk.sh(readme_command("cruft update"), project)
    assert files_of(project) == baker.bake(tmp_path / "fresh", **ANSWERS).files()


def test_answers_refused_by_cruft_come_with_a_command_of_cruft(desk: Desk, baker: Baker, tmp_path):
    desk.publish(baker.template, NOW)
    words = ["--no-input", "--extra-context", json.dumps({**ANSWERS, "project_slug": "torch"})]
    result = desk.try_sh(shlex.join(["cruft", "create", str(desk.repository), *words]), tmp_path)
    assert result.status != 0
    (command,) = re.findall(r"^    (cruft create .*)$", result.output, flags=re.MULTILINE)
    desk.sh(command, tmp_path)
    state = json.loads((tmp_path / "torch-project" / ".cruft.json").read_text(encoding="utf-8"))
    assert ANSWERS.items() <= state["context"]["cookiecutter"].items()


def test_an_answer_that_is_refused_only_now_can_be_mended_in_the_update(desk: Desk, baker: Baker):
    """A former template took it; the command to paste updates with what is suggested."""
    (desk.repository / "hooks" / "pre_gen_project.py").unlink()
    desk.commit(desk.repository)
    project = desk.create(author=" A")
    before = files_of(project)
    desk.publish(baker.template, NOW)
    result = desk.try_sh(readme_command("cruft update"), project)
    assert result.status != 0
    assert "error: author ' A' must not begin or end with a space; try 'A'." in result.output
    assert files_of(project) == before
    (command,) = re.findall(r"^    (cruft update .*)$", result.output, flags=re.MULTILINE)
    desk.sh(command, project)
    assert "Copyright A\n" in (project / "LICENSE").read_text()
    assert desk.try_sh(readme_command("cruft check"), project).status == 0
