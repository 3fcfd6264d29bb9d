"""The generated project by its own standards: lint, format, types, wheel, command."""

from __future__ import annotations

import ast
import statistics
import sys
import zipfile
from pathlib import Path

import pytest
from conftest import TEMPLATE, BakedProject, Baker, InstalledProject, run, run_ok

BIN = Path(sys.executable).parent
NO_NETWORK = """
import socket

def refuse(*_, **__):
    raise OSError("this test allows no network")

socket.socket.connect = refuse
"""


@pytest.fixture(scope="module", params=["default", "shortest", "longest"])
def project(request, baker: Baker, default_project, longest_project, tmp_path_factory) -> BakedProject:
    """A name's length moves line breaks and the order of imports, so both ends are looked at."""
    if request.param == "shortest":
        return baker.bake(tmp_path_factory.mktemp("shortest"), project_slug="a", license="MIT")
    return default_project if request.param == "default" else longest_project


def test_ruff_finds_nothing(project: BakedProject):
    run_ok(BIN / "ruff", "check", "--no-cache", ".", cwd=project.path, timeout=1800)


def test_ruff_would_format_nothing(project: BakedProject):
    run_ok(BIN / "ruff", "format", "--no-cache", "--diff", ".", cwd=project.path, timeout=1800)


def test_mypy_finds_nothing(default_project: BakedProject):
    """Names do not matter to types, so one project will do; the cache is kept, for torch's types take a minute."""
    run_ok(BIN / "mypy", "--cache-dir", TEMPLATE / ".mypy_cache", cwd=default_project.path, timeout=1800)


@pytest.mark.parametrize(("tool", "bad_line"), [("ruff", "import os\n"), ("mypy", "x: int = 'a'\n")])
def test_the_tools_would_find_a_fault(baker: Baker, tmp_path, tool, bad_line):
    """The checks above see the package: a fault put there is found."""
    project = baker.bake(tmp_path)
    (project.path / "src" / project.package / "fault.py").write_text(f'"""A fault."""\n\n{bad_line}')
    arguments = ("check", "--no-cache", ".") if tool == "ruff" else ("--cache-dir", TEMPLATE / ".mypy_cache")
    result = run(BIN / tool, *arguments, cwd=project.path, timeout=1800)
    assert result.status == 1
    assert "fault.py" in result.output


def sources(project: BakedProject, *rooms: str) -> dict[Path, str]:
    """The Python files of the package, or of some of its rooms."""
    house = project.path / "src" / project.package
    folders = [house / room for room in rooms] or [house]
    return {path: path.read_text(encoding="utf-8") for folder in folders for path in folder.rglob("*.py")}


@pytest.mark.parametrize(("rooms", "most"), [(("model",), 800), (("layers", "training"), 2_000)], ids=str)
def test_the_rooms_that_a_user_reads_stay_short(default_project: BakedProject, rooms, most):
    lengths = {path: len(text.splitlines()) for path, text in sources(default_project, *rooms).items()}
    assert len(lengths) >= 5
    assert sum(lengths.values()) < most, lengths


def test_no_file_and_no_function_is_too_long_to_be_read_at_once(default_project: BakedProject):
    lengths = []
    for path, text in sources(default_project).items():
        assert len(text.splitlines()) <= 300, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lengths.append(node.end_lineno - node.lineno)
                assert lengths[-1] < 50, f"{node.name} in {path} is longer than 50 lines"
    assert statistics.median(lengths) <= 6


def test_the_wheel_holds_the_package_with_its_data_and_nothing_else(installed: InstalledProject):
    project = installed.project
    in_source = {name.removeprefix("src/") for name in project.files() if name.startswith("src/")}
    in_wheel = set(zipfile.ZipFile(installed.wheel).namelist())
    assert {name for name in in_wheel if ".dist-info/" not in name} == in_source
    assert len([name for name in in_wheel if name.endswith(".gz")]) == 4
    assert any(name.endswith(".md") for name in in_source)
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in in_wheel)


def test_the_installed_command_answers_outside_the_tree_and_offline(installed: InstalledProject, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(NO_NETWORK)
    env = {**installed.env, "PYTHONPATH": f"{tmp_path}:{installed.site}", "CUDA_VISIBLE_DEVICES": ""}
    output = run_ok(installed.project.slug, "--help", cwd=tmp_path, timeout=1800, env=env)
    for command in ("pretrain", "finetune", "evaluate", "predict", "report", "export", "layouts", "doctor"):
        assert command in output
    as_module = run_ok(sys.executable, "-m", installed.project.package, "--help", cwd=tmp_path, timeout=1800, env=env)
    assert "pretrain" in as_module
    where = f"import {installed.project.package} as p; print(p.__file__)"
    found = run_ok(sys.executable, "-c", where, cwd=tmp_path, timeout=1800, env=env)
    assert found.strip().startswith(str(installed.site))
