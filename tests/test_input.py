"""Any answer to any question: a correct project, or one clear line with a suggestion and a command that works.

The answers come as they do from a person: typed at the prompts, on the command line, from a user's configuration or
from a replay file. Most are baked in this process; the hooks run as they always do, in processes of their own.
"""

from __future__ import annotations

import io
import json
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hatchling.build
import pytest
import yaml
from answers import ACCEPTED, BAD_SLUGS, BAD_VALUES, GOOD_SLUGS, MARKS, REFUSED, TEXTS, check_texts, typed
from conftest import PLAIN, TEMPLATE, BakedProject, Baker, run_ok
from cookiecutter.exceptions import FailedHookException, OutputDirExistsException
from cookiecutter.main import cookiecutter
from packaging.metadata import Metadata, parse_email
from test_hooks import PRE

LICENSES = ("MIT", "BSD-3-Clause", "Apache-2.0")


@dataclass(frozen=True)
class Refusal:
    """What a person reads whose answers are refused."""

    lines: list[str]
    command: str

    @property
    def answers(self) -> dict[str, str]:
        """Those that the command gives, as a shell reads it."""
        return dict(word.split("=", 1) for word in shlex.split(self.command) if "=" in word)


def read_refusal(output: str) -> Refusal:
    """The lines about answers, and the command to paste."""
    lines = output.splitlines()
    (command,) = (line.strip() for line in lines if line.startswith("    cookiecutter "))
    return Refusal([line for line in lines if line.startswith("error: ")], command)


def refused(bake: Callable[[], object], folder: Path, capfd) -> Refusal:
    """Bakes what must be refused, and looks for what was left of it."""
    with pytest.raises(FailedHookException):
        bake()
    output = capfd.readouterr().err
    assert "Traceback" not in output
    assert [path for path in folder.rglob("*") if path.is_file()] == []
    return read_refusal(output)


def check_refusal(refusal: Refusal, value: object, reason: str, suggestion: str, *keys: str) -> None:
    """A line for each of these answers says what is wrong; the command gives what it suggests, which is accepted."""
    assert len(refusal.lines) == len(keys)
    for key, line in zip(keys, refusal.lines, strict=True):
        assert line.startswith(f"error: {key} {PRE.shown(value)} {reason}")
        assert line.endswith(f"; try {PRE.shown(suggestion)}.")
        assert len(line) < 400
        assert refusal.answers[key] == suggestion
    package = refusal.answers["project_slug"].replace("-", "_")
    assert PRE.find_problems({**refusal.answers, "__package_name": package}) == ([], {})


def check_metadata(project: BakedProject, folder: Path, monkeypatch, description: str, author: str) -> None:
    """The build backend takes the project, and the packaging library takes what it writes."""
    monkeypatch.chdir(project.path)
    written = folder / hatchling.build.prepare_metadata_for_build_wheel(str(folder)) / "METADATA"
    fields, unknown = parse_email(written.read_bytes())
    assert not unknown
    fields["metadata_version"] = "2.4"  # hatchling may write a newer one than packaging knows
    read = Metadata.from_raw(fields, validate=True)
    assert (read.name, read.summary, read.author) == (project.slug, description, author)


@pytest.fixture(scope="module")
def replay(baker: Baker, tmp_path_factory) -> dict[str, Any]:
    """What cookiecutter saved of the answers of the plain project."""
    baker.bake(tmp_path_factory.mktemp("replay"), **PLAIN)
    (saved,) = (baker.config.parent / "own").glob("*.json")
    return json.loads(saved.read_text())


@pytest.fixture
def bake_replay(baker: Baker, replay, tmp_path) -> Callable[..., str]:
    """Bakes from a replay file: the plain project's, with some answers changed."""

    def bake(folder: Path, **changes: object) -> str:
        file = tmp_path / "answers.json"
        file.write_text(json.dumps({**replay, "cookiecutter": {**replay["cookiecutter"], **changes}}))
        config = str(baker.config)
        return cookiecutter(str(baker.template), replay=str(file), output_dir=str(folder), config_file=config)

    return bake


@pytest.fixture
def folder(tmp_path) -> Path:
    """An empty folder to bake into."""
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


@pytest.mark.parametrize("row", range(len(ACCEPTED)), ids=list(ACCEPTED))
def test_a_text_is_taken_as_it_is(baker: Baker, plain_project, folder, monkeypatch, row):
    """Each text is a name, beside two others, then a description, then an author."""
    name, description, author = (list(ACCEPTED.values())[(row + shift) % len(ACCEPTED)] for shift in range(3))
    answers = {"project_name": typed(name), "description": typed(description), "author": typed(author)}
    project = baker.bake(folder, project_slug="p", license=LICENSES[row % 3], **answers)
    check_texts(project, plain_project, name, description, author)
    check_metadata(project, folder, monkeypatch, description, author)


