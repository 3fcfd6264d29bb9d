"""What lies in a generated project: exactly these files, fully rendered, the same every time."""

from __future__ import annotations

import re
import shutil
import sys

import pytest
import yaml
from conftest import PROJECT_FOLDER, TEMPLATE, BakedProject, Baker, run, run_ok

# Of every project, whatever the answers; <package> stands for the import name.
ALWAYS = """
.gitignore
.pre-commit-config.yaml
Makefile
README.md
docs/leaving-nemo.md
docs/machines.md
docs/make-it-yours.md
docs/runs.md
docs/sequences.md
docs/sequences/model/__init__.py
docs/sequences/model/config.py
docs/sequences/model/dataset.py
docs/sequences/model/figures.py
docs/sequences/model/item.py
docs/sequences/model/losses.py
docs/sequences/model/network.py
docs/sequences/model/plain.py
docs/sequences/model/results.py
docs/sequences/model/settings.py
docs/sequences/proteins.yaml
docs/sequences/tests/test_proteins.py
docs/sequences/tests/tiny.py
docs/waves/make_waves.py
docs/waves/model/__init__.py
docs/waves/model/config.py
docs/waves/model/dataset.py
docs/waves/model/figures.py
docs/waves/model/item.py
docs/waves/model/losses.py
docs/waves/model/network.py
docs/waves/model/plain.py
docs/waves/model/results.py
docs/waves/model/settings.py
docs/waves/tests/test_waves.py
docs/waves/tests/tiny.py
docs/waves/waves.yaml
pyproject.toml
requirements.lock
src/<package>/__init__.py
src/<package>/__main__.py
src/<package>/cli.py
src/<package>/contracts/__init__.py
src/<package>/contracts/config.py
src/<package>/contracts/errors.py
src/<package>/contracts/files.py
src/<package>/contracts/given.py
src/<package>/contracts/item.py
src/<package>/contracts/loss.py
src/<package>/contracts/names.py
src/<package>/contracts/peaks.py
src/<package>/contracts/reading.py
src/<package>/contracts/settings.py
src/<package>/contracts/settings_check.py
src/<package>/contracts/settings_rules.py
src/<package>/contracts/stage.py
src/<package>/contracts/start.py
src/<package>/contracts/view.py
src/<package>/doctor.py
src/<package>/drawing/__init__.py
src/<package>/drawing/pictures.py
src/<package>/drawing/theme.py
src/<package>/importing.py
src/<package>/layers/__init__.py
src/<package>/layers/attention.py
src/<package>/layers/elementwise.py
src/<package>/layers/parallel.py
src/<package>/layers/vocabulary.py
src/<package>/machine.py
src/<package>/parsing.py
src/<package>/planning/__init__.py
src/<package>/planning/allocations.py
src/<package>/planning/plan.py
src/<package>/planning/schedule.py
src/<package>/planning/stages.py
src/<package>/planning/words.py
src/<package>/proof/__init__.py
src/<package>/proof/differences.py
src/<package>/proof/layouts.py
src/<package>/proof/preload.py
src/<package>/proof/ranks.py
src/<package>/results/__init__.py
src/<package>/results/curves.py
src/<package>/results/drawings.py
src/<package>/results/evaluate.py
src/<package>/results/export.py
src/<package>/results/page.py
src/<package>/results/report.py
src/<package>/runtime/README.md
src/<package>/runtime/agreement.py
src/<package>/runtime/__init__.py
src/<package>/runtime/backend.py
src/<package>/runtime/background.py
src/<package>/runtime/checkpoint.py
src/<package>/runtime/buckets.py
src/<package>/runtime/clipping.py
src/<package>/runtime/cluster.py
src/<package>/runtime/cpu.py
src/<package>/runtime/cuda_graph.py
src/<package>/runtime/disk.py
src/<package>/runtime/failures.py
src/<package>/runtime/fused_adam.py
src/<package>/runtime/gradients.py
src/<package>/runtime/heartbeat.py
src/<package>/runtime/launch.py
src/<package>/runtime/lean.py
src/<package>/runtime/loader.py
src/<package>/runtime/lock.py
src/<package>/runtime/loggers.py
src/<package>/runtime/lone_rank.py
src/<package>/runtime/meeting.py
src/<package>/runtime/network.py
src/<package>/runtime/noise.py
src/<package>/runtime/orphans.py
src/<package>/runtime/placeholders.py
src/<package>/runtime/rehearsal.py
src/<package>/runtime/rng.py
src/<package>/runtime/saving.py
src/<package>/runtime/seal.py
src/<package>/runtime/signals.py
src/<package>/runtime/strategy.py
src/<package>/runtime/weak_hooks.py
src/<package>/runtime/writer.py
src/<package>/saying.py
src/<package>/status.py
src/<package>/training/__init__.py
src/<package>/training/datamodule.py
src/<package>/training/logs.py
src/<package>/training/module.py
src/<package>/training/optimizer.py
src/<package>/training/resampling.py
src/<package>/training/run_settings.py
src/<package>/training/speed.py
src/<package>/training/stopping.py
src/<package>/training/table.py
src/<package>/training/train.py
tests/conftest.py
tests/contracts/test_contract_config.py
tests/contracts/test_every_network.py
tests/contracts/test_item.py
tests/contracts/test_loss.py
tests/contracts/test_reading.py
tests/contracts/test_settings.py
tests/contracts/test_settings_check.py
tests/contracts/test_stage.py
tests/contracts/test_start.py
tests/contracts/test_view.py
tests/drawing/test_pictures.py
tests/drawing/test_theme.py
tests/holdup.py
tests/in_ranks.py
tests/kills.py
tests/layers/test_attention.py
tests/layers/test_elementwise.py
tests/layers/test_layers.py
tests/layers/test_vocabulary.py
tests/planning/measured.py
tests/planning/test_plan.py
tests/planning/test_plan_command.py
tests/proof/splits.py
tests/proof/test_differences.py
tests/proof/test_layouts.py
tests/proof/test_layouts_command.py
tests/proof/test_ranks.py
tests/results/best_network.py
tests/results/test_broken_runs.py
tests/results/test_curves.py
tests/results/test_drawings.py
tests/results/test_evaluate.py
tests/results/test_export.py
tests/results/test_headlines.py
tests/results/test_page.py
tests/results/test_predictions.py
tests/results/test_report.py
tests/results/written_runs.py
tests/runtime/canaries.py
tests/runtime/test_backend.py
tests/runtime/test_cellar.py
tests/runtime/test_checkpoint.py
tests/runtime/test_checkpoint_canaries.py
tests/runtime/test_buckets.py
tests/runtime/test_clipping.py
tests/runtime/test_cluster.py
tests/runtime/test_cpu.py
tests/runtime/test_cpu_canaries.py
tests/runtime/test_cuda_graph.py
tests/runtime/test_disk.py
tests/runtime/test_failures.py
tests/runtime/test_fused_adam.py
tests/runtime/test_fused_adam_canaries.py
tests/runtime/test_gradients.py
tests/runtime/test_heartbeat.py
tests/runtime/test_launch.py
tests/runtime/test_lean.py
tests/runtime/test_lock.py
tests/runtime/test_loader.py
tests/runtime/test_loggers.py
tests/runtime/test_lone_rank.py
tests/runtime/test_meeting.py
tests/runtime/test_network_interface.py
tests/runtime/test_noise.py
tests/runtime/test_orphans.py
tests/runtime/test_placeholders.py
tests/runtime/test_signals.py
tests/runtime/test_strategy.py
tests/runtime/test_strategy_canaries.py
tests/runtime/test_weak_hooks.py
tests/runtime/test_writer.py
tests/stand_ins.py
tests/test_broken_model.py
tests/test_cli.py
tests/test_doctor.py
tests/test_environment.py
tests/test_foreign_start.py
tests/test_lacking.py
tests/test_machine.py
tests/test_paths.py
tests/test_readme.py
tests/test_rooms.py
tests/test_status.py
tests/test_told.py
tests/training/test_counts.py
tests/training/test_datamodule.py
tests/training/test_keep.py
tests/training/test_optimizer.py
tests/training/test_resampling.py
tests/training/test_resume.py
tests/training/test_run_settings.py
tests/training/test_saving.py
tests/training/test_seals.py
tests/training/test_speed.py
tests/training/test_stopping.py
tests/training/test_training.py
"""
PLACES = {"model": "src/<package>/model", "tests": "tests/model", "configs": "configs", "docs": "docs"}


