"""disk.py: a run folder that cannot be written any more is told in one line."""

import errno
import os
import resource
import shutil

import pytest

from {{cookiecutter.__package_name}}.contracts import names
from {{cookiecutter.__package_name}}.contracts.errors import UserError
from {{cookiecutter.__package_name}}.contracts.files import write_whole
from {{cookiecutter.__package_name}}.runtime import disk, saving
from {{cookiecutter.__package_name}}.runtime.checkpoint import last_checkpoint
from {{cookiecutter.__package_name}}.training import train as training
from {{cookiecutter.__package_name}}.training.table import CsvLog


def raised(error, cause=None):
    try:
        raise error from cause
    except BaseException as caught:
        return caught


@pytest.mark.parametrize(
    ("number", "told"),
    [
        (errno.ENOSPC, r"No space left on device \([\d.,]+ MiB are free\)"),
        (errno.EDQUOT, "Disk quota exceeded"),
        (errno.EROFS, "Read-only file system"),
        (errno.EIO, "Input/output error"),
        (errno.ESTALE, "Stale file handle"),
    ],
)
def test_an_error_of_the_disk_is_found_among_the_causes(number, told, tmp_path):
    of_the_disk = OSError(number, os.strerror(number), str(tmp_path / "file"))
    error = raised(RuntimeError("unexpected pos 704"), raised(ValueError("no"), of_the_disk))
    line = f"^{tmp_path} cannot be written any more: {told}; mend that, and try"
    with pytest.raises(UserError, match=line), disk.writing(tmp_path, "try"):
        raise error


@pytest.mark.parametrize("file", ["cache/a.json", None])
def test_what_is_full_elsewhere_is_not_the_runs(file, tmp_path):
    (run := tmp_path / "run").mkdir()
    full = OSError(errno.ENOSPC, "No space left on device", *([str(tmp_path / file)] if file else []))
    with pytest.raises(UserError if file else OSError) as caught, disk.writing(run, "try"):
        raise full
    assert str(caught.value) == (
        f"{tmp_path / file}: No space left on device; mend that, and try" if file else str(full)
    )


def test_a_full_disk_is_told_although_what_filled_it_is_gone(tmp_path):
    told = f"^{tmp_path} cannot be written any more: No space left"
    with pytest.raises(UserError, match=told), disk.writing(tmp_path), write_whole(tmp_path / "outputs.npz", "wb"):
        raise OSError(errno.ENOSPC, "No space left on device")  # as a write does


def test_a_folder_that_has_vanished_is_told(tmp_path):
    with pytest.raises(UserError, match="the folder has vanished"), disk.writing(tmp_path / "gone"):
        raise RuntimeError("Parent directory does not exist")


@pytest.mark.parametrize("error", [ValueError("a defect"), UserError("a mistake"), KeyboardInterrupt()])
def test_what_is_not_the_disks_stays_as_it_is(error, tmp_path):
    with pytest.raises(type(error)) as caught, disk.writing(tmp_path):
        raise error
    assert caught.value is error and not list(tmp_path.iterdir())


def test_an_error_that_is_its_own_cause_ends_too(tmp_path):
    first = FileNotFoundError("gone")
    second = raised(ValueError("not logged"), first)
    first.__cause__ = second  # as TensorBoard does, which raises what its thread has met each time one logs
    assert disk.reason(first, tmp_path / "gone") == "the folder has vanished"


@pytest.mark.slow
@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_training_whose_folder_vanishes_ends_in_one_line(asynchronous, tiny, monkeypatch, capfd, tmp_path):
    settings, log = tiny(training={"async_checkpoints": asynchronous}), CsvLog.log_metrics

    def log_in_vain(self, metrics, step=None):
        if step == 12 and self.path.exists():  # after the first checkpoints
            os.rename(settings.run_dir, tmp_path / "gone")  # at once, while another may write into it
        log(self, metrics, step)

    monkeypatch.setattr(CsvLog, "log_metrics", log_in_vain)
    with pytest.raises(UserError, match="cannot be written any more: the folder has vanished; "):
        training.train(settings)
    assert not os.path.exists(settings.run_dir)
    assert not [line for line in capfd.readouterr().err.splitlines() if not line.startswith(("training ", "step "))]


@pytest.mark.slow
@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_folder_that_is_moved_while_a_save_begins_is_not_made_anew(asynchronous, tiny, monkeypatch, tmp_path):
    settings = tiny(training={"val_check_interval": 5, "async_checkpoints": asynchronous})
    begin, moved = saving._begin, tmp_path / "moved"

    def begin_and_move(checkpoint):
        begin(checkpoint)
        if checkpoint.name.startswith("step=10"):
            shutil.move(settings.run_dir, moved)

    monkeypatch.setattr(saving, "_begin", begin_and_move)
    with pytest.raises(UserError, match="cannot be written any more: the folder has vanished; "):
        training.train(settings)
    assert not os.path.exists(settings.run_dir)
    assert last_checkpoint(moved / names.CHECKPOINTS_FOLDER).name == "step=5-last"


@pytest.fixture
def no_room():
    """Let files of this process grow no longer than half of a checkpoint's: what a full disk does, for any user."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.slow
def test_a_checkpoint_that_finds_no_room_ends_in_words_and_loses_nothing(pretrained, tiny, no_room, monkeypatch):
    settings = tiny()
    shutil.copytree(pretrained.folder, settings.run_dir)
    more = tiny(resume=True, training={"max_steps": 30})
    largest = max(path.stat().st_size for path in pretrained.folder.rglob("*.distcp"))
    monkeypatch.setattr(disk, "DISK", set())  # as Megatron loses the reason: it must be found by trying
    monkeypatch.setattr(disk, "bytes", lambda size: bytes(largest), raising=False)
    no_room(largest // 2)
    with pytest.raises(UserError, match="cannot be written any more: File too large; mend that, and go on"):
        training.train(more)
    checkpoints = pretrained.folder / names.CHECKPOINTS_FOLDER
    assert last_checkpoint(checkpoints).name == "step=20-last"