@pytest.mark.parametrize(("text", "reason", "suggestion"), REFUSED.values(), ids=list(REFUSED))
def test_a_text_is_refused_with_a_suggestion_wherever_it_is(baker: Baker, folder, capfd, text, reason, suggestion):
    answers = dict.fromkeys(TEXTS, typed(text))
    refusal = refused(lambda: baker.bake(folder, project_slug="p", **answers), folder, capfd)
    check_refusal(refusal, text.replace("\r", "\n"), reason, suggestion, *TEXTS)  # Jinja has one kind of line end


@pytest.mark.parametrize("slug", GOOD_SLUGS)
def test_a_slug_makes_files_that_parse(baker: Baker, folder, monkeypatch, slug):
    project = baker.bake(folder, project_slug=slug, description="D", author="A")
    assert project.package.isidentifier()
    for name, content in project.files().items():
        if name.endswith((".yml", ".yaml")):
            yaml.safe_load(content)
        elif name.endswith(".py"):
            compile(content, name, "exec")
    assert project.pyproject["project"]["scripts"] == {slug: f"{project.package}.__main__:main"}
    check_metadata(project, folder, monkeypatch, "D", "A")


@pytest.mark.parametrize(("slug", "reason", "suggestion"), BAD_SLUGS.values(), ids=list(BAD_SLUGS))
def test_a_slug_is_refused_with_a_suggestion(baker: Baker, folder, capfd, slug, reason, suggestion):
    refusal = refused(lambda: baker.bake(folder, project_slug=typed(slug)), folder, capfd)
    check_refusal(refusal, slug, reason, suggestion, "project_slug")


@pytest.mark.parametrize("slug", ["", ".", "p" * 256, "a\0b"], ids=["empty", "dot", "too-long-for-a-file", "nul"])
def test_cookiecutter_itself_refuses_what_can_be_no_new_folder(baker: Baker, folder, slug):
    """It makes the folder before it asks the hook."""
    with pytest.raises((OutputDirExistsException, OSError, ValueError)):
        baker.bake(folder, project_slug=slug)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(("name", "suggestion"), [("Torch", "torch-project"), ("3D Model", "project-3d-model")])
def test_a_name_whose_slug_cannot_be_gets_another_slug(baker: Baker, folder, capfd, name, suggestion):
    refusal = refused(lambda: baker.bake(folder, project_name=name), folder, capfd)
    assert refusal.answers["project_name"] == name
    assert refusal.answers["project_slug"] == suggestion


@pytest.mark.parametrize(
    ("key", "value", "reason", "suggestion"), BAD_VALUES, ids=[f"{k}={v}" for k, v, *_ in BAD_VALUES]
)
def test_a_value_from_a_replay_file_is_refused(bake_replay, folder, capfd, key, value, reason, suggestion):
    refusal = refused(lambda: bake_replay(folder, **{key: value}), folder, capfd)
    check_refusal(refusal, value, reason, suggestion, key)


def test_a_replay_file_gives_the_same_project_again(bake_replay, plain_project, folder):
    assert BakedProject(Path(bake_replay(folder))).files() == plain_project.files()


def test_a_replay_file_with_another_slug_is_refused_for_it_names_the_old_package(bake_replay, folder, capfd):
    refusal = refused(lambda: bake_replay(folder, project_slug="q"), folder, capfd)
    assert refusal.lines == ["error: __package_name 'p' is not that of the project_slug; leave it out."]
    assert refusal.answers["project_slug"] == "q"


def test_every_wrong_answer_has_its_line_and_one_command_mends_them_all(bake_replay, folder, capfd):
    wrong = {"project_name": "", "project_slug": "class", "description": " ", "author": "a\0", "license": 1, "ci": 2}
    refusal = refused(lambda: bake_replay(folder, **wrong), folder, capfd)
    assert [line.split()[1] for line in refusal.lines] == list(wrong)
    assert PRE.find_problems({**refusal.answers, "__package_name": "class_project"}) == ([], {})


def configured(baker: Baker, folder: Path, **defaults: object) -> BakedProject:
    """Bakes with the defaults of a user's own configuration."""
    config = folder.parent / "config.yaml"
    config.write_text(yaml.safe_dump({**yaml.safe_load(baker.config.read_text()), "default_context": defaults}))
    path = cookiecutter(str(baker.template), no_input=True, output_dir=str(folder), config_file=str(config))
    return BakedProject(Path(path))


def test_a_users_configuration_gives_text_numbers_and_choices(baker: Baker, plain_project, folder):
    mine = {
        "project_name": 3,
        "project_slug": "p",
        "description": ["first", "second"],
        "author": "Zoë",
        "license": "MIT",
    }
    check_texts(configured(baker, folder, **mine), plain_project, "3", "first", "Zoë")


@pytest.mark.parametrize(("value", "suggestion"), [(True, "True"), (None, "Unnamed")])
def test_a_users_configuration_is_refused_like_any_answer(baker: Baker, folder, capfd, value, suggestion):
    refusal = refused(lambda: configured(baker, folder, author=value), folder, capfd)
    check_refusal(refusal, value, "must be text", suggestion, "author")