def files_of_starter(starter: str) -> list[str]:
    """Where the files of a starter lie in a project."""
    folder = TEMPLATE / "{{cookiecutter.project_slug}}" / "starters" / starter
    return [
        f"{place}/{path.relative_to(folder / name).as_posix()}"
        for name, place in PLACES.items()
        for path in (folder / name).rglob("*")
        if path.is_file()
    ]


# Of the projects that chose it.
CHOSEN = {
    "mnist": files_of_starter("mnist"),
    "protein": files_of_starter("protein"),
    "github": [".github/workflows/ci.yml", ".github/workflows/versions.yml", ".github/dependabot.yml"],
    "gitlab": [".gitlab-ci.yml"],
    "docker": ["Dockerfile", ".dockerignore", ".devcontainer/devcontainer.json"],
    "slurm": ["slurm/train.sbatch"],
    "Apache-2.0": ["LICENSE"],
    "MIT": ["LICENSE"],
    "BSD-3-Clause": ["LICENSE"],
    "none": [],
}
CI = ".github/workflows/ci.yml"
LICENSE_TITLES = {"Apache-2.0": "Apache License", "MIT": "MIT License", "BSD-3-Clause": "BSD 3-Clause License"}


def assert_exactly(project: BakedProject, *choices: str) -> None:
    found = set(project.files())
    lines = [*ALWAYS.split(), *(file for choice in choices for file in CHOSEN[choice])]
    expected = {line.replace("<package>", project.package) for line in lines}
    assert not found - expected, f"not expected:\n{chr(10).join(sorted(found - expected))}"
    assert not expected - found, f"missing:\n{chr(10).join(sorted(expected - found))}"


