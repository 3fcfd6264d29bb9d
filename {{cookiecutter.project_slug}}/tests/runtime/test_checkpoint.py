"""checkpoint.py: only whole checkpoints are found and kept."""

from pathlib import Path

import pytest

from {{cookiecutter.__package_name}}.contracts.errors import UserError
from {{cookiecutter.__package_name}}.runtime import checkpoint, seal


@pytest.fixture
def checkpoints(tmp_path: Path) -> Path:
    """Sealed checkpoints of steps 2 and 10; then one without its seal, one that NeMo has marked, and something else."""
    for name in ("step=2-val_loss=0.5", "step=2-last", "step=10-last", "step=30-last", "step=30-val_loss=0.1", "notes"):
        (tmp_path / name / "weights").mkdir(parents=True)
        (tmp_path / name / seal.SEAL).write_text("{}")
    (tmp_path / "step=20-last" / "weights").mkdir(parents=True)
    (tmp_path / "step=20-val_loss=0.2").mkdir()
    for name in ("step=30-last", "step=30-val_loss=0.1"):
        (tmp_path / f"{name}-unfinished").touch()
    return tmp_path


def test_finders_pass_over_unfinished_checkpoints(checkpoints: Path) -> None:
    last, best = checkpoint.last_checkpoint(checkpoints), checkpoint.best_checkpoint(checkpoints)
    assert last is not None and last.name == "step=10-last" and checkpoint.step_of(last) == 10
    assert best.name == "step=2-val_loss=0.5" and checkpoint.weights(best) == best / "weights"


def test_a_damaged_best_checkpoint_is_refused(checkpoints: Path) -> None:
    (checkpoints / "step=2-val_loss=0.5" / seal.SEAL).write_text('{"weights/common.pt": {"bytes": 1, "crc32": 2}}')
    with pytest.raises(UserError, match=r"step=2-val_loss=0.5 is damaged \(weights/common.pt is missing\): restore it"):
        checkpoint.best_checkpoint(checkpoints)


def test_only_the_newest_last_checkpoint_and_the_one_before_are_kept(checkpoints: Path) -> None:
    assert {Path(path).name for path in checkpoint._superseded(checkpoints)} == {"step=2-last", "step=10-last"}


def test_finders_without_a_checkpoint(tmp_path: Path) -> None:
    assert checkpoint.last_checkpoint(tmp_path / "absent") is None
    with pytest.raises(UserError, match="holds no finished checkpoint of a validation"):
        checkpoint.best_checkpoint(tmp_path)
