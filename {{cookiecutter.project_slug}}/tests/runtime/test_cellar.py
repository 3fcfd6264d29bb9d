"""runtime/README.md: it has a row for everything that is here, and every row is true."""

import ast
import re
from importlib.util import find_spec
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

import {{cookiecutter.__package_name}} as package

RUNTIME = Path(package.__file__).parent / "runtime"
README = (RUNTIME / "README.md").read_text(encoding="utf-8")
HERE = Path(__file__).parent
TESTS = HERE.parent
ROWS = [[cell.strip("| ") for cell in line.split(" | ")] for line in README.splitlines() if line.startswith("| `")]


def test_readme_has_a_row_for_everything_that_is_here() -> None:
    sections = dict(re.findall(r"^## `(\w+\.py)`.*?\n(.*?)(?=^## |\Z)", README, re.MULTILINE | re.DOTALL))
    files = {path.name: path for path in RUNTIME.glob("*.py") if path.name != "__init__.py"}
    assert sections.keys() == files.keys()
    for name, path in files.items():
        told = set(re.findall(rf"`(?:{path.stem}\.)?([\w.]+)`", sections[name]))
        assert public_names(path) - told == set(), f"{name}: not in its section of README.md"


def public_names(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    kinds = (ast.FunctionDef, ast.ClassDef)
    top = [node for node in tree.body if isinstance(node, kinds)]
    methods = {
        f"{node.name}.{inner.name}"
        for node in top
        if isinstance(node, ast.ClassDef)
        for inner in node.body
        if isinstance(inner, kinds)
    }
    return {name for name in {node.name for node in top} | methods if not re.search(r"(^|\.)_", name)}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0].strip("`"))
def test_readme_row_names_what_exists(row: list[str]) -> None:
    here, _, upstream, red = row
    sources = {path.stem: path.read_text(encoding="utf-8") for path in RUNTIME.glob("*.py")}
    for code in re.findall(r"`([\w.]+)", here):
        room, _, name = code.rpartition(".")
        assert re.search(rf"\b{name}\b", sources.get(room, "".join(sources.values()))), f"{code} is not in runtime/"
    for path in re.findall(r"`(\w+/[\w/]+\.py)`", upstream):
        root = find_spec(path.split("/")[0])
        folders = list(root.submodule_search_locations or []) if root else []
        assert any((Path(folder).parent / path).is_file() for folder in folders), f"{path} is not installed"
    assert re.search(r"`test_\w+`", red), "which test says that it can go?"


def test_readme_names_tests_that_exist() -> None:
    code = "".join(path.read_text(encoding="utf-8") for path in TESTS.rglob("test_*.py"))
    assert not {name for name in re.findall(r"`(test_\w+)`", README) if f"def {name}(" not in code}


def test_readme_has_a_row_for_every_canary() -> None:
    code = "".join(path.read_text(encoding="utf-8") for path in HERE.glob("test_*.py"))
    canaries = re.findall(r"def (test_canary_\w+)\(", code)
    assert canaries and not {name for name in canaries if not any(f"`{name}`" in row[-1] for row in ROWS)}


def test_readme_says_how_to_run_these_tests() -> None:
    assert f"    python -m pytest {HERE.relative_to(TESTS.parent)}\n" in README


def test_readme_was_measured_with_versions_that_are_allowed() -> None:
    project = (TESTS.parent / "pyproject.toml").read_text(encoding="utf-8")
    allowed = dict(re.findall(r'"(nemo-toolkit|megatron-core|lightning|torch)(?:\[\w+\])?([<>=][^"]+)"', project))
    seen = re.search(r"was seen with (.*?)\.\s", README, re.DOTALL)
    assert seen and len(allowed) == 4
    for name, versions in re.findall(r"([a-z-]+) (\d[\d.]+(?: and \d[\d.]+)*)", seen[1]):
        fitting = SpecifierSet(allowed.pop(name))
        assert all(version in fitting for version in versions.split(" and "))
    assert not allowed
