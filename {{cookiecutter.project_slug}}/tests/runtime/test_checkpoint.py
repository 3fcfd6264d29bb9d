"""checkpoint.py and saving.py: only whole checkpoints are found and kept."""

import errno
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from stand_ins import NumberConfig
from torch.distributed.checkpoint import CheckpointException

from {{cookiecutter.__package_name}}.contracts.errors import UserError
from {{cookiecutter.__package_name}}.runtime import checkpoint, saving, seal
from {{cookiecutter.__package_name}}.runtime.disk import DiskError
from {{cookiecutter.__package_name}}.training.module import NetworkModule


@pytest.fixture
def checkpoints(tmp_path: Path) -> Path:
    """Sealed checkpoints of steps 2 and 10; then marked ones, one of them without its seal, and something else."""
    for name in ("step=2-val_loss=0.5", "step=2-last", "step=10-last", "step=30-last", "step=30-val_loss=0.1", "notes"):
        (tmp_path / name / "weights").mkdir(parents=True)
        (tmp_path / name / "weights" / "metadata.json").write_text("{}")
        seal.seal(tmp_path / name, {})
    (tmp_path / "step=20-last" / "weights").mkdir(parents=True)
    (tmp_path / "step=20-val_loss=0.2").mkdir()
    for name in ("step=20-last", "step=20-val_loss=0.2", "step=30-last", "step=30-val_loss=0.1"):
        (tmp_path / f"{name}-unfinished").touch()
    return tmp_path


def test_finders_pass_over_unfinished_checkpoints(checkpoints: Path) -> None:
    last, best = checkpoint.last_checkpoint(checkpoints), checkpoint.best_checkpoint(checkpoints)
    assert last is not None and last.name == "step=10-last" and seal.step_of(last) == 10
    assert best.name == "step=2-val_loss=0.5" and checkpoint.weights(best) == best / "weights"


def test_a_damaged_best_checkpoint_is_refused(checkpoints: Path) -> None:
    (checkpoints / "step=2-val_loss=0.5" / seal.SEAL).write_text('{"weights/common.pt": {"bytes": 1, "crc32": 2}}')
    with pytest.raises(UserError, match=r"step=2-val_loss=0.5 is damaged \(weights/common.pt is missing\): restore it"):
        checkpoint.best_checkpoint(checkpoints)


