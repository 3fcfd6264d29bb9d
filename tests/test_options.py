"""Every pair of choices: exactly their files, valid by the rules of those who will read them."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import TEMPLATE, BakedProject, Baker, run_ok
from test_bake import CHOSEN, assert_exactly, text_files

BIN = Path(sys.executable).parent
QUESTIONS = ("starter", "license", "ci", "container", "cluster")
CHOICES = {
    name: choices
    for name, choices in json.loads((TEMPLATE / "cookiecutter.json").read_text(encoding="utf-8")).items()
    if isinstance(choices, list) and not name.startswith("_")
}
# (starter, license, ci, container, cluster), so that every two choices of different questions meet in one of them
MATRIX = [
    ("mnist", "Apache-2.0", "github", "docker", "slurm"),
    ("mnist", "Apache-2.0", "gitlab", "none", "none"),
    ("protein", "Apache-2.0", "none", "docker", "none"),
    ("mnist", "MIT", "github", "none", "none"),
    ("mnist", "MIT", "gitlab", "docker", "slurm"),
    ("protein", "MIT", "none", "none", "slurm"),
    ("mnist", "BSD-3-Clause", "github", "none", "slurm"),
    ("mnist", "BSD-3-Clause", "gitlab", "docker", "none"),
    ("protein", "BSD-3-Clause", "none", "docker", "slurm"),
    ("protein", "none", "github", "docker", "none"),
    ("protein", "none", "gitlab", "none", "slurm"),
    ("mnist", "none", "none", "none", "none"),
]
SCHEMAS = {
    ".github/workflows/ci.yml": "vendor.github-workflows",
    ".github/workflows/versions.yml": "vendor.github-workflows",
    ".github/dependabot.yml": "vendor.dependabot",
    ".gitlab-ci.yml": "vendor.gitlab-ci",
}
SHELL = {"echo", "else", "fi", "if", "number", "then"}
ON_EVERY_RUNNER = {*SHELL, "apt-get", "gh", "git", "head", "make", "tail", "tee", "touch"}


@pytest.fixture(scope="module", params=MATRIX, ids="-".join)
def choices(request) -> dict[str, str]:
    return dict(zip(QUESTIONS, request.param, strict=True))


@pytest.fixture(scope="module")
def project(choices: dict[str, str], baker: Baker, tmp_path_factory) -> BakedProject:
    return baker.bake(tmp_path_factory.mktemp("options"), project_slug="a-b", **choices)


def test_the_matrix_has_every_pair_of_choices():
    assert tuple(CHOICES) == QUESTIONS
    rows = [dict(zip(QUESTIONS, row, strict=True)) for row in MATRIX]
    for one, other in itertools.combinations(QUESTIONS, 2):
        pairs = set(itertools.product(CHOICES[one], CHOICES[other]))
        assert pairs == {(row[one], row[other]) for row in rows}


def test_it_has_exactly_the_files_of_its_choices(project: BakedProject, choices: dict[str, str]):
    assert_exactly(project, *choices.values())
    folders = [path for path in project.path.rglob("*") if path.is_dir()]
    assert all(any(folder.iterdir()) for folder in folders), "an empty folder"


def test_a_second_bake_is_the_same(project: BakedProject, choices: dict[str, str], baker: Baker, tmp_path):
    assert baker.bake(tmp_path, project_slug="a-b", **choices).files() == project.files()


def test_no_gap_is_left_where_something_is_not_chosen(project: BakedProject):
    for name, text in text_files(project).items():
        assert text.endswith("\n") and not text.endswith("\n\n"), name
        assert not re.search(r"[ \t]\n", text), name
        if not name.startswith(("src/", "LICENSE", "tests/", "docs/")):  # code has its own gaps
            assert "\n\n\n" not in text, name
        if name.endswith((".yml", ".sbatch", "Dockerfile", ".json", ".dockerignore")):
            assert not re.search(r"(?<!\$)\{\{|\{%|cookiecutter", text), name


def test_ruff_finds_nothing(project: BakedProject):
    run_ok(BIN / "ruff", "check", "--no-cache", ".", cwd=project.path, timeout=1800)
    run_ok(BIN / "ruff", "format", "--no-cache", "--check", ".", cwd=project.path, timeout=1800)


def path_of(file: str, projects: tuple[BakedProject, ...]) -> Path:
    [path] = {project.path / file for project in projects[:1] if file in project.files()} or {
        project.path / file for project in projects if file in project.files()
    }
    return path


def test_every_file_of_a_choice_is_looked_at_below():
    of_options = {choice: files for choice, files in CHOSEN.items() if choice not in CHOICES["starter"]}
    chosen = {file for files in of_options.values() for file in files} - {"LICENSE", ".dockerignore"}
    assert chosen == {*SCHEMAS, "Dockerfile", ".devcontainer/devcontainer.json", "slurm/train.sbatch"}


@pytest.mark.parametrize("file", SCHEMAS)
def test_a_workflow_has_the_form_that_its_reader_demands(file: str, everything):
    check = (BIN / "check-jsonschema", "--builtin-schema", SCHEMAS[file])
    run_ok(*check, path_of(file, everything), cwd=TEMPLATE, timeout=1800)
    broken = yaml.safe_load(path_of(file, everything).read_text())
    broken["updates" if "dependabot" in file else "jobs" if "workflows" in file else "test"] = 3
    words = [*map(str, check), "-"]
    done = subprocess.run(words, input=json.dumps(broken), text=True, capture_output=True, timeout=1800)
    assert done.returncode == 1, done.stdout


def scripts(file: str, path: Path) -> list[str]:
    """The shell scripts of a workflow."""
    content = yaml.safe_load(path.read_text())
    if "workflows" in file:
        return [step["run"] for job in content["jobs"].values() for step in job["steps"] if "run" in step]
    jobs = [content["default"], *(job for job in content.values() if "script" in job)]
    return ["\n".join(job.get("script", job.get("before_script"))) for job in jobs]


@pytest.mark.parametrize("file", [file for file in SCHEMAS if "dependabot" not in file])
def test_a_workflow_calls_only_what_is_there(file: str, everything):
    path = path_of(file, everything)
    targets = set(re.findall(r"^(\w+):.*##", (everything[0].path / "Makefile").read_text(), re.MULTILINE))
    for script in scripts(file, path):
        for target in re.findall(r"\bmake (\w+)", script):
            assert target in targets
        plain = re.sub(r"\$\{\{.*?\}\}", "x", script)
        check = (BIN / "shellcheck", "--shell=bash", "-")
        done = subprocess.run([*map(str, check)], input=plain, text=True, capture_output=True, timeout=1800)
        assert done.returncode == 0, done.stdout
        words = re.findall(
            r"(?:^|[;|{]|&&|then|else)\s*([\w-]+)", re.sub(r"\"[^\"]*\"|'[^']*'", "x", plain), re.MULTILINE
        )
        assert set(words) <= ON_EVERY_RUNNER


def test_docker_and_slurm_files_have_no_faults_that_a_linter_knows(everything):
    run_ok(BIN / "hadolint", "Dockerfile", cwd=everything[0].path, timeout=1800)
    run_ok(BIN / "shellcheck", "slurm/train.sbatch", cwd=everything[0].path, timeout=1800)


def test_the_development_container_makes_the_projects_environment(everything):
    lines = path_of(".devcontainer/devcontainer.json", everything).read_text().splitlines()
    content = json.loads("\n".join(line for line in lines if not line.startswith("//")))
    assert content["postCreateCommand"] == "make setup"
    assert content["image"].endswith(":3.12")
    interpreter = content["customizations"]["vscode"]["settings"]["python.defaultInterpreterPath"]
    assert interpreter == ".venv/bin/python"
