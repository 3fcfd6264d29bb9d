"""The hooks: what they refuse and say, what they keep and drop, and that a second run does no harm."""

from __future__ import annotations

import ast
import importlib.util
import json
import keyword
import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest
from conftest import TEMPLATE, BakedProject, Baker, run

GOOD_SLUGS = ["a", "mnist-megatron", "x2", "my-3d-model", "torch-mnist", "match", "a" * 40]
TAKEN = [
    "torch",
    "nemo",
    "nemo-toolkit",
    "megatron",
    "megatron-core",
    "lightning",
    "numpy",
    "yaml",
    "pytest",
    "ruff",
    "hf",
]
BAD_SLUGS = [
    # slug, what the line says, what it suggests
    ("", "must be lower-case letters", "project"),
    ("My Project", "must be lower-case letters", "my-project"),
    ("my_project", "must be lower-case letters", "my-project"),
    ("1abc", "must be lower-case letters", "project-1abc"),
    ("-xyz", "must be lower-case letters", "xyz"),
    ("xyz-", "must be lower-case letters", "xyz"),
    ("a--b", "must be lower-case letters", "a-b"),
    ("a/b", "must be lower-case letters", "a-b"),
    ("../up", "must be lower-case letters", "up"),
    ("xyz\n", "must be lower-case letters", "xyz"),
    ("café", "must be lower-case letters", "cafe"),
    ("数字", "must be lower-case letters", "project"),
    ("Torch", "must be lower-case letters", "torch-project"),
    ("a" * 41, "is 41 characters long, at most 40 fit", "a" * 40),
    ("class", "would make the package 'class', a Python keyword", "class-project"),
    ("lambda", "would make the package 'lambda', a Python keyword", "lambda-project"),
    ("json", "would make the package 'json', a module of the standard library", "json-project"),
    ("distutils", "would make the package 'distutils', a", "distutils-project"),
    *((name, f"would make the package '{name.replace('-', '_')}', a name that", f"{name}-project") for name in TAKEN),
    ("src", "would make the package 'src', a name that", "src-project"),
    ("tests", "would make the package 'tests', a name that", "tests-project"),
    ("setup", "would make the package 'setup', a name that", "setup-project"),
    ("python", "would make the package 'python', a name that", "python-project"),  # would replace .venv/bin/python
    ("test", "would make the package 'test', a", "test-project"),  # also a module of the standard library
]
ANSWERS = {
    "starter": "mnist",
    "project_name": "P",
    "project_slug": "p",
    "__package_name": "p",
    "description": "D",
    "author": "A",
    "license": "MIT",
    "ci": "none",
    "container": "none",
    "cluster": "none",
    "_template": "the template",
}