@pytest.mark.parametrize("better", [1, 9])
def test_a_best_checkpoint_that_is_replaced_meanwhile_gives_way(
    better: int, checkpoints: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there, came, read = checkpoints / "step=2-val_loss=0.5", iter(range(better)), seal._entry

    def replaced(path: Path) -> dict[str, int]:
        for n in came:
            new = checkpoints / f"step=40-val_loss=0.0{9 - n}"
            shutil.copytree(path.parents[1], new)
            saving._remove(path.parents[1])
            break
        return read(path)

    monkeypatch.setattr(seal, "_entry", replaced)
    if better == 1:
        assert checkpoint.best_checkpoint(checkpoints).name == "step=40-val_loss=0.09"
        assert not there.exists()
    else:
        with pytest.raises(UserError, match=r"replaced while they were read: .* run the command again"):
            checkpoint.best_checkpoint(checkpoints)


def test_what_cannot_be_read_is_damage_and_the_one_before_is_used(
    checkpoints: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    read = seal._entry

    def fail(path: Path) -> dict[str, int]:
        if checkpoints / "step=10-last" in path.parents:
            raise OSError(errno.EIO, "Input/output error")
        return read(path)

    monkeypatch.setattr(seal, "_entry", fail)
    last = checkpoint.last_checkpoint(checkpoints)
    assert last is not None and last.name == "step=2-last"
    told = "step=10-last is damaged (weights/metadata.json cannot be read: Input/output error): looking for one before"
    assert told in capsys.readouterr().err
    (last / seal.SEAL).unlink()
    assert seal.damage(last) == "files.json cannot be read: No such file or directory"


def test_of_several_processes_the_first_one_chooses(checkpoints: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "from_first", lambda what, decide: f"first of {decide()}")
    assert checkpoint.best_checkpoint(checkpoints).name == "first of step=2-val_loss=0.5"


@pytest.mark.parametrize("is_removed", [True, False])
def test_a_checkpoint_that_vanishes_while_it_is_loaded_is_one_line(is_removed: bool, checkpoints: Path) -> None:
    class Config(NumberConfig):
        def configure_model(self, vp_stage: int | None = None) -> Any:
            if is_removed:
                saving._remove(best)
            raise CheckpointException("", {})

    best = checkpoint.best_checkpoint(checkpoints)
    module = NetworkModule(Config(start_weights_dir=str(checkpoint.weights(best))))
    line = "step=2-val_loss=0.5 vanished while it was read: a training has a better one now, perhaps; run the command"
    with pytest.raises(UserError if is_removed else CheckpointException, match=line if is_removed else None):
        module.configure_model()


def test_the_marker_is_the_one_that_nemo_leaves() -> None:
    assert seal.UNFINISHED == saving.Checkpoint.UNFINISHED_CHECKPOINT_SUFFIX


def lose_seal(path: Path) -> None:
    (path / seal.SEAL).unlink()


def test_a_run_does_not_go_back_behind_checkpoints_that_lost_their_seal(checkpoints: Path) -> None:
    lose_seal(checkpoints / "step=10-last")
    lost = r"step=10-last lost files.json, .*: copy them again with it, or delete these folders to go on from step 2$"
    with pytest.raises(UserError, match=lost):
        checkpoint.last_checkpoint(checkpoints)
    for name in ("step=2-last", "step=2-val_loss=0.5"):
        lose_seal(checkpoints / name)
    lost = r"(step=2-\S+, ){2}step=10-last lost .* delete these folders to go on from step 0$"
    with pytest.raises(UserError, match=lost) as caught:
        checkpoint.last_checkpoint(checkpoints)
    assert str(checkpoints) in str(caught.value) and "\n" not in str(caught.value)


def test_what_lost_its_seal_is_not_needed_where_a_whole_one_is_as_new(checkpoints: Path) -> None:
    lose_seal(checkpoints / "step=2-last")
    last = checkpoint.last_checkpoint(checkpoints)
    assert last is not None and last.name == "step=10-last"


def test_the_best_checkpoint_does_not_give_way_to_a_worse_one_if_it_lost_its_seal(checkpoints: Path) -> None:
    (checkpoints / "step=9-val_loss=0.4").mkdir()
    with pytest.raises(UserError, match=r"step=9-val_loss=0.4 lost files.json, .*: copy it again with that file, or"):
        checkpoint.best_checkpoint(checkpoints)


def test_a_seal_that_lists_no_file_is_damage(checkpoints: Path) -> None:
    (checkpoints / "step=10-last" / seal.SEAL).write_text("{}")
    assert seal.damage(checkpoints / "step=10-last") == "files.json lists no file"


def test_a_save_does_not_make_a_run_folder_anew_that_has_vanished(tmp_path: Path) -> None:
    saves, trainer = tmp_path / "run" / "checkpoints", SimpleNamespace(should_stop=False, global_step=1, max_steps=9)
    with pytest.raises(DiskError, match="the folder has vanished"):
        saving._begin(saves / "step=1-last")
    with pytest.raises(DiskError), saving.Checkpoint(saves, "val_loss")._survived(trainer):
        raise DiskError("it failed")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("content", [b"junk", b"\xff", b"[]", b"null", b'{"a": 1}', b'{"a": {}}'])
def test_a_seal_that_cannot_be_read_is_damage(content: bytes, checkpoints: Path) -> None:
    (checkpoints / "step=10-last" / seal.SEAL).write_bytes(content)
    assert seal.damage(checkpoints / "step=10-last") == "files.json cannot be read"


@pytest.mark.parametrize(
    ("newest", "keep", "gone"),
    [
        ("step=10-last", 2, set()),
        ("step=10-last", 1, {"step=2-last"}),
        ("step=10-val_loss=0.4", 2, {"step=2-val_loss=0.5"}),
    ],
)
def test_what_a_new_checkpoint_comes_in_place_of_are_whole_ones(
    newest: str, keep: int, gone: set[str], checkpoints: Path
) -> None:
    (checkpoints / newest).mkdir(exist_ok=True)
    assert {path.name for path in saving._superseded(checkpoints / newest, keep)} == gone


def test_finders_without_a_checkpoint(tmp_path: Path) -> None:
    assert checkpoint.last_checkpoint(tmp_path / "absent") is None
    with pytest.raises(UserError, match="holds no finished checkpoint of a validation"):
        checkpoint.best_checkpoint(tmp_path)
