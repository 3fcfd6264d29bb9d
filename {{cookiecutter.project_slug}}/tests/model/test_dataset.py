"""The digits: they are right, and what is wrong with them or with another dataset is told in one line."""

import gzip
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from torchvision.datasets import MNIST
from torchvision.transforms import ToTensor

from {{cookiecutter.__package_name}}.data.datamodule import checked
from {{cookiecutter.__package_name}}.data.dataset import EmbeddedMNIST, MNISTCustom, download
from {{cookiecutter.__package_name}}.data.item import IMAGE_SIDE, NUM_CLASSES, DataError
from {{cookiecutter.__package_name}}.data.resampling import collate

SPLITS = pytest.mark.parametrize("train", [True, False], ids=["train", "test"])


@pytest.fixture(scope="module")
def digits():
    """The embedded digits by split, loaded once."""
    return {train: EmbeddedMNIST(train=train) for train in (True, False)}


@pytest.fixture(scope="module")
def torchvision_root(digits, tmp_path_factory):
    """A folder as torchvision leaves it after a download, holding the embedded digits. Read only."""
    root = tmp_path_factory.mktemp("full")
    (root / "MNIST" / "raw").mkdir(parents=True)
    for packed in Path(digits[True].raw_folder).glob("*.gz"):
        (root / "MNIST" / "raw" / packed.stem).write_bytes(gzip.decompress(packed.read_bytes()))
    return root


@pytest.fixture
def sample_copy(digits, tmp_path, monkeypatch):
    """A copy of the sample that EmbeddedMNIST reads in place of its own, so that a test can damage it."""
    folder = tmp_path / "mnist_sample"
    shutil.copytree(digits[True].raw_folder, folder)
    monkeypatch.setattr(EmbeddedMNIST, "raw_folder", str(folder))
    return folder


def assert_same(a, b):
    """Equal keys, dtypes, shapes and bits."""
    assert a.keys() == b.keys()
    for key in a:
        assert a[key].dtype == b[key].dtype, key
        assert torch.equal(a[key], b[key]), key


def assert_message_for_a_person(message, *parts):
    assert "\n" not in message
    for part in parts:
        assert part in message


# The digits


@SPLITS
def test_values_are_torchvisions_bit_for_bit(digits, torchvision_root, train):
    theirs = MNIST(torchvision_root, train=train, transform=ToTensor())
    assert len(digits[train]) == len(theirs) == 10_000
    for index in [*range(500), 9_999]:
        image, label = theirs[index]
        item = digits[train][index]
        assert torch.equal(item["data"], image)
        assert item["label"].item() == label
        assert item["idx"].item() == index
    assert torch.equal(digits[train].data, theirs.data)
    assert torch.equal(digits[train].targets, theirs.targets)


@SPLITS
def test_items_have_the_agreed_shapes_dtypes_and_ranges(digits, train):
    batch = digits[train].__getitems__(list(range(10_000)))
    assert batch["data"].shape == (10_000, 1, IMAGE_SIDE, IMAGE_SIDE)
    assert batch["data"].dtype == torch.float32
    assert (batch["data"].min(), batch["data"].max()) == (0, 1)
    assert batch["label"].unique().tolist() == list(range(NUM_CLASSES))
    assert batch["label"].dtype == batch["idx"].dtype == torch.int64


def test_a_batch_is_its_items_stacked(digits):
    indices = [3, 9_999, 0, 3]
    assert_same(digits[True].__getitems__(indices), collate([digits[True][index] for index in indices]))


def test_positions_outside_are_refused(digits):
    assert digits[False][-1]["idx"].item() == 9_999, "an idx below 0 would pass for padding"
    for index in (10_000, -10_001):
        with pytest.raises(IndexError):
            digits[False][index]
    for indices in ([0, 10_000], [0, -1]):
        with pytest.raises(IndexError):
            digits[False].__getitems__(indices)


def test_items_do_not_share_memory_with_the_dataset(digits):
    digits[True][7]["label"].add_(1)
    digits[True][7]["data"].add_(1)
    digits[True].__getitems__([7])["label"].add_(1)
    assert digits[True][7]["label"].item() == 3
    assert digits[True][7]["data"].max() <= 1


def test_full_set_lies_where_torchvision_puts_it(digits, torchvision_root):
    full = MNISTCustom(torchvision_root, train=False)  # the test files are the official ones, so checksums hold
    assert full.raw_folder == MNIST(torchvision_root).raw_folder
    assert full.processed_folder == MNIST(torchvision_root).processed_folder
    assert_same(full[123], digits[False][123])