def load(name: str):
    """The hook as a module; it does nothing until main() is called."""
    spec = importlib.util.spec_from_file_location(name, TEMPLATE / "hooks" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def with_slug(slug: str) -> dict[str, str]:
    return {**ANSWERS, "project_slug": slug, "__package_name": slug.replace("-", "_")}


PRE, POST = load("pre_gen_project"), load("post_gen_project")


@pytest.mark.parametrize("slug", GOOD_SLUGS)
def test_a_good_slug_passes(slug):
    assert PRE.find_problems(with_slug(slug)) == ([], {})


@pytest.mark.parametrize(("slug", "reason", "suggestion"), BAD_SLUGS, ids=[repr(slug) for slug, *_ in BAD_SLUGS])
def test_a_bad_slug_gets_one_line_and_a_suggestion_that_works(slug, reason, suggestion):
    (line,), mended = PRE.find_problems(with_slug(slug))
    assert line.startswith(f"error: project_slug {slug!r} {reason}")
    assert line.endswith(f"; try '{suggestion}'.")
    assert "\n" not in line
    assert mended == {"project_slug": suggestion}
    assert PRE.find_problems(with_slug(suggestion)) == ([], {})


def test_every_keyword_and_standard_module_is_refused():
    names = [name for name in {*keyword.kwlist, *sys.stdlib_module_names} if PRE.SLUG.fullmatch(name)]
    assert len(names) > 200
    assert [name for name in names if not PRE.slug_problem(name)] == []


@pytest.mark.parametrize("name", sorted(PRE.RESERVED))
def test_the_suggestion_for_a_reserved_name_works(name):
    slug = name.replace("_", "-")
    assert PRE.slug_problem(slug)
    assert PRE.slug_problem(PRE.suggest_slug(slug)) is None


def test_the_command_keeps_checkout_and_folder(monkeypatch):
    monkeypatch.setenv("PWD", "/here")
    answers = {**ANSWERS, "_checkout": "v1", "_output_dir": "/there", "author": "A 'B'"}
    command = PRE.again(answers, {"project_slug": "q"})
    assert command.startswith("cookiecutter 'the template' --checkout v1 --output-dir /there --no-input ")
    assert "project_slug=q" in command
    assert "author=A 'B'" in shlex.split(command)
    assert "--output-dir" not in PRE.again({**answers, "_output_dir": "/here"}, {})


def test_a_person_sees_the_problem_first_and_then_the_command(baker: Baker, tmp_path):
    result = baker.command(tmp_path, "project_slug=torch")
    assert result.status != 0
    lines = result.output.splitlines()
    assert lines[0] == ""
    assert lines[1].startswith("error: project_slug 'torch' would make the package 'torch', a name that")
    assert lines[2].startswith("Nothing was written")
    assert lines[3].startswith("    cookiecutter ")
    assert lines[4] == ""
    assert list(tmp_path.iterdir()) == []


def test_a_good_run_prints_the_next_steps_and_nothing_else(baker: Baker, tmp_path):
    result = baker.command(tmp_path)
    assert result.status == 0, result.output
    expected = f"""
MNIST Megatron is ready. Next:

    cd {shlex.quote(str(tmp_path / "mnist-megatron"))}
    make setup    # the environment in .venv: a few minutes, about 6 GB
    make train    # pretrain, finetune, evaluate, predict: a few minutes, ends with a report to look at

"""
    assert result.output == expected


def run_post_hook(project: BakedProject, monkeypatch, **answers: str) -> None:
    monkeypatch.setattr(POST, "ANSWERS_JSON", json.dumps({**ANSWERS, **answers}))
    monkeypatch.chdir(project.path)
    POST.main()


@pytest.mark.parametrize(
    "answers", [{"license": "Apache-2.0", "ci": "github", "container": "docker"}, {"license": "none", "ci": "none"}]
)
def test_the_post_hook_run_again_changes_nothing(baker: Baker, tmp_path, monkeypatch, answers):
    project = baker.bake(tmp_path, **answers)
    before = project.files()
    run_post_hook(project, monkeypatch, **answers)
    assert project.files() == before


def test_the_post_hook_leaves_the_users_own_files(baker: Baker, tmp_path, monkeypatch):
    project = baker.bake(tmp_path, license="none", ci="none")
    workflows = project.path / ".github" / "workflows"
    workflows.mkdir(parents=True)
    own = [project.path / "LICENSE", workflows / "release.yml"]
    for path in own:
        path.write_text("mine")
    run_post_hook(project, monkeypatch, license="none", ci="none")
    assert [path.read_text() for path in own] == ["mine", "mine"]


def test_without_hooks_make_and_the_command_say_so(baker: Baker, tmp_path):
    assert baker.command(tmp_path, "--accept-hooks", "no", "project_slug=p").status == 0
    mend = "generate it again without --accept-hooks no"
    for target in ("setup", "train", "check"):
        make = run("make", target, cwd=tmp_path / "p", timeout=1800)
        assert make.status == 2
        [line] = make.output.splitlines()
        assert "generated without its hooks" in line and mend in line
    command = run(sys.executable, "-m", "p", "pretrain", cwd=tmp_path / "p", timeout=1800, env={"PYTHONPATH": "src"})
    assert command.status == 2
    [line] = command.output.splitlines()
    assert "there is no model/ in" in line and mend in line


def test_what_was_there_before_stays(baker: Baker, tmp_path):
    """As in a new repository, with a licence and a test, into which a project is generated."""
    own = {"LICENSE": "mine", "configs/full-pretrain.yaml": "mine", "tests/model/tiny.py": "mine", "README.md": "mine"}
    for name, text in own.items():
        (tmp_path / "p" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "p" / name).write_text(text)
    result = baker.command(tmp_path, "project_slug=p", "--overwrite-if-exists", "--skip-if-file-exists")
    assert result.status == 0, result.output
    project, other = BakedProject(tmp_path / "p"), baker.bake(tmp_path / "other", project_slug="p")
    assert project.files() == {**other.files(), **{name: text.encode() for name, text in own.items()}}
    line = "Kept what was there before, which the template has otherwise: "
    assert f"\n{line}LICENSE, configs/full-pretrain.yaml, tests/model/tiny.py\n" in f"\n{result.output}"


def test_a_file_that_was_there_before_and_is_the_same_is_no_news(baker: Baker, tmp_path):
    project = baker.bake(tmp_path, project_slug="p")
    before = project.files()
    for path in sorted(project.path.iterdir()):
        if path.name in ("src", ".github"):
            shutil.rmtree(path)
    result = baker.command(tmp_path, "project_slug=p", "-f", "-s")
    assert result.status == 0 and "Kept" not in result.output, result.output
    assert project.files() == before


@pytest.mark.parametrize("name", PRE.OVERWRITTEN)
def test_a_folder_where_changes_would_be_lost_is_refused(name, baker: Baker, tmp_path):
    own = tmp_path / "p" / name.format(package="p") / "mine"
    own.parent.mkdir(parents=True)
    own.write_text("mine")
    result = baker.command(tmp_path, "project_slug=p", "-f", "-s")
    assert result.status != 0
    lines = result.output.splitlines()
    what = f"{tmp_path / 'p'} already has {name.format(package='p')}: your changes there would be lost."
    assert lines[1] == f"error: {what}"
    assert lines[2].startswith("Nothing was written")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [own]


def test_every_file_that_the_post_hook_may_remove_is_refused_where_it_is_there_before():
    removed = {file for choices in POST.FILES.values() for files in choices.values() for file in files}
    assert set(PRE.OVERWRITTEN) == removed | {"src/{package}", "starters"}


@pytest.mark.parametrize("hook", sorted((TEMPLATE / "hooks").glob("*.py")), ids=lambda path: path.stem)
def test_hooks_can_reach_neither_network_nor_other_programs(hook: Path):
    tree = ast.parse(hook.read_text())
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    allowed = "__future__ json keyword os pathlib re shlex shutil sys unicodedata"
    assert imported <= set(allowed.split())
    assert not re.search(r"os\.(system|popen|exec|spawn|fork)|__import__", hook.read_text())
