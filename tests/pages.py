"""What the generated project's pages tell a person to do, read from them and done."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import TEMPLATE, BakedProject, run_ok


@dataclass(frozen=True)
class Block:
    """A code block of a page: its language, its text, and the file that the line above it names."""

    language: str
    text: str
    file: str = ""


def blocks(page: Path) -> Iterator[Block]:
    """Yield the blocks in order; one without a line of its own is of the same file as the last one."""
    file = ""
    text = page.read_text(encoding="utf-8")
    for lead, language, code in re.findall(r"(?:^(\*\*`.+?)\n\n)?^```(\w+)\n(.*?)^```$", text, re.M | re.S):
        if lead:
            [file] = re.findall(r"^\*\*`([^`]+)`\*\*, of it\b", lead)
        yield Block(language, code, file)


def commands(page: Path, heading: str) -> str:
    """Return the commands under a heading, a line each, without what is said behind them."""
    [under] = re.findall(rf"^## {heading}\n(.*?)^## ", page.read_text(encoding="utf-8"), re.M | re.S)
    [code] = re.findall(r"^```bash\n(.*?)^```$", under, re.M | re.S)
    return re.sub(r" *\\\n *", " ", re.sub(r"  +#.*", "", code)).strip()


def perform(block: Block, project: Path, environment: dict[str, str]) -> None:
    """Run a block of commands; what is shown of a file must stand there."""
    if block.language == "bash":
        run_ok("bash", "-euo", "pipefail", "-c", block.text, cwd=project, timeout=1800, env=environment)
    elif not block.file:
        pytest.fail(f"nobody would know where this stands: {block}")
    else:
        assert block.text in (project / block.file).read_text(encoding="utf-8"), f"not in {block.file}:\n{block.text}"


def environment_of(project: BakedProject, path: Path, folder: Path) -> dict[str, str]:
    """Make what a person's environment has on the PATH, which these tests have elsewhere.

    Args:
        project: As it was baked.
        path: Where the copy lies in which a page is performed.
        folder: A new one for the commands.
    """
    binaries = Path(sys.executable).parent
    commands = {
        "python": [sys.executable],
        "make": [str(shutil.which("make")), "-o", "setup", f"VENV={binaries.parent}"],
        project.slug: [sys.executable, "-m", project.package],
    }
    folder.mkdir()
    for name, words in commands.items():
        (folder / name).write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n')
        (folder / name).chmod(0o755)
    return {
        "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}",
        "MYPY_CACHE_DIR": str(TEMPLATE / ".mypy_cache"),
        "PYTHONPATH": str(path / "src"),
    }
