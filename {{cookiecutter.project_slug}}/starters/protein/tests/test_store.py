"""Many proteins, and the index of a file: built once, whole or not at all, and by whoever comes first."""

import errno
import io
import os
import pickle
import re
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import numpy as np
import pytest
from conftest import change

from {{cookiecutter.__package_name}}.contracts.files import write_whole_folder
from {{cookiecutter.__package_name}}.contracts.item import DataError
from {{cookiecutter.__package_name}}.model.dataset import count_training, read_proteins, read_training
from {{cookiecutter.__package_name}}.model.reading import index, source
from {{cookiecutter.__package_name}}.model.reading.store import Record, in_memory
from {{cookiecutter.__package_name}}.model.settings import Settings

A, B, C = ("a", [5, 5, 5]), ("b", [23, 23]), ("c", [13])


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "data" / "proteins.fasta"
    path.parent.mkdir()
    path.write_text(">a\nAAA\n>b\nCC\n>c\nD\n")
    return path


@pytest.fixture
def builds(monkeypatch):
    """The folders that were built."""
    found, build = [], index._build
    monkeypatch.setattr(index, "_build", lambda folder, *rest: found.append(folder) or build(folder, *rest))
    return found


def read(file, **data):
    return read_proteins(str(file), change(Settings(), data=data))


def contents(proteins):
    return [(proteins.name(n), proteins.get("tokens", n).tolist()) for n in range(len(proteins))]


def is_mapped(array):
    while isinstance(array, np.ndarray) and not isinstance(array, np.memmap):
        array = array.base
    return isinstance(array, np.memmap)


def meta_of(file):
    """Return which file of this disk describes the index."""
    return next(Path(f"{file}.index").glob("*/meta.json")).stat().st_ino


# Proteins


@pytest.mark.parametrize("where", ["memory", "file"])
def test_some_proteins_are_those_between_their_ends(file, where):
    proteins = read(file)
    if where == "memory":
        records = [Record(name.encode(), bytes(tokens)) for name, tokens in (A, B, C)]
        proteins = in_memory(records, ("name", "tokens"))
    assert contents(proteins) == [A, B, C]
    assert contents(proteins[1:]) == contents(proteins[-2:]) == [B, C]
    assert contents(proteins[1:][:1]) == contents(proteins[:2][1:5]) == [B]
    assert proteins.lengths(0, 3).tolist() == [3, 2, 1]
    assert proteins[1:].lengths(0, 99).tolist() == [2, 1] and proteins[:2].lengths(1, 99).tolist() == [2]


def test_positions_outside_are_refused(file):
    for position in (-1, 2):
        with pytest.raises(IndexError, match=rf"protein {position} is outside of 0 to 1"):
            read(file)[:2].get("tokens", position)


# The index


def test_an_index_is_built_once(file, builds):
    assert contents(read(file)) == contents(read(file)) == [A, B, C]
    assert builds == [Path(f"{file}.index", builds[0].name)]


@pytest.mark.parametrize("index_dir", [None, "indexes"])
def test_a_plan_counts_what_has_been_read_and_builds_nothing(file, index_dir, tmp_path, builds):
    data = {"train_file": str(file), "validation_size": 1, "index_dir": index_dir and str(tmp_path / index_dir)}
    settings = change(Settings(), data=data)
    assert count_training(settings) is None and builds == []
    assert len(read_training(settings)[0]) == count_training(settings)
    file.unlink()
    with pytest.raises(DataError, match=f"{file} is not on this machine"):
        count_training(settings)


@pytest.mark.parametrize("lacks", ["changed", "other classes", "failed", "validation"])
def test_a_plan_builds_nothing_where_the_index_that_is_there_does_not_fit(lacks, file, builds):
    table = file.with_suffix(".csv")
    table.write_text("sequence,label\n" + "AAA,0\nCC,1\n" * 2)
    data = {"train_file": str(table), "validation_size": 1}
    settings = change(Settings(), network="sequence_classifier", model={"classes": ["0", "1"]}, data=data)
    read_training(settings)
    assert count_training(settings) == 3
    if lacks == "changed":
        os.utime(table, ns=(0, 0))
    elif lacks == "other classes":
        settings = change(settings, model={"classes": ["1", "0"]})
    elif lacks == "failed":
        shutil.rmtree(builds[0])
    else:
        settings = change(settings, data={"validation_file": str(shutil.copy(table, file.with_name("other.csv")))})
    before, built = sorted(file.parent.rglob("*")), len(builds)
    assert count_training(settings) is None
    assert (sorted(file.parent.rglob("*")), len(builds)) == (before, built)


