"""writer.py: checkpoints written by the training process, and the canary of that."""

import io
import queue
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from canaries import fails_without, fresh

from {{cookiecutter.__package_name}}.runtime import writer


def test_writer_writes_each_bucket_and_reports_what_it_wrote(tmp_path: Path) -> None:
    written = write_all([bucket(tmp_path / "a", b"one"), bucket(tmp_path / "b", b"three")])
    assert [(number, results[0].size_in_bytes) for number, results in written.items()] == [(0, 3), (1, 5)]
    assert (tmp_path / "b").read_bytes() == b"three"


def test_writer_reports_an_error_and_stops(tmp_path: Path) -> None:
    error = write_all([bucket(tmp_path / "absent" / "a", b"one"), bucket(tmp_path / "b", b"three")])
    assert isinstance(error, FileNotFoundError)  # Megatron raises it on every rank
    assert not (tmp_path / "b").exists()


def bucket(path: Path, data: bytes) -> tuple[Path, str, tuple[list, list]]:
    from torch.distributed.checkpoint.metadata import MetadataIndex
    from torch.distributed.checkpoint.planner import WriteItem, WriteItemType

    item = WriteItem(index=MetadataIndex(path.name), type=WriteItemType.BYTE_IO)
    return path, path.name, ([(item, io.BytesIO(data))], [])


def write_all(buckets: list[Any]) -> Any:
    from torch.distributed.checkpoint.filesystem import _StorageWriterTransforms

    writer.write_in_this_process()
    results: queue.SimpleQueue[Any] = queue.SimpleQueue()
    writer._write_all([_StorageWriterTransforms()], False, 0, buckets, results)
    return results.get_nowait()


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
