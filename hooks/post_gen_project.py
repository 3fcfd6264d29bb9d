"""Keeps the files of the chosen options, drops the others, and says what to do next.

Runs inside the generated project. Files are chosen here, by name, so that the template needs no conditions inside them.
Running it twice changes nothing, and it touches only files that the template wrote: a project may be updated.
Standard library only, no network, no git.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
from pathlib import Path

ANSWERS_JSON = r"""{{ cookiecutter | tojson }}"""

# question -> choice -> the files that only this choice has; a choice that is not listed has none
FILES = {
    "ci": {
        "github": [".github/workflows/ci.yml", ".github/workflows/versions.yml", ".github/dependabot.yml"],
        "gitlab": [".gitlab-ci.yml"],
    },
    "container": {"docker": ["Dockerfile", ".dockerignore", ".devcontainer/devcontainer.json"]},
    "cluster": {"slurm": ["slurm/train.sbatch"]},
}


def choose_license(project: Path, license_id: str) -> None:
    """LICENSE.<choice> becomes LICENSE, the others go; with 'none' pyproject.toml names no licence either."""
    for candidate in project.glob("LICENSE.*"):
        if candidate.name == f"LICENSE.{license_id}":
            candidate.replace(project / "LICENSE")
        else:
            candidate.unlink()
    if license_id == "none":
        pyproject = project / "pyproject.toml"
        text = pyproject.read_text(encoding="utf-8")
        pyproject.write_text(text.replace('\nlicense = "none"\n', "\n"), encoding="utf-8")


def choose_starter(project: Path, starter: str, package: str) -> None:
    """The chosen model, its tests and configs take their places; other starters go, and what other files included."""
    chosen = project / "starters" / starter
    places = {"model": project / "src" / package / "model", "tests": project / "tests" / "model"}
    for name, place in {**places, "configs": project / "configs"}.items():
        if (chosen / name).is_dir():  # not when run again
            (chosen / name).replace(place)
    for page in chosen.glob("docs/*"):
        page.replace(project / "docs" / page.name)
    shutil.rmtree(project / "starters", ignore_errors=True)


def choose_files(project: Path, answers: dict[str, str]) -> None:
    """The files of choices that were not made go, and a folder that is empty without them."""
    for question, choices in FILES.items():
        for choice, files in choices.items():
            if choice != answers[question]:
                for file in files:
                    remove(project / file, project)


def remove(path: Path, project: Path) -> None:
    """Removes a file, and then its folder, and that one's, up to the project, as long as nothing else is in them."""
    path.unlink(missing_ok=True)
    for folder in path.parents:
        if folder == project or not folder.is_dir() or any(folder.iterdir()):
            break
        folder.rmdir()


def is_update(answers: dict[str, str]) -> bool:
    """Whether cruft compares or updates an existing project, for which it bakes others in temporary folders."""
    return "_commit" in answers and Path(os.environ.get("PWD", ""), ".cruft.json").exists()


def main() -> None:
    """Chooses the files and prints the next steps."""
    answers = json.loads(ANSWERS_JSON)
    project = Path.cwd()
    choose_starter(project, answers["starter"], answers["__package_name"])
    choose_license(project, answers["license"])
    choose_files(project, answers)
    if is_update(answers):
        return
    sys.stdout.reconfigure(errors="backslashreplace")  # a terminal that cannot show the name is no reason to fail
    print(f"""
{answers["project_name"]} is ready. Next:

    cd {shlex.quote(str(project))}
    make setup    # the environment in .venv: a few minutes, about 6 GB
    make train    # pretrain, finetune, evaluate, predict: a few minutes, ends with a report to look at
""")


if __name__ == "__main__":
    main()
