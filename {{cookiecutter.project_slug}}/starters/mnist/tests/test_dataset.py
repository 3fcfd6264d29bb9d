"""The digits: they are right, and what is wrong with them is told in one line."""

import gzip
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from conftest import change
from torchvision.datasets import MNIST
from torchvision.transforms import ToTensor

from {{cookiecutter.__package_name}}.contracts.item import DataError, Index, Indices, Key, checked, keys_of
from {{cookiecutter.__package_name}}.contracts.view import collate
from {{cookiecutter.__package_name}}.model.dataset import (
    EmbeddedMNIST,
    MNISTCustom,
    prepare,
    read_test,
    read_training,
)
from {{cookiecutter.__package_name}}.model.item import IMAGE_SIDE, NUM_CLASSES, MnistItem
from {{cookiecutter.__package_name}}.model.settings import Settings

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
    folder = tmp_path / "sample"
    shutil.copytree(digits[True].raw_folder, folder)
    monkeypatch.setattr(EmbeddedMNIST, "raw_folder", str(folder))
    return folder


def assert_same(a, b):
    """Equal keys, dtypes, shapes and bits."""
    assert a.keys() == b.keys()
    for key in a:
        assert a[key].dtype == b[key].dtype, key
        assert torch.equal(a[key], b[key]), key


def take(dataset, positions):
    return dataset.__getitems__(Indices(positions, [0] * len(positions), seed=0))


def full(root, **changes):
    return change(Settings(), data={"dataset": "full", "root": str(root), **changes})


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
    assert torch.equal(digits[train].data, theirs.data)
    assert torch.equal(digits[train].targets, theirs.targets)


@SPLITS
def test_items_are_what_the_contract_says(digits, train):
    batch = take(digits[train], list(range(10_000)))
    keys = keys_of(MnistItem, lambda word: pytest.fail(f"no setting decides {word}"))
    assert checked({**batch, "idx": torch.arange(10_000)}, keys)
    assert keys["data"].shape == (1, IMAGE_SIDE, IMAGE_SIDE) and keys["label"] == Key("int64", below=NUM_CLASSES)
    assert (batch["data"].min(), batch["data"].max()) == (0, 1)
    assert batch["label"].unique().tolist() == list(range(NUM_CLASSES))


def test_a_batch_is_its_items_stacked(digits):
    positions = [3, 9_999, 0, 3]
    assert_same(take(digits[True], positions), collate([digits[True][Index(position)] for position in positions]))


def test_positions_outside_are_refused(digits):
    for index in (10_000, -10_001):
        with pytest.raises(IndexError):
            digits[False][index]
    for positions in ([0, 10_000], [0, -1]):
        with pytest.raises(IndexError):
            take(digits[False], positions)


def test_items_do_not_share_memory_with_the_dataset(digits):
    digits[True][7]["label"].add_(1)
    digits[True][7]["data"].add_(1)
    take(digits[True], [7])["label"].add_(1)
    assert digits[True][7]["label"].item() == 3
    assert digits[True][7]["data"].max() <= 1


def test_full_set_lies_where_torchvision_puts_it(digits, torchvision_root):
    found = read_test(full(torchvision_root))  # the test files are the official ones, so checksums hold
    assert found.raw_folder == MNIST(torchvision_root).raw_folder
    assert_same(found[123], digits[False][123])


def test_the_last_training_digits_are_for_validation(digits):
    train, validation = read_training(change(Settings(), data={"validation_size": 1_000}))
    assert (len(train), len(validation), len(read_test(Settings()))) == (9_000, 1_000, 10_000)
    for item, position in ((train[0], 0), (train[8_999], 8_999), (validation[0], 9_000), (validation[999], 9_999)):
        assert_same(item, {**digits[True][position], "idx": torch.tensor(position)})


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
    name = "{{cookiecutter.__package_name}}.model.item"
    code = f"import sys, {name}; print(*set(sys.modules).intersection(['torch', 'numpy']))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=900, check=True)
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
    empty: "or damaged",
    cut_short: "cannot be read",
    flip_one_bit: "cannot be read",
    change_one_pixel: "or damaged",
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
    what = "is missing" if damage is remove else "is not MNIST's, or damaged"
    assert_message_for_a_person(str(caught.value), str(path), what, "run with --data.download true")


def test_a_part_of_the_training_set_is_not_the_full_set(torchvision_root):
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte is not MNIST's, or damaged .its 7,840,016 bytes"):
        MNISTCustom(torchvision_root, train=True)


# The download (never over the network here)


def test_a_download_is_torchvisions_and_is_checked(torchvision_root, tmp_path, monkeypatch):
    calls = []

    def fake_download(self):
        calls.append(self.raw_folder)
        shutil.copytree(torchvision_root, tmp_path, dirs_exist_ok=True)

    monkeypatch.setattr(MNIST, "download", fake_download)
    with pytest.raises(DataError, match="train-images-idx3-ubyte is not MNIST's"):
        prepare(full(tmp_path, download=True))
    monkeypatch.setattr(MNISTCustom, "sha256", EmbeddedMNIST.sha256)
    prepare(full(tmp_path, download=True))
    assert set(calls) == {str(tmp_path / "MNIST" / "raw")}


@pytest.mark.parametrize("missing", [True, False])
def test_data_of_ones_own_are_told_from_mnist_and_left_alone(torchvision_root, tmp_path, monkeypatch, missing):
    """Also where torchvision would fetch all four files, since one is missing, over those that are there."""
    shutil.copytree(torchvision_root, tmp_path, dirs_exist_ok=True)
    raw = tmp_path / "MNIST" / "raw"
    mine = b"\0\0\x08\x03" + b"\0\0\0\x02" * 3 + bytes(range(8))
    (raw / "t10k-images-idx3-ubyte").write_bytes(mine)
    if missing:
        (raw / "t10k-labels-idx1-ubyte").unlink()
    monkeypatch.setattr(MNIST, "download", lambda self: pytest.fail("downloaded"))
    monkeypatch.setattr(MNISTCustom, "sha256", EmbeddedMNIST.sha256)
    with pytest.raises(DataError) as caught:
        MNISTCustom(tmp_path, train=False, download=missing)
    told = "t10k-images-idx3-ubyte is not MNIST's", "another --data.root", "docs/make-it-yours.md"
    assert_message_for_a_person(str(caught.value), *told)
    assert "delete" not in str(caught.value) and (raw / "t10k-images-idx3-ubyte").read_bytes() == mine


def test_nothing_is_downloaded_unasked(tmp_path, monkeypatch):
    monkeypatch.setattr(MNIST, "download", lambda self: pytest.fail("downloaded"))
    EmbeddedMNIST().download()
    prepare(change(Settings(), data={"download": True}))
    prepare(full(tmp_path))
    with pytest.raises(DataError, match="is missing"):
        read_training(full(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_a_download_without_a_network_is_told(tmp_path, monkeypatch):
    def no_network(*args, **kwargs):
        raise URLError("Name or service\nnot known")

    monkeypatch.setattr("torchvision.datasets.mnist.download_and_extract_archive", no_network)
    with pytest.raises(DataError) as caught:
        prepare(full(tmp_path, download=True))
    assert_message_for_a_person(str(caught.value), str(tmp_path / "MNIST" / "raw"), "check the network", "not known")