def test_an_old_processed_folder_is_not_preferred(digits, torchvision_root, tmp_path):
    shutil.copytree(torchvision_root, tmp_path, dirs_exist_ok=True)
    (tmp_path / "MNIST" / "processed").mkdir()
    for name in ("training.pt", "test.pt"):
        torch.save((torch.zeros(5, 28, 28), torch.zeros(5)), tmp_path / "MNIST" / "processed" / name)
    assert len(MNISTCustom(tmp_path, train=False)) == 10_000


def test_loading_leaves_the_package_alone(digits):
    folder = Path(digits[True].raw_folder)

    def snapshot():
        return [(path, path.stat().st_mtime_ns, path.stat().st_size) for path in [folder, *sorted(folder.iterdir())]]

    before = snapshot()
    EmbeddedMNIST(train=True)
    EmbeddedMNIST(train=False)
    assert snapshot() == before
    assert len(before) == 6, "the folder, four data files and their attribution"


def test_sample_is_attributed(digits):
    text = (Path(digits[True].raw_folder) / "ATTRIBUTION.md").read_text()
    for part in ("Yann LeCun", "Corinna Cortes", "creativecommons.org/licenses/by-sa/3.0", "first 10,000"):
        assert part in text


def test_item_imports_without_torch():
    name = "{{cookiecutter.__package_name}}.data.item"
    code = f"import sys, {name}; print(*set(sys.modules).intersection(['torch', 'numpy']))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == ""


# Damage


def remove(path):
    path.unlink()


def empty(path):
    path.write_bytes(b"")


def cut_short(path):
    path.write_bytes(path.read_bytes()[:-1000])


