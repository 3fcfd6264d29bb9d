"""The generated project's docs/make-it-yours.md, done as it says: every block applied, every command run, in order."""

from __future__ import annotations

import ast
import csv
import json
import os
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import TEMPLATE, BakedProject, run_ok

PAGE = "docs/make-it-yours.md"
BIN = Path(sys.executable).parent
MNISTS_OWN = [f"tests/test_{name}.py" for name in ("data", "figures", "losses", "model", "config", "export")]
# Of the tests that the page leaves alone, those that show the new network split, stopped, and its figures logged.
SOME_SLOW_TESTS = (
    "tests/test_layouts.py::test_every_layout_trains_to_the_figures_and_weights_of_one_process[all at once]",
    "tests/test_layouts.py::test_every_layout_finetunes_from_the_weights_that_another_saved[pipeline 2]",
    "tests/test_layouts.py::test_every_layout_scores_and_predicts_every_item_once_in_order[sequence 2]",
    "tests/test_layouts.py::test_what_breaks_a_layout_is_noticed[norms not summed-sequence 2]",
    "tests/test_layouts.py::test_what_breaks_a_layout_is_noticed[start weights in turn-pipeline 2]",
    "tests/test_resume.py::test_a_run_stopped_at_any_step_and_resumed_ends_bit_for_bit_as_the_whole_one[sequence 2-7]",
    "tests/test_training.py::test_bar_and_tensorboard_show_each_figure_at_its_step",
)


@dataclass(frozen=True)
class Block:
    """A code block of the page: its language, its text, and where the line above it says that it goes."""

    language: str
    text: str
    file: str = ""
    place: str = ""


def blocks(page: str) -> Iterator[Block]:
    """Yield the blocks in order; one without a line of its own goes where the last one went."""
    file = place = ""
    for lead, language, text in re.findall(r"(?:^(\*\*`.+?)\n\n)?^```(\w+)\n(.*?)^```$", page, re.M | re.S):
        if lead:
            file, place = re.fullmatch(r"\*\*`([^`]+)`\*\*, (.+):", lead, re.S).groups()
        yield Block(language, text, file, place)


def apply(block: Block, project: Path) -> None:
    """Change one file as the page says."""
    path = project / block.file
    if block.language == "python" and block.place == "the whole file":
        path.write_text(block.text)
    elif block.language == "python" and block.place.startswith("instead of "):
        path.write_text(instead_of(re.findall("`(.+?)`", block.place), block.text, path.read_text()))
    elif block.language == "diff":
        path.write_text(patched(block.text, path.read_text()))
    else:
        pytest.fail(f"nobody would know where this goes: {block}")


def instead_of(names: list[str], text: str, source: str) -> str:
    """Put `text` in the place of the first of these functions, classes and constants, and take the others out."""
    lines = source.splitlines(keepends=True)
    body = ast.parse(source).body
    spans = {}
    for node, after in zip(body, [*body[1:], None], strict=True):
        assigned = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", node)]
        name = getattr(assigned[0], "id", getattr(node, "name", None))
        start = min([node.lineno, *(decorator.lineno for decorator in getattr(node, "decorator_list", []))])
        is_described = isinstance(after, ast.Expr) and not hasattr(node, "name")  # the docstring of a constant
        spans[name] = (start - 1, after.end_lineno if is_described else node.end_lineno)
    assert set(names) <= set(spans), f"{set(names) - set(spans)} is not in the file"
    places = sorted(spans[name] for name in names)
    for start, stop in places[:0:-1]:
        del lines[start:stop]
    start, stop = places[0]
    lines[start:stop] = [text]
    return "".join(lines)


def patched(diff: str, source: str) -> str:
    """Replace the lines with a minus by those with a plus; they must be there, once."""
    old, new = ("".join(line[1:] for line in diff.splitlines(keepends=True) if line[0] != sign) for sign in "+-")
    assert f"\n{source}".count(f"\n{old}") == 1, f"not once in the file:\n{old}"
    return f"\n{source}".replace(f"\n{old}", f"\n{new}")[1:]


@pytest.fixture(scope="module")
def environment(default_project: BakedProject, tmp_path_factory) -> dict[str, str]:
    """What a person's environment has on the PATH, which these tests have elsewhere."""
    folder = tmp_path_factory.mktemp("bin")
    commands = {
        "python": f'"{sys.executable}" "$@"',
        "ruff": f'"{BIN / "ruff"}" "$@"',
        "make": f'"{shutil.which("make")}" -o setup VENV="{BIN.parent}" "$@"',
        default_project.slug: f'"{sys.executable}" -m {default_project.package} "$@"',
    }
    for name, words in commands.items():
        (folder / name).write_text(f"#!/bin/sh\nexec {words}\n")
        (folder / name).chmod(0o755)
    return {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}", "MYPY_CACHE_DIR": str(TEMPLATE / ".mypy_cache")}