def text_files(project: BakedProject) -> dict[str, str]:
    return {name: content.decode() for name, content in project.files().items() if not name.endswith((".gz", ".xz"))}


def test_the_default_project_has_exactly_these_files(default_project):
    assert_exactly(default_project, "mnist", "github", "Apache-2.0")


def test_a_project_without_options_has_exactly_these_files(longest_project):
    assert_exactly(longest_project, "mnist")
    assert not (longest_project.path / ".github").exists()


def test_a_second_bake_is_the_same_to_the_byte(baker: Baker, default_project, tmp_path):
    assert baker.bake(tmp_path).files() == default_project.files()


def test_nothing_of_the_template_language_is_left(default_project, longest_project):
    for project in (default_project, longest_project):
        for name, text in text_files(project).items():
            assert "{{" not in name
            assert "cookiecutter." not in text, name
            if not name.endswith(".py"):  # an f-string may double its braces
                assert not re.search(r"(?<!\$)\{\{|\{%", text), name


def test_the_workflow_keeps_githubs_own_expressions(default_project):
    workflow = yaml.safe_load((default_project.path / CI).read_text())
    job = workflow["jobs"]["test"]
    assert job["steps"][1]["with"]["python-version"] == "${{ matrix.python }}"
    assert job["strategy"]["matrix"]["python"] == ["3.10", "3.11", "3.12"]