def flip_one_bit(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def change_one_pixel(path):
    data = bytearray(gzip.decompress(path.read_bytes()))
    data[-1] ^= 1
    path.write_bytes(gzip.compress(data, compresslevel=1))


def garble_the_packing(path):
    data = bytearray(path.read_bytes())
    data[10] = 0xFF  # the first byte after gzip's header; zlib knows no such block
    path.write_bytes(data)


def make_it_text(path):
    path.write_text("<html>404 not found</html>\n")


def make_it_a_folder(path):
    path.unlink()
    path.mkdir()


DAMAGE = {
    remove: "is missing",
    empty: "is damaged",
    cut_short: "cannot be read",
    flip_one_bit: "cannot be read",
    change_one_pixel: "is damaged",
    garble_the_packing: "cannot be read",
    make_it_text: "cannot be read",
    make_it_a_folder: "cannot be read",
}


@pytest.mark.parametrize("name", ["train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"])
@pytest.mark.parametrize("damage", DAMAGE, ids=lambda damage: damage.__name__)
def test_damaged_sample(sample_copy, damage, name):
    EmbeddedMNIST(train=True)
    damage(sample_copy / name)
    with pytest.raises(DataError) as caught:
        EmbeddedMNIST(train=True)
    assert_message_for_a_person(str(caught.value), str(sample_copy / name), DAMAGE[damage], "restore it from git")
    assert len(EmbeddedMNIST(train=False)) == 10_000


@pytest.mark.parametrize("name", ["t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"])
@pytest.mark.parametrize("damage", [remove, empty, cut_short, flip_one_bit], ids=lambda damage: damage.__name__)
def test_damaged_full_set(torchvision_root, tmp_path, damage, name):
    shutil.copytree(torchvision_root, tmp_path, dirs_exist_ok=True)
    path = tmp_path / "MNIST" / "raw" / name
    damage(path)
    with pytest.raises(DataError) as caught:
        MNISTCustom(tmp_path, train=False)
    what = "is missing" if damage is remove else "is damaged"
    assert_message_for_a_person(str(caught.value), str(path), what, "run with --data.download true")


def test_a_part_of_the_training_set_is_not_the_full_set(torchvision_root):
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte is damaged .its 7,840,016 bytes"):
        MNISTCustom(torchvision_root, train=True)


# The download (never over the network here)


def test_download_is_torchvisions_and_is_checked(torchvision_root, tmp_path, monkeypatch):
    calls = []

    def fake_download(self):
        calls.append(self.raw_folder)
        shutil.copytree(torchvision_root, tmp_path, dirs_exist_ok=True)

    monkeypatch.setattr(MNIST, "download", fake_download)
    with pytest.raises(DataError, match="train-images-idx3-ubyte is damaged"):
        download(tmp_path)
    monkeypatch.setattr(MNISTCustom, "sha256", EmbeddedMNIST.sha256)
    download(tmp_path)
    assert set(calls) == {str(tmp_path / "MNIST" / "raw")}


def test_nothing_is_downloaded_unasked(tmp_path, monkeypatch):
    monkeypatch.setattr(MNIST, "download", lambda self: pytest.fail("downloaded"))
    EmbeddedMNIST().download()
    with pytest.raises(DataError, match="is missing"):
        MNISTCustom(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_download_without_network(tmp_path, monkeypatch):
    def no_network(*args, **kwargs):
        raise URLError("Name or service\nnot known")

    monkeypatch.setattr("torchvision.datasets.mnist.download_and_extract_archive", no_network)
    with pytest.raises(DataError) as caught:
        download(tmp_path)
    assert_message_for_a_person(str(caught.value), str(tmp_path / "MNIST" / "raw"), "check the network", "not known")


# What a person is told

CPU = ("--accelerator", "cpu")
MISTAKES = {
    "another dtype": (
        lambda item: {**item, "data": item["data"].double()},
        "data of 2 items is float64 (2, 1, 28, 28)",
    ),
    "another shape": (
        lambda item: {**item, "data": item["data"][0]},
        "(2, 28, 28); data/item.py says float32 (2, 1, 28",
    ),
    "a label of another dtype": (
        lambda item: {**item, "label": item["label"].float()},
        "label of 2 items is float32 (2,)",
    ),
    "no such class": (
        lambda item: {**item, "label": item["label"] + 10},
        "item 0 has label 15; data/item.py says 0 to 9",
    ),
    "below all classes": (
        lambda item: {**item, "label": item["label"] - 6},
        "item 0 has label -1; data/item.py says 0",
    ),
    "no idx": (
        lambda item: {"data": item["data"], "label": item["label"]},
        "items have the keys data, label; data/item.py says data, label, idx",
    ),
    "a key too many": (
        lambda item: {**item, "name": item["idx"]},
        "items have the keys data, label, idx, name; data/item.py",
    ),
    "tuples": (lambda item: (item["data"], item["label"]), "the dataset gives a tuple; data/item.py says a dict"),
    "idx of something else": (lambda item: {**item, "idx": item["idx"] * 0}, "items [0, 9999] have the idx [0, 0]"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_an_item_that_breaks_the_contract_is_refused_before_a_run_begins(mistake, refused, run_dir, monkeypatch):
    spoil, words = MISTAKES[mistake]
    original = MNISTCustom.__getitem__
    monkeypatch.setattr(MNISTCustom, "__getitem__", lambda self, index: spoil(original(self, index)))
    monkeypatch.delattr(MNISTCustom, "__getitems__")
    assert words in refused("pretrain", *CPU, *run_dir)


def test_every_batch_is_held_against_the_contract(digits):
    batch = digits[True].__getitems__([3, 4, 5])
    assert checked(batch) is batch
    batch["label"][1] = 10
    with pytest.raises(DataError, match="item 4 has label 10"):
        checked(batch)
    with pytest.raises(DataError, match=r"data of 3 items is ndarray; data/item\.py says float32"):
        checked({**batch, "data": batch["data"].numpy()})


@pytest.mark.parametrize("size", ["10000", "60000"])
def test_more_validation_items_than_there_are_are_refused(size, refused, run_dir):
    assert "must be from 1 to 9999" in refused("pretrain", *CPU, *run_dir, "--data.validation_size", size)


@pytest.mark.slow
def test_a_folder_that_the_sample_does_not_read_is_refused(refused, run_dir):
    answer = refused("pretrain", *CPU, *run_dir, "--data.root", "there")
    assert "--data.root there holds no sample" in answer
    assert "add --data.dataset full, or --data.root data for the sample" in answer


@pytest.mark.slow
def test_missing_data_is_refused(refused, run_dir, tmp_path):
    words = ["--data.dataset", "full", "--data.root", tmp_path / "nothing"]
    assert "raw is missing: run with --data.download true" in refused("pretrain", *CPU, *run_dir, *words)


@pytest.mark.slow
def test_damaged_data_is_refused(refused, run_dir, monkeypatch):
    monkeypatch.setitem(EmbeddedMNIST.sha256, "train-labels-idx1-ubyte", "0" * 64)
    assert "train-labels-idx1-ubyte.gz is damaged" in refused("pretrain", *CPU, *run_dir)
