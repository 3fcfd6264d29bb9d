"""Bakes projects into temporary folders and runs commands in them.

Every baked project is installed alone, without dependencies, into a folder of its own that goes first on PYTHONPATH:
all of them share the packages of the environment that runs these tests, and none sees another.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from cookiecutter.main import cookiecutter

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

TEMPLATE = Path(__file__).resolve().parents[1]
PROJECT_FOLDER = "{{cookiecutter.project_slug}}"
CACHES = shutil.ignore_patterns("__pycache__", ".*_cache", ".venv", "runs", "build", "dist")
PLAIN = {"project_name": "P", "project_slug": "p", "description": "D", "author": "A"}
# What `make test VENV=...` hands on among it: the projects' own makes would work with that environment.
INHERITED_NOT = ("PYTHONPATH", "MAKEFLAGS", "MAKELEVEL", "PYTEST_ADDOPTS", "PYTEST_CURRENT_TEST", "VIRTUAL_ENV")
INHERITED_NOT += ("VENV", "PYTHON", "PIP", "PYTEST", "STARTER", "ARGS")

# torch's threads sleep while they wait for each other, and do not turn in circles: many processes run here at a time.
os.environ["OMP_WAIT_POLICY"] = "PASSIVE"

# Seconds for a project's own suite, a quarter of an hour if nothing else runs. Each of its tests has limits of its own.
OF_A_SUITE = 6 * 3600

# The files that take longest; two run at a time, and a long one that came last would run alone.
LONGEST = ("test_starters.py", "test_training.py", "test_walkthrough.py", "test_two_machines.py", "test_bench.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))


@dataclass(frozen=True)
class Result:
    """What a command left: its exit status, and stdout and stderr as one text."""

    status: int
    output: str


def run(*command: str | Path, cwd: Path, timeout: float, env: dict[str, str] | None = None) -> Result:
    """Runs the command in a process group of its own, which does not survive it: no rank is left behind."""
    clean = {name: value for name, value in os.environ.items() if name not in INHERITED_NOT}
    process = subprocess.Popen(
        [str(word) for word in command],
        cwd=cwd,
        env={**clean, **(env or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        pytest.fail(f"{command} still ran after {timeout} s; its last output:\n{output[-4000:]}")
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    return Result(process.returncode, output)


def run_ok(*command: str | Path, cwd: Path, timeout: float, env: dict[str, str] | None = None) -> str:
    """The output of a command that must succeed."""
    result = run(*command, cwd=cwd, timeout=timeout, env=env)
    assert result.status == 0, f"{command} failed with exit status {result.status}:\n{result.output[-6000:]}"
    return result.output


@dataclass(frozen=True)
class BakedProject:
    """A generated project."""

    path: Path
    answers: dict[str, str] = field(default_factory=dict)

    @property
    def slug(self) -> str:
        return self.path.name

    @property
    def package(self) -> str:
        return self.slug.replace("-", "_")

    @property
    def pyproject(self) -> dict[str, Any]:
        """What its pyproject.toml says."""
        return tomllib.loads((self.path / "pyproject.toml").read_text(encoding="utf-8"))

    def files(self) -> dict[str, bytes]:
        """Every file's content by its path in the project."""
        found = (path for path in self.path.rglob("*") if path.is_file())
        return {path.relative_to(self.path).as_posix(): path.read_bytes() for path in found}


@dataclass(frozen=True)
class InstalledProject:
    """A generated project's wheel, installed without dependencies into a folder outside the project."""

    project: BakedProject
    wheel: Path
    site: Path

    @property
    def env(self) -> dict[str, str]:
        return {"PYTHONPATH": str(self.site), "PATH": f"{self.site / 'bin'}{os.pathsep}{os.environ['PATH']}"}

    def cli(self, *arguments: str | Path, cwd: Path, timeout: float) -> Result:
        """Runs the project's own command."""
        return run(self.site / "bin" / self.project.slug, *arguments, cwd=cwd, timeout=timeout, env=self.env)


class Baker:
    """Bakes from a clean copy of the template, and never reads or writes the user's own cookiecutter settings."""

    def __init__(self, folder: Path):
        self.template = folder / "template"
        shutil.copytree(TEMPLATE / PROJECT_FOLDER, self.template / PROJECT_FOLDER, ignore=CACHES)
        shutil.copytree(TEMPLATE / "hooks", self.template / "hooks", ignore=CACHES)
        shutil.copy(TEMPLATE / "cookiecutter.json", self.template)
        self.config = folder / "config.yaml"
        self.config.write_text(json.dumps({key: str(folder / "own") for key in ("cookiecutters_dir", "replay_dir")}))

    def bake(self, output: Path, **answers: str) -> BakedProject:
        path = cookiecutter(
            str(self.template),
            no_input=True,
            extra_context=answers,
            output_dir=str(output),
            config_file=str(self.config),
        )
        return BakedProject(Path(path), answers)

    def command(self, cwd: Path, *answers: str) -> Result:
        """What a person sees who runs cookiecutter in this folder with these answers."""
        words = ("-m", "cookiecutter", self.template, "--no-input", *answers)
        env = {"COOKIECUTTER_CONFIG": str(self.config), "PWD": str(cwd)}
        return run(sys.executable, *words, cwd=cwd, timeout=1800, env=env)


@pytest.fixture(scope="session")
def baker(tmp_path_factory) -> Baker:
    return Baker(tmp_path_factory.mktemp("baker"))


@pytest.fixture(scope="session")
def default_project(baker, tmp_path_factory) -> BakedProject:
    return baker.bake(tmp_path_factory.mktemp("default"))


@pytest.fixture(scope="session")
def longest_project(baker, tmp_path_factory) -> BakedProject:
    """The longest name that the hook lets through, and every option other than the default."""
    slug = "a-name-of-forty-characters-exactly-so-xx"
    assert len(slug) == 40
    return baker.bake(tmp_path_factory.mktemp("longest"), project_slug=slug, license="none", ci="none")


@pytest.fixture(scope="session")
def plain_project(baker, tmp_path_factory) -> BakedProject:
    """A project whose answers are one letter each, to compare others with."""
    return baker.bake(tmp_path_factory.mktemp("plain"), **PLAIN)


def install(project: BakedProject, folder: Path) -> InstalledProject:
    """Builds a project's wheel and installs it, with no package index to ask."""
    build = (sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", folder)
    run_ok(*build, cwd=project.path, timeout=1800)
    (wheel,) = folder.glob("*.whl")
    pip = (sys.executable, "-m", "pip", "install", "--no-index", "--no-deps", "--target", folder / "site")
    run_ok(*pip, wheel, cwd=folder, timeout=1800)
    return InstalledProject(project, wheel, folder / "site")


@pytest.fixture(scope="session")
def installed(default_project, tmp_path_factory) -> InstalledProject:
    """The default project's wheel, installed."""
    return install(default_project, tmp_path_factory.mktemp("installed"))


@pytest.fixture(scope="session")
def everything(baker: Baker, tmp_path_factory) -> tuple[BakedProject, BakedProject]:
    """Two projects that have every file between them."""
    options = {"container": "docker", "cluster": "slurm"}
    github = baker.bake(tmp_path_factory.mktemp("github"), ci="github", **options)
    return github, baker.bake(tmp_path_factory.mktemp("gitlab"), ci="gitlab", **options)
