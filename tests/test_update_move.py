"""What `cruft update` does to a project whose model lies where the template had it before it had `model/`.

The old house is made here of the present one: some files are moved back, others are as unlike the present ones as they
were. What git and cruft do with the real one is the same.
"""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

import pytest
from conftest import PROJECT_FOLDER, TEMPLATE, BakedProject, Baker, run
from test_update import ANSWERS, MODEL_FOLDER, NOW, OLD, PACKAGE_FOLDER, Desk, append, change, files_of, readme_command

pytestmark = pytest.mark.slow  # git, cruft and bakes

# How to take the update with a model of one's own: the template's files, the update, and one's own again as a merge.
CHANGELOG = (TEMPLATE / "CHANGELOG.md").read_text(encoding="utf-8")
[ASIDE] = re.findall(r"^```bash\n(.*?)^```$", CHANGELOG, flags=re.MULTILINE | re.DOTALL)
PACKAGE = "src/my_model"
MOVED = {  # where they were and are
    "model.py": "model/network.py",
    "data/dataset.py": "model/dataset.py",
    "data/mnist_sample": "model/sample",
    "layers.py": "layers/parallel.py",
    "settings.py": "contracts/settings.py",
    "training.py": "training/train.py",
}
UNLIKE = {  # the files of `model/` that git does not recognise
    "config.py": 'from .losses import Loss\n\n\nclass Config:\n    """Which loss."""\n\n    loss = Loss\n',
    "data/item.py": 'from ..errors import UserError\n\n\nclass DataError(UserError):\n    """No data."""\n',
    "losses.py": 'from .data.item import DataError\n\n\nclass Loss:\n    """A mean."""\n\n    error = DataError\n',
}
MINE = '\n\ndef mine() -> None:\n    """Mine."""\n'


def make_old_house(template: Path) -> None:
    """Moves back what can be recognised, takes away every other file of the new rooms, and writes those of before."""
    package, model = template / PROJECT_FOLDER / PACKAGE_FOLDER, template / PROJECT_FOLDER / MODEL_FOLDER
    model.rename(package / "model")
    rooms = {name.split("/")[0] for name in MOVED.values()}
    (package / "data").mkdir()
    for old, new in MOVED.items():
        (package / new).rename(package / f"{old}.moved")
    for room in rooms:
        shutil.rmtree(package / room)
    for old in MOVED:
        (package / f"{old}.moved").rename(package / old)
    for old, text in UNLIKE.items():
        (package / old).write_text(text)
    change(package / "model.py", "from ..", "from .")


@pytest.fixture
def desk(tmp_path, baker: Baker) -> Desk:
    """The template as it was is published."""
    desk = Desk(tmp_path)
    past = Baker(tmp_path / "past").template
    make_old_house(past)
    desk.publish(past, OLD)
    return desk


@pytest.fixture
def fresh(baker: Baker, tmp_path) -> BakedProject:
    """The project that the present template makes."""
    return baker.bake(tmp_path / "fresh", **ANSWERS)


def create_and_edit(desk: Desk, *files: str, line: str = "") -> Path:
    """A project whose user adds a function to these files, and changes a line of the network that changes anyway."""
    project = desk.create()
    for name in files:
        append(project / PACKAGE / name, MINE)
    if line:
        text = (project / PACKAGE / "model.py").read_text()
        change(project / PACKAGE / "model.py", re.search(r"^from \..*", text, flags=re.MULTILINE)[0], line)
    desk.commit(project)
    return project


def test_what_was_written_into_a_file_that_moves_moves_with_it(desk: Desk, baker: Baker, fresh: BakedProject):
    project = create_and_edit(desk, "model.py", "data/dataset.py")
    desk.publish(baker.template, NOW)
    output = desk.sh(readme_command("cruft update"), project)
    assert "conflict" not in output
    for name in ("model.py", "data/dataset.py"):
        append(fresh.path / PACKAGE / MOVED[name], MINE)
    assert files_of(project) == fresh.files()


def test_a_changed_file_that_is_no_more_stays_and_is_noticed_and_the_rest_comes(
    desk: Desk, baker: Baker, fresh: BakedProject
):
    """Then git merges nothing three ways: what does not fit is left beside its file."""
    project = create_and_edit(desk, *UNLIKE, "data/dataset.py", line="from .mine import Mine")
    before = files_of(project)
    desk.publish(baker.template, NOW)
    output = desk.sh(readme_command("cruft update"), project)
    assert output.count("removal patch leaves file contents") == len(UNLIKE)

    after, new = files_of(project), fresh.files()
    assert {name: after[name] for name in before.keys() & after.keys() - new.keys()} == {
        f"{PACKAGE}/{name}": before[f"{PACKAGE}/{name}"] for name in UNLIKE
    }
    network, dataset = f"{PACKAGE}/model/network.py", f"{PACKAGE}/model/dataset.py"
    assert after.keys() - before.keys() - new.keys() == {f"{network}.rej"}
    assert {name for name in new if after[name] != new[name]} == {network, dataset}
    assert after[network].count(b"from .mine import Mine") == 1
    assert after[dataset] == new[dataset] + MINE.encode()

    words = (sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "tests/test_rooms.py", "-k", "every_file_is_in")
    env = {"PYTHONPATH": str(project / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
    result = run(*words, cwd=project, timeout=1800, env=env)
    assert result.status == 1
    assert re.search("^E .*'data'", result.output, flags=re.MULTILINE)

    desk.sh(readme_command("git reset"), project)
    assert files_of(project) == before


def test_changes_that_are_put_aside_come_back_as_a_merge_that_names_each_of_them(
    desk: Desk, baker: Baker, fresh: BakedProject
):
    project = create_and_edit(desk, *UNLIKE, "data/dataset.py", line="from .mine import Mine")
    before = files_of(project)
    desk.publish(baker.template, NOW)
    result = desk.try_sh(ASIDE, project)
    assert result.status == 1, result.output
    status = desk.sh("git status --short", project).splitlines()
    network, dataset = f"{PACKAGE}/model/network.py", f"{PACKAGE}/model/dataset.py"
    assert set(status) == {*(f"DU {PACKAGE}/{name}" for name in UNLIKE), f"UU {network}", f"M  {dataset}"}

    after, new = files_of(project), fresh.files()
    old = {f"{PACKAGE}/{name}" for name in UNLIKE}
    assert {name: after[name] for name in after.keys() - new.keys()} == {name: before[name] for name in old}
    assert {name for name in new if after[name] != new[name]} == {network, dataset}
    assert after[dataset] == new[dataset] + MINE.encode()
    assert re.search(rb"^<{7} .*(\n.*)*^from \.mine import Mine$(\n.*)*^>{7} ", after[network], flags=re.MULTILINE)