def test_ci_and_pre_commit_call_only_targets_that_make_has(default_project):
    files = text_files(default_project)
    called = re.findall(r"(?:run|entry): make (\w+)$", files[CI] + files[".pre-commit-config.yaml"], re.MULTILINE)
    assert called == ["check", "test", "lint"]
    assert set(called) <= set(re.findall(r"^(\w+):.*##", files["Makefile"], re.MULTILINE))


@pytest.mark.parametrize("license_id", LICENSE_TITLES)
def test_the_licence_is_the_chosen_one_and_names_the_author(baker: Baker, tmp_path, license_id):
    project = baker.bake(tmp_path, license=license_id, author="Zoë & Co")
    text = (project.path / "LICENSE").read_text()
    assert text.strip().startswith(LICENSE_TITLES[license_id])
    assert re.search(r"Copyright (\(c\) )?Zoë & Co$", text, re.MULTILINE)
    assert project.pyproject["project"]["license"] == license_id


def test_without_a_licence_none_is_named(longest_project):
    assert "license" not in longest_project.pyproject["project"]


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("MNIST Megatron", "mnist-megatron"),
        ("Café  Ångström!", "cafe-angstrom"),
        ("!!!", "megatron-project"),
        ("A name that goes on and on for more than forty characters", "a-name-that-goes-on-and-on-for-more-than"),
    ],
)
def test_the_slug_follows_the_name(baker: Baker, tmp_path, name, slug):
    assert baker.bake(tmp_path, project_name=name).slug == slug


def test_make_lists_its_targets_in_a_path_with_spaces(baker: Baker, tmp_path):
    folder = tmp_path / "two words"
    folder.mkdir()
    project = baker.bake(folder)
    listed = run_ok("make", cwd=project.path, timeout=1800)
    targets = re.findall(r"^  make (\w+) +\w", listed, re.MULTILINE)
    assert targets == ["help", "setup", "train", "layouts", "kills", "check", "test", "lint", "lock", "clean"]


STUB = """#!/bin/sh
printf '%s ' "$@"
"""


def test_every_target_of_make_works_in_a_folder_of_any_name(baker: Baker, tmp_path):
    """With an environment whose programs only say what they were asked."""
    project = baker.bake(tmp_path / """it's "a" $HOME (1) #2 & b;""")
    binaries = project.path / ".venv" / "bin"
    binaries.mkdir(parents=True)
    for name in ("python", "ruff", "uv"):
        (binaries / name).write_text(STUB)
        (binaries / name).chmod(0o755)
    (project.path / ".venv" / f".{project.slug}-installed").touch()
    for target in ("help", "setup", "train", "layouts", "kills", "check", "test", "lint", "lock", "clean"):
        run_ok("make", target, cwd=project.path, timeout=1800)
    assert f"-m {project.package} pretrain --run_dir" in run_ok("make", "train", cwd=project.path, timeout=1800)


@pytest.mark.parametrize("folder", [TEMPLATE, TEMPLATE / PROJECT_FOLDER], ids=["template", "project"])
def test_an_environment_in_a_path_with_a_space_is_refused_in_one_line(folder, tmp_path):
    shutil.copy(folder / "Makefile", tmp_path)
    result = run("make", "setup", "VENV=two words", cwd=tmp_path, timeout=1800)
    assert result.status == 2
    [line] = result.output.splitlines()
    assert "VENV=two words has a space in it, which make cannot have in the name of a file: choose another" in line


def test_setup_runs_again_only_when_its_inputs_change(baker: Baker, tmp_path):
    """Pretends to install: pip is echo, so that only the decisions of make are seen."""
    folder = tmp_path / "two words"
    folder.mkdir()
    project = baker.bake(folder)

    def setup() -> str:
        return run_ok(
            "make", "setup", "PIP=echo installing", f"PYTHON={sys.executable}", cwd=project.path, timeout=1800
        )

    assert "installing" in setup()
    assert "installing" not in setup()
    lock = project.path / "requirements.lock"
    lock.write_text(lock.read_text() + "# changed\n")
    assert "installing" in setup()
    assert "installing" not in setup()