def test_an_index_is_mapped_and_not_read(file):
    for column in read(file).columns.values():
        assert is_mapped(column.values) and is_mapped(column.offsets)


def test_a_process_that_is_sent_proteins_maps_the_index_itself(file):
    proteins = read(file)[1:]
    copy = pickle.loads(pickle.dumps(proteins))
    assert contents(copy) == [B, C]
    assert all(is_mapped(column.values) for column in copy.columns.values())
    file.write_text(">a\n" + "A" * 100_000 + "\n")
    assert len(pickle.dumps(read(file))) < 1_000


@pytest.mark.parametrize("changed", ["size", "time"])
def test_a_file_that_has_changed_is_indexed_again_which_is_told_once(file, builds, capfd, changed):
    read(file)
    state = file.stat()
    file.write_text(">a\nAAA\n>b\nCC\n>c\nD\n>d\n-\n" if changed == "size" else ">a\nAAA\n>b\nCC\n>c\nE\n")
    times = (state.st_atime_ns, state.st_mtime_ns + (changed == "time"))
    os.utime(file, ns=times)
    assert len(read(file)) == len(read(file)) == (4 if changed == "size" else 3)
    assert len(builds) == 2
    told = f"{file} has changed, or its index is damaged: building it again\n"
    assert capfd.readouterr().err == told


def test_other_columns_have_an_index_of_their_own(file, builds):
    table = file.with_suffix(".csv")
    table.write_text("sequence,other\nAAA,CC\n")
    for _ in range(2):
        assert read(table).get("tokens", 0).tolist() == [5, 5, 5]
        assert read(table, sequence_column="other").get("tokens", 0).tolist() == [23, 23]
    assert len(set(builds)) == len(builds) == 2


def test_labels_of_other_classes_or_another_network_are_read_again(file, builds):
    table = file.with_suffix(".csv")
    table.write_text("sequence,label\nAAA,1\n")
    for changes in (
        {"network": "sequence_classifier", "model": {"classes": ["0", "1"]}},
        {"network": "sequence_classifier", "model": {"classes": ["1", "0"]}},
        {"network": "sequence_regressor"},
        {"network": "masked"},
    ):
        read_proteins(str(table), change(Settings(), **changes))
    assert len(set(builds)) == 4


def test_indexes_lie_in_the_folder_that_is_set_for_files_of_one_name_too(file, tmp_path, builds):
    other = tmp_path / "other" / file.name
    other.parent.mkdir()
    other.write_text(">x\nAA\n")
    for _ in range(2):
        assert contents(read(file, index_dir=str(tmp_path / "index"))) == [A, B, C]
        assert contents(read(other, index_dir=str(tmp_path / "index"))) == [("x", [5, 5])]
    assert len(builds) == 2
    assert not list(file.parent.glob("*.index")) and not list(other.parent.glob("*.index"))


def test_links_of_one_name_have_an_index_each_in_the_folder_that_is_set(file, tmp_path, builds):
    other = file.with_name("other.fasta")
    other.write_text(">x\nAA\n")
    links = [tmp_path / f"fold{n}" / "train.fasta" for n in range(2)]
    for link, target in zip(links, (file, other), strict=True):
        link.parent.mkdir()
        link.symlink_to(target)
    (tmp_path / "same").symlink_to(links[0].parent)
    for _ in range(2):
        for path in (links[0], tmp_path / "same" / "train.fasta"):
            assert contents(read(path, index_dir=str(tmp_path / "index"))) == [A, B, C]
        assert contents(read(links[1], index_dir=str(tmp_path / "index"))) == [("x", [5, 5])]
    assert len(builds) == 2


@pytest.mark.parametrize("damage", ["cut", "missing", "no json"])
def test_an_index_that_is_not_whole_is_built_again(file, builds, damage):
    read(file)
    if damage == "no json":
        (builds[0] / "meta.json").write_text("{")
    elif damage == "cut":
        os.truncate(builds[0] / "tokens.values", 5)
    else:
        (builds[0] / "name.offsets").unlink()
    assert contents(read(file)) == [A, B, C]
    assert len(builds) == 2


def test_a_build_that_fails_leaves_nothing(file):
    file.write_text(">a\nAAA\n>b\n1\n")
    with pytest.raises(DataError, match="'1' is no residue"):
        read(file)
    assert not list(Path(f"{file}.index").iterdir())


