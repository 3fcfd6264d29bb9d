"""writer.py: checkpoints written by the training process, and the canary of that."""

import errno
import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from canaries import fails_without, fresh

from {{cookiecutter.__package_name}}.runtime import writer
from {{cookiecutter.__package_name}}.runtime.disk import DiskError


def test_a_file_is_written_and_what_torch_notes_of_it_returned(tmp_path: Path) -> None:
    [written] = writer._write_bucket(files(tmp_path), bucket(tmp_path / "a", b"one"))
    assert written.size_in_bytes == 3
    assert (tmp_path / "a").read_bytes() == b"one"


def test_a_file_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        writer._write_bucket(files(tmp_path), bucket(tmp_path / "absent" / "a", b"one"))


def files(folder: Path) -> Any:
    from megatron.core.dist_checkpointing.strategies.filesystem_async import FileSystemWriterAsync

    return FileSystemWriterAsync(folder)


def bucket(path: Path, data: bytes) -> tuple[Path, str, tuple[list, list]]:
    from torch.distributed.checkpoint.metadata import MetadataIndex
    from torch.distributed.checkpoint.planner import WriteItem, WriteItemType

    item = WriteItem(index=MetadataIndex(path.name), type=WriteItemType.BYTE_IO)
    return path, path.name, ([(item, io.BytesIO(data))], [])


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (PermissionError(errno.EACCES, "Permission denied"), "Permission denied"),
        (RuntimeError("unexpected pos 704 vs 598"), "Disk quota exceeded"),
        (ValueError("a defect"), None),
    ],
)
def test_what_one_rank_could_not_write_all_of_them_raise(
    error: Exception, told: str | None, tmp_path: Path, megatron: None
) -> None:
    if isinstance(error, RuntimeError):
        error.__cause__ = OSError(errno.EDQUOT, "Disk quota exceeded")

    def fail() -> None:
        raise error

    with pytest.raises(DiskError if told else type(error), match=told or "a defect"):
        writer.together(fail, tmp_path)
    assert writer.together(lambda: 1, tmp_path) == [1]


@pytest.mark.parametrize("start_method", ["spawn", "fork"])
def test_canary_writer_starts_processes(start_method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    upstream = fresh("megatron.core.dist_checkpointing.strategies.filesystem_async")

    def get_context(method: str) -> None:
        raise ChildProcessError(method)

    monkeypatch.setattr(upstream, "mp", SimpleNamespace(get_context=get_context))
    with fails_without("writer.py", ChildProcessError, start_method):
        if start_method == "spawn":
            upstream._get_write_results_queue()
        else:
            upstream.FileSystemWriterAsync.write_preloaded_data_multiproc([], False, 0, [], None)
