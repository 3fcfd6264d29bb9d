"""Keeps the files of the chosen options, drops the others, and says what to do next.

Runs inside the generated project. Files are chosen here, by name, so that the template needs no conditions inside them.
Running it twice changes nothing, and it touches only files that the template wrote: a project may be updated, and what
was in its folder before (--overwrite-if-exists) stays.
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


def move(source: Path, place: Path) -> list[Path]:
    """Moves a file, or each of a folder's; returns those that differ from one that is there already, which stays."""
    if source.is_dir():
        return [kept for each in sorted(source.iterdir()) for kept in move(each, place / each.name)]
    if place.exists():
        differs = place.is_dir() or place.read_bytes() != source.read_bytes()
        source.unlink()
        return [place] if differs else []
    place.parent.mkdir(parents=True, exist_ok=True)
    source.replace(place)
    return []


def choose_license(project: Path, license_id: str) -> list[Path]:
    """LICENSE.<choice> becomes LICENSE, the others go; with 'none' pyproject.toml names no licence either."""
    chosen = project / f"LICENSE.{license_id}"
    kept = move(chosen, project / "LICENSE") if chosen.exists() else []  # not when run again
    for candidate in project.glob("LICENSE.*"):
        candidate.unlink()
    if license_id == "none":
        pyproject = project / "pyproject.toml"
        text = pyproject.read_text(encoding="utf-8")
        pyproject.write_text(text.replace('\nlicense = "none"\n', "\n"), encoding="utf-8")
    return kept


def choose_starter(project: Path, starter: str, package: str) -> list[Path]:
    """The chosen model, its tests and configs take their places; other starters go, and what other files included."""
    chosen = project / "starters" / starter
    places = {
        "model": project / "src" / package / "model",
        "tests": project / "tests" / "model",
        "configs": project / "configs",
        "docs": project / "docs",
    }
    kept = [path for name, place in places.items() if (chosen / name).is_dir() for path in move(chosen / name, place)]
    shutil.rmtree(project / "starters", ignore_errors=True)
    return kept


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
    kept = choose_starter(project, answers["starter"], answers["__package_name"])
    kept += choose_license(project, answers["license"])
    choose_files(project, answers)
    if is_update(answers):
        return
    sys.stdout.reconfigure(errors="backslashreplace")  # a terminal that cannot show the name is no reason to fail
    if kept:
        names = ", ".join(sorted(path.relative_to(project).as_posix() for path in kept))
        print(f"Kept what was there before, which the template has otherwise: {names}")
    print(f"""
{answers["project_name"]} is ready. Next:

    cd {shlex.quote(str(project))}
    make setup    # the environment in .venv: a few minutes, about 6 GB
    make train    # pretrain, finetune, evaluate, predict: a few minutes, ends with a report to look at
""")


if __name__ == "__main__":
    main()