def test_a_folder_that_cannot_be_written_is_told(file, tmp_path):
    (tmp_path / "taken").write_text("a file, and no folder")
    with pytest.raises(DataError) as error:
        read(file, index_dir=str(tmp_path / "taken"))
    folder = re.escape(str(tmp_path / "taken"))
    told = rf"{folder}.* cannot be written \(Not a directory\): set --data\.index_dir to a folder that can"
    assert re.fullmatch(told, str(error.value))


def test_a_full_disk_is_told(file, monkeypatch):
    def write(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(index, "_write", write)
    with pytest.raises(DataError, match=r"cannot be written \(No space left on device\): set --data\.index_dir"):
        read(file)


@pytest.mark.parametrize("name", ["no.fasta", "."], ids=["missing", "folder"])
def test_a_file_that_cannot_be_read_is_told(file, name):
    with pytest.raises(DataError, match=r"cannot be read \(.+ directory\): check its name and its permissions"):
        read(file.parent / name)


# The bar


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(("stream", "draws"), [(Terminal, True), (io.StringIO, False)], ids=["terminal", "file"])
def test_a_bar_counts_the_bytes_of_a_file_that_takes_long_on_a_terminal_only(file, monkeypatch, stream, draws):
    monkeypatch.setattr(source, "_BAR_AFTER", 0)
    monkeypatch.setattr(sys, "stderr", stream())
    read(file)
    assert (f"index of {file.name}" in sys.stderr.getvalue()) == draws
    assert (f"{file.stat().st_size:.1f}/{file.stat().st_size:.1f} [" in sys.stderr.getvalue()) == draws


def test_no_bar_is_drawn_for_a_file_that_takes_no_time(file, monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    read(file)
    assert "index of" not in sys.stderr.getvalue()


# Several processes


def test_an_index_that_another_process_has_built_meanwhile_is_left_to_it(file, monkeypatch):
    write, theirs = index._write, []

    def write_after_them(*arguments):
        monkeypatch.setattr(index, "_write", write)
        read(file)
        theirs.append(meta_of(file))
        write(*arguments)

    monkeypatch.setattr(index, "_write", write_after_them)
    assert contents(read(file)) == [A, B, C]
    assert meta_of(file) == theirs[0]


@pytest.mark.parametrize("is_stale", [False, True], ids=["new", "stale"])
def test_builds_at_the_same_time_do_not_disturb_each_other(file, is_stale):
    if is_stale:
        read(file)
        os.utime(file, ns=(0, 0))
    together = Barrier(8)

    def read_together(_):
        together.wait()
        return read(file)

    with ThreadPoolExecutor(8) as pool:
        assert all(contents(proteins) == [A, B, C] for proteins in pool.map(read_together, range(8)))
    assert len(list(Path(f"{file}.index").iterdir())) == 1


@pytest.mark.parametrize("when", ["before", "while"])
def test_what_killed_builds_have_left_goes_and_what_is_being_built_stays(when, file, monkeypatch):
    folder, write = index._folder(file, None, {}), index._write

    def grow_old(*paths):
        for part in [part for path in paths for part in path.rglob("*")]:
            os.utime(part, (0, 0))

    with write_whole_folder(folder) as stopped:
        (stopped / "tokens.values").write_bytes(b"half")
        beside = stopped.parent
        killed, new = (beside.with_name(f".{folder.name}-{name}") for name in ("killed", "new"))
        for copy in (killed, new):
            shutil.copytree(beside, copy)  # nobody locks it

        def write_later(*arguments):
            assert killed.exists() == (when == "while")
            grow_old(killed)
            return write(*arguments)

        monkeypatch.setattr(index, "_write", write_later)
        grow_old(beside, *[killed] * (when == "before"))
        assert contents(read(file)) == [A, B, C]
        assert set(folder.parent.iterdir()) == {folder, beside, new}


def test_an_index_that_another_process_has_put_there_at_the_same_moment_will_do(file, monkeypatch):
    read(file)
    theirs = meta_of(file)
    found, opened = [], index._open

    def open_later(*arguments):
        found.append(None if len(found) < 2 else opened(*arguments))
        return found[-1]

    def replace(*_):
        raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY))

    monkeypatch.setattr(index, "_open", open_later)  # not there when it is looked for, nor before it is put there
    monkeypatch.setattr(os, "replace", replace)
    assert contents(read(file)) == [A, B, C]
    assert meta_of(file) == theirs