def test_a_choice_that_there_is_not_is_cookiecutters_to_refuse(baker: Baker, folder):
    """The hook is not asked: on the command line an error that lists the choices, in a configuration a warning."""
    with pytest.raises(ValueError, match=r"GPL provided for choice variable license, but the choices are \['Apache"):
        baker.bake(folder, license="GPL")
    assert list(folder.iterdir()) == []
    with pytest.warns(UserWarning, match="GPL provided for choice variable license"):
        project = configured(baker, folder, license="GPL")
    assert project.pyproject["project"]["license"] == "Apache-2.0"


def test_a_question_that_there_is_not_is_ignored(baker: Baker, default_project, folder):
    """So does cookiecutter, without a word to the hook; the README says so."""
    assert baker.bake(folder, licence="MIT").files() == default_project.files()


def test_the_hook_knows_the_questions_and_choices():
    asked = json.loads((TEMPLATE / "cookiecutter.json").read_text(encoding="utf-8"))
    asked = {key: value for key, value in asked.items() if not key.startswith("_")}
    assert set(asked) == set(PRE.QUESTIONS)
    assert {key: tuple(value) for key, value in asked.items() if isinstance(value, list)} == PRE.CHOICES


def typing(baker: Baker, folder: Path, monkeypatch, *answers: str) -> str:
    """Bakes with answers typed at the prompts."""
    monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{answer}\n" for answer in answers)))
    return cookiecutter(str(baker.template), output_dir=str(folder), config_file=str(baker.config))


def test_what_is_typed_at_the_prompts_is_taken_as_it_is(baker: Baker, plain_project, folder, monkeypatch):
    text = '"\\ `$(touch harm)` {x} <!--'
    path = typing(
        baker, folder, monkeypatch, "", text, "p", f"  {text} ", text, "2", "", "", ""
    )  # rich strips the spaces
    check_texts(BakedProject(Path(path)), plain_project, text, text, text)


def test_braces_typed_at_a_prompt_are_refused(baker: Baker, folder, monkeypatch, capfd):
    refusal = refused(
        lambda: typing(baker, folder, monkeypatch, "", "", "", "{{ x }}", "", "", "", "", ""), folder, capfd
    )
    check_refusal(refusal, "{{ x }}", MARKS, "{ { x }}", "description")


@pytest.mark.parametrize(
    "wrong",
    [
        {"project_slug": "torch", "description": ACCEPTED["shell"]},
        {"project_slug": "$(touch harm)", "author": ACCEPTED["command-substitution"]},
        {"author": " x", "project_name": ACCEPTED["single-quote"], "description": ACCEPTED["backslash-quote"]},
        {"author": typed("{{ x }}"), "project_name": ACCEPTED["emoji"], "description": ACCEPTED["hash"]},
        {"description": "two\nlines", "author": ACCEPTED["three-single-quotes"], "license": "none", "ci": "none"},
    ],
    ids=["shell", "command-substitution", "quotes", "braces", "lines"],
)
def test_the_command_can_be_pasted_into_any_shell(baker: Baker, folder, wrong):
    result = baker.command(folder, *(f"{key}={value}" for key, value in wrong.items()))
    assert result.status != 0
    refusal = read_refusal(result.output)
    pasted = refusal.command.replace("cookiecutter", f"{shlex.quote(sys.executable)} -m cookiecutter", 1)
    run_ok("sh", "-c", pasted, cwd=folder, timeout=1800, env={"COOKIECUTTER_CONFIG": str(baker.config)})
    (path,) = folder.iterdir()  # nothing was touched by a substitution
    pyproject = BakedProject(path).pyproject["project"]
    answers = refusal.answers
    assert (path.name, pyproject["description"]) == (answers["project_slug"], answers["description"])
    assert pyproject["authors"] == [{"name": answers["author"]}]
    assert pyproject.get("license", "none") == answers["license"] == wrong.get("license", "Apache-2.0")


@pytest.mark.slow
def test_the_projects_tests_do_not_take_its_name_for_a_command(baker: Baker, folder):
    name, description = "x: p destroy --everything", "make war, not `src/love.py`"
    project = baker.bake(folder, project_name=name, project_slug="p", description=description)
    words = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/test_readme.py")
    env = {"PYTHONPATH": str(project.path / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
    run_ok(sys.executable, *words, cwd=project.path, timeout=1800, env=env)


def test_a_terminal_that_cannot_show_the_name_is_no_reason_to_fail(baker: Baker, folder):
    words = ("-m", "cookiecutter", baker.template, "--no-input", "project_name=🚀", "project_slug=p")
    env = {"COOKIECUTTER_CONFIG": str(baker.config), "PYTHONIOENCODING": "ascii"}
    assert "\\U0001f680 is ready" in run_ok(sys.executable, *words, cwd=folder, timeout=1800, env=env)
    assert (folder / "p" / "README.md").read_text(encoding="utf-8").startswith("# 🚀\n")
