"""doctor: which versions fit, which do not, and that a wrong one is named where an import fails because of it."""

import sys
from importlib import metadata

import pytest

from {{cookiecutter.__package_name}} import doctor
from {{cookiecutter.__package_name}}.cli import PROG, main

pytestmark = pytest.mark.skipif(
    not list(metadata.Distribution.discover(name=PROG)), reason="this project is run from its sources, not installed"
)


@pytest.fixture
def installed(monkeypatch):
    """Pretend that other versions are installed; None is none."""
    real = metadata.version

    def pretend(**versions):
        def version(name):
            found = versions.get(name.replace("-", "_"), real)
            if found is None:
                raise metadata.PackageNotFoundError(name)
            return real(name) if found is real else found

        monkeypatch.setattr(metadata, "version", version)

    return pretend


def test_what_the_lock_installed_fits(capsys):
    assert main(["doctor"]) == 0
    printed = capsys.readouterr().out
    assert "ok      nemo-toolkit" in printed and "WRONG" not in printed
    assert doctor.misfits() == []
    assert "CPU: " in printed and "\nHost: " in printed and "\nok      wandb " in printed


def test_it_says_whether_runs_can_lie_there(tmp_path, capsys):
    assert main(["doctor", "--run_dir", str(tmp_path / "new")]) == 0
    assert f"\nRuns: {tmp_path}/new does not exist yet, and would be on " in capsys.readouterr().out
    (tmp_path / "file").touch()
    assert main(["doctor", "--run_dir", str(tmp_path / "file")]) == 1
    printed = capsys.readouterr().out
    assert f"\nWRONG  {tmp_path}/file cannot be written: " in printed and "Runs: " not in printed


def test_an_interface_that_is_not_there_is_wrong(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "none7")
    assert main(["doctor", "--run_dir", str(tmp_path)]) == 1
    printed = capsys.readouterr().out
    assert f"\nRuns: {tmp_path} is on " in printed and "\nWRONG  GLOO_SOCKET_IFNAME names none7" in printed


@pytest.mark.parametrize(
    ("name", "version", "line"),
    [
        ("nemo_toolkit", "3.0.1", r'nemo-toolkit 3.0.1, needs <2.8,>=2.7.3: pip install "nemo-toolkit<2.8,>=2.7.3"'),
        ("numpy", "2.1.0", 'numpy 2.1.0, needs <2,>=1.26: pip install "numpy<2,>=1.26"'),
        ("megatron_core", None, 'megatron-core not installed, needs <0.16,>=0.15.3: pip install "megatron-core<0.16'),
    ],
)
def test_a_version_that_does_not_fit_is_named_with_the_command_that_mends_it(name, version, line, installed, capsys):
    installed(**{name: version})
    assert main(["doctor"]) == 1
    [wrong] = [row for row in capsys.readouterr().out.splitlines() if row.startswith("WRONG")]
    assert " ".join(wrong.split()[1:]).startswith(line)
    [misfit] = doctor.misfits()
    assert misfit.startswith(line)


def test_what_only_an_extra_needs_may_be_absent(installed, capsys):
    installed(bionemo_core=None, ruff=None)
    assert main(["doctor"]) == 0
    printed = capsys.readouterr().out
    assert "absent  bionemo-core" in printed and "extra `bionemo`" in printed


def test_a_failing_import_is_explained_by_the_version_that_causes_it(installed, monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, f"{doctor.__package__}.training.train", None)  # importing it fails
    command = ["pretrain", "--run_dir", str(tmp_path / "run")]
    with pytest.raises(ImportError):  # not the versions' fault: a traceback is right
        main(command)
    capsys.readouterr()
    installed(lightning="2.5.0")
    assert main(command) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == f'{PROG}: error: lightning 2.5.0, needs ==2.4.0: pip install "lightning==2.4.0"'
    assert lines[1].startswith(f"{PROG}: error: that may be why an import failed: ")
    assert len(lines) == 2