@pytest.fixture(scope="module")
def walked(default_project: BakedProject, environment, tmp_path_factory) -> Path:
    """A project in which somebody has followed the page from the first to the last block."""
    project = tmp_path_factory.mktemp("walk") / default_project.slug
    shutil.copytree(default_project.path, project)
    environment["PYTHONPATH"] = str(project / "src")
    for block in blocks((project / PAGE).read_text(encoding="utf-8")):
        if "make check" in block.text:
            (project / "data").rename(project / "out-of-git")  # a clone has no data/, and must pass its tests
        if block.language == "bash":
            run_ok("bash", "-euo", "pipefail", "-c", block.text, cwd=project, timeout=600, env=environment)
        else:
            apply(block, project)
    return project


slow = pytest.mark.slow
long = pytest.mark.timeout(1500)  # the first test waits for the walk, which takes minutes


@slow
@long
def test_the_loss_falls_and_the_answers_are_far_from_guessing(walked: Path):
    with (walked / "runs" / "pretrain" / "metrics.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["val_loss"]]
    assert float(rows[-1]["val_loss"]) < 0.5 * float(rows[0]["val_loss"])
    scores = json.loads((walked / "runs" / "pretrain" / "evaluation.json").read_text())
    assert scores["test_accuracy"] > 0.8  # of eight classes
    assert scores["test_error"] < 0.2  # volts; always saying the mean is 0.375 off
    assert scores["num_items"] == 1_012


@slow
@long
def test_every_wave_is_predicted_once_in_order(walked: Path):
    with (walked / "runs" / "pretrain" / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["idx", "label", "prediction", "probability", "amplitude", "true_amplitude"]
    assert [int(row["idx"]) for row in rows] == list(range(1_012))
    accuracy = sum(row["label"] == row["prediction"] for row in rows) / len(rows)
    scores = json.loads((walked / "runs" / "pretrain" / "evaluation.json").read_text())
    assert accuracy == pytest.approx(scores["test_accuracy"], abs=0.002)
    assert {float(row["amplitude"]) > 1 for row in rows} == {True, False}
    off = sum(abs(float(row["amplitude"]) - float(row["true_amplitude"])) for row in rows) / len(rows)
    assert off == pytest.approx(scores["test_error"], abs=1e-3)


@slow
@long
def test_the_report_shows_what_there_is_and_no_pictures_of_items(walked: Path):
    shown = {path.name for path in (walked / "runs" / "pretrain" / "report").iterdir()}
    curves, answers = {"loss.png", "accuracy.png", "error.png"}, {"confusion.png", "predicted_amplitude.png"}
    assert shown == {"index.html", "latent.png", *curves, *answers}
    assert "test error" in (walked / "runs" / "pretrain" / "report" / "index.html").read_text(encoding="utf-8")


@slow
@long
def test_the_network_trains_the_same_however_it_is_split(walked: Path):
    proof = json.loads((walked / "layouts.json").read_text())
    assert proof["holds"] and proof["network"] == "waves" and proof["left_out"] == {}
    assert {row["layout"] for row in proof["layouts"]} == {
        *("one process", "data 2", "tensor 2", "tensor 2, sequence", "pipeline 2", "pipeline 2 x 2 virtual"),
    }


@slow
@long
def test_slow_tests_of_the_project_hold_unchanged(walked: Path, environment):
    command = (sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *SOME_SLOW_TESTS)
    output = run_ok(*command, cwd=walked, timeout=600, env=environment)
    assert f"{len(SOME_SLOW_TESTS)} passed" in output


@slow
@long
def test_no_source_speaks_of_mnist_any_more(walked: Path):
    sources = {path.name: path.read_text(encoding="utf-8").lower() for path in (walked / "src").rglob("*.py")}
    assert sources and not [name for name, text in sources.items() if "mnist" in text]
    for name in ("README.md", "Makefile", "pyproject.toml", ".gitignore"):
        text = (walked / name).read_text(encoding="utf-8")
        assert not re.search("60,000|configs/full|torchvision|Yann", text), name


def test_the_page_takes_out_only_tests_of_mnist(default_project: BakedProject):
    page = (default_project.path / PAGE).read_text(encoding="utf-8")
    removed = re.findall(r"tests/test_\w+\.py", " ".join(re.findall(r"^rm .*$", page, re.MULTILINE)))
    assert removed == MNISTS_OWN


def test_a_block_that_does_not_fit_is_noticed(tmp_path: Path):
    (tmp_path / "a.py").write_text("A = 1\n")
    for block in (
        Block("diff", "-B = 1\n+B = 2\n", "a.py", "a line"),
        Block("python", "B = 2\n", "a.py", "instead of `B`"),
    ):
        with pytest.raises(AssertionError, match="in the file"):
            apply(block, tmp_path)
    with pytest.raises(pytest.fail.Exception, match="nobody would know"):
        apply(Block("python", "B = 2\n", "a.py", "somewhere"), tmp_path)


def test_a_definition_is_replaced_whole():
    source = 'A = 1\n"""One."""\n\nB = 2\n"""Two."""\n\n\n@dataclass\nclass C:\n    """C."""\n\n\ndef f():\n    pass\n'
    assert instead_of(["A"], "X\n", source).startswith("X\n\nB = 2\n")
    assert instead_of(["C", "B"], "X\n", source) == 'A = 1\n"""One."""\n\nX\n\n\n\n\ndef f():\n    pass\n'
