"""The Dockerfile, as far as it can be followed without an engine."""

from __future__ import annotations

import re
import shlex
import sys

import pytest
from conftest import run_ok


def test_the_dockerfile_copies_what_is_there_and_nothing_that_is_ignored(everything):
    project = everything[0].path
    copied = re.findall(r"^COPY (.+) \S+$", (project / "Dockerfile").read_text(), re.MULTILINE)
    names = {name for line in copied for name in line.split()}
    assert names == {"pyproject.toml", "requirements.lock", "README.md", "src"}
    assert all((project / name).exists() for name in names)
    kept = re.findall(r"^!(.+)$", (project / ".dockerignore").read_text(), re.MULTILINE)
    assert set(kept) == names


@pytest.mark.slow
def test_the_steps_of_the_dockerfile_give_the_command(everything, tmp_path):
    """Without an engine: what is copied, and what is run, in an empty folder; pip finds its dependencies installed."""
    project = everything[0]
    text = (project.path / "Dockerfile").read_text().replace("\\\n", " ")
    site = tmp_path / "site"
    for instruction, arguments in re.findall(r"^(COPY|RUN) (.+)$", text, re.MULTILINE):
        if instruction == "COPY":
            *sources, target = arguments.split()
            (tmp_path / "image" / target).mkdir(parents=True, exist_ok=True)
            for source in sources:
                copied = f"{project.path / source}{'/.' if source == 'src' else ''}"
                run_ok("cp", "-r", copied, target, cwd=tmp_path / "image", timeout=1800)
        elif "apt-get" not in arguments:  # the compiler is the machine's own here
            words = ["-m", "pip", "install", "--no-build-isolation", "--no-deps", "--no-index", "--upgrade", "--target"]
            pip = shlex.join([sys.executable, *words, str(site)])  # either path may have a space
            command = re.sub(r"--mount=\S+", "", arguments).replace("pip install", pip)
            run_ok("sh", "-c", command, cwd=tmp_path / "image", timeout=1800)
    run = (sys.executable, "-m", project.package, "--help")
    assert "pretrain" in run_ok(*run, cwd=tmp_path, timeout=1800, env={"PYTHONPATH": str(site)})
    assert (site / "bin" / project.slug).exists()
