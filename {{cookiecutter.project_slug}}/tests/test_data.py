"""The data room: the digits are right, their order is a pure function, and damage is reported in one line."""

import gzip
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader
from torchvision.datasets import MNIST
from torchvision.transforms import ToTensor

from {{cookiecutter.__package_name}}.data.datamodule import checked
from {{cookiecutter.__package_name}}.data.dataset import EmbeddedMNIST, MNISTCustom, download
from {{cookiecutter.__package_name}}.data.item import IMAGE_SIDE, NUM_CLASSES, PADDING_IDX, DataError
from {{cookiecutter.__package_name}}.data.resampling import (
    PaddedToMultiple,
    Section,
    ShuffledEpochs,
    collate,
    permutation,
    resample,
    split_validation,
)

PINNED_SEED_0 = [3, 2, 1, 8, 6, 0, 7, 4, 5, 9, 7, 4, 5, 1, 9, 8, 6, 2, 0, 3, 0, 4, 6, 3, 9]
PINNED_SEED_1 = [9, 2, 4, 7, 5, 0, 8, 6, 3, 1]
PINNED_EPOCH_7 = [2205, 1697, 8298, 9341, 5699]
SPLITS = pytest.mark.parametrize("train", [True, False], ids=["train", "test"])


class Numbers:
    """A dataset of somebody else's: one item at a time, no `__getitems__`; item i holds i everywhere."""

    def __init__(self, size):
        self.size = size

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        assert type(index) is int
        return {"data": torch.full((1, 2, 2), float(index)), "label": torch.tensor(index), "idx": torch.tensor(index)}


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


def idx_of(dataset, indices=None):
    return dataset.__getitems__(list(range(len(dataset)) if indices is None else indices))["idx"].tolist()


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


# Shuffled epochs


def test_every_epoch_holds_every_item_once_in_an_order_of_its_own():
    n = 1_000
    order = idx_of(ShuffledEpochs(Numbers(n), num_samples=3 * n, seed=1))
    epochs = [tuple(order[start : start + n]) for start in range(0, 3 * n, n)]
    for epoch in epochs:
        assert sorted(epoch) == list(range(n))
    assert len(set(epochs)) == 3
    assert tuple(range(n)) not in epochs


def test_order_never_changes():
    """Pinned: a change here means that no earlier run can be resumed or repeated."""
    assert idx_of(ShuffledEpochs(Numbers(10), 25, seed=0)) == PINNED_SEED_0
    assert idx_of(ShuffledEpochs(Numbers(10), 10, seed=1)) == PINNED_SEED_1
    assert idx_of(ShuffledEpochs(Numbers(10_000), 80_000, seed=42), range(70_000, 70_005)) == PINNED_EPOCH_7


def test_sample_k_depends_on_nothing_but_k():
    def fresh():
        return ShuffledEpochs(Numbers(50), num_samples=220, seed=3)

    expected = idx_of(fresh())
    shuffled = fresh()
    for k in np.random.default_rng(0).permutation(220).tolist():
        assert shuffled[k]["idx"].item() == expected[k]
    backwards = list(range(219, -1, -1))
    assert idx_of(shuffled, backwards) == expected[::-1]
    for start in range(0, 220, 30):  # as a resumed run would ask
        assert idx_of(fresh(), range(start, 220)) == expected[start:]
    assert idx_of(pickle.loads(pickle.dumps(shuffled))) == expected  # as a worker process would


def test_longer_run_begins_like_the_shorter_one():
    assert idx_of(ShuffledEpochs(Numbers(50), 500, seed=3))[:70] == idx_of(ShuffledEpochs(Numbers(50), 70, seed=3))


def test_a_batch_across_epochs_shuffles_each_of_them_once():
    permutation.cache_clear()
    shuffled = ShuffledEpochs(Numbers(50), 100, seed=3)
    for _ in range(3):
        shuffled.__getitems__([48, 49, 50, 51])
    assert permutation.cache_info().misses == 2
    with pytest.raises(ValueError, match="read-only"):
        permutation(50, 3, 0)[0] = 0


def test_seeds_differ():
    assert idx_of(ShuffledEpochs(Numbers(50), 50, seed=3)) != idx_of(ShuffledEpochs(Numbers(50), 50, seed=4))


def test_shuffled_batch_is_the_items(digits):
    shuffled = ShuffledEpochs(digits[True], num_samples=30_000, seed=0)
    indices = [0, 9_999, 10_000, 25_000, 5]
    batch = shuffled.__getitems__(indices)
    assert_same(batch, collate([shuffled[k] for k in indices]))
    assert_same(batch, digits[True].__getitems__(batch["idx"].tolist()))


def test_shuffling_refuses_nonsense():
    with pytest.raises(ValueError, match="0 items"):
        ShuffledEpochs(Numbers(0), 10, seed=0)
    with pytest.raises(ValueError, match="seed -1"):
        ShuffledEpochs(Numbers(5), 10, seed=-1)


# Sections, padding, bounds


@pytest.mark.parametrize("validation_size", [0, 1, 3, 9])
def test_split_is_disjoint_and_complete(validation_size):
    train, validation = split_validation(Numbers(10), validation_size)
    assert idx_of(train) == list(range(10 - validation_size))
    assert idx_of(validation) == list(range(10 - validation_size, 10)) if validation_size else len(validation) == 0


def test_split_keeps_positions_of_the_file(digits):
    _, validation = split_validation(digits[True], 1_000)
    assert_same(validation[0], digits[True][9_000])
    assert_same(validation.__getitems__([0, 999]), digits[True].__getitems__([9_000, 9_999]))
    assert sorted(idx_of(ShuffledEpochs(validation, 1_000, seed=0))) == list(range(9_000, 10_000))


def test_split_refuses_nonsense():
    for validation_size in (-1, 10, 11):
        with pytest.raises(ValueError, match=f"validation_size is {validation_size}, and must be from 0 to 9"):
            split_validation(Numbers(10), validation_size)
    for start, stop in ((-1, 5), (5, 11), (6, 5)):
        with pytest.raises(ValueError, match=f"from {start} to {stop}"):
            Section(Numbers(10), start, stop)


@pytest.mark.parametrize(("size", "multiple", "length"), [(10, 4, 12), (8, 4, 8), (1, 4, 4), (5, 1, 5), (3, 8, 8)])
def test_padding_fills_up_with_marked_items(size, multiple, length):
    padded = PaddedToMultiple(Numbers(size), multiple)
    batch = padded.__getitems__(list(range(length)))
    assert len(padded) == length
    assert batch["idx"].tolist() == list(range(size)) + [PADDING_IDX] * (length - size)
    assert batch["label"].tolist() == list(range(size)) + [0] * (length - size)
    assert batch["data"][:, 0, 0, 0].tolist() == list(range(size)) + [0] * (length - size)
    assert_same(batch, collate([padded[index] for index in range(length)]))


def test_padding_does_not_mark_the_real_items(digits):
    padded = PaddedToMultiple(Section(digits[False], 0, 5), 8)
    assert PADDING_IDX < 0
    assert padded[7]["idx"].item() == PADDING_IDX
    assert padded[0]["idx"].item() == 0
    assert idx_of(padded) == [0, 1, 2, 3, 4, PADDING_IDX, PADDING_IDX, PADDING_IDX]
    assert idx_of(padded.dataset) == [0, 1, 2, 3, 4]


def test_padding_refuses_nonsense():
    with pytest.raises(ValueError, match="multiple of 0"):
        PaddedToMultiple(Numbers(10), 0)


@pytest.mark.parametrize(
    "view",
    [Section(Numbers(20), 5, 12), ShuffledEpochs(Numbers(5), 7, seed=0), PaddedToMultiple(Numbers(5), 7)],
    ids=lambda view: type(view).__name__,
)
def test_views_refuse_positions_outside(view):
    assert len(view) == len(idx_of(view)) == 7
    for index in (-1, 7):
        with pytest.raises(IndexError, match=f"index {index} is outside of 0 to 6"):
            view[index]
        with pytest.raises(IndexError, match=f"index {index} is outside of 0 to 6"):
            view.__getitems__([0, index])


# Batches


def test_collate_passes_a_ready_batch_and_stacks_items(digits):
    batch = digits[True].__getitems__([1, 2])
    assert collate(batch) is batch
    assert_same(collate([digits[True][1], digits[True][2]]), batch)


def test_data_loader_fetches_ready_batches(digits, monkeypatch):
    monkeypatch.setattr(MNISTCustom, "__getitem__", lambda self, index: pytest.fail("fetched item by item"))
    shuffled = ShuffledEpochs(digits[True], num_samples=100, seed=5)
    batches = list(DataLoader(shuffled, batch_size=32, collate_fn=collate))
    assert [len(batch["idx"]) for batch in batches] == [32, 32, 32, 4]
    assert torch.cat([batch["idx"] for batch in batches]).tolist() == idx_of(shuffled)


# The choice of resampling


def test_resample_is_ours_by_default():
    assert isinstance(resample(Numbers(10), 25, seed=0), ShuffledEpochs)
    assert idx_of(resample(Numbers(10), 25, seed=0)) == PINNED_SEED_0


def test_resample_refuses_other_kinds():
    with pytest.raises(ValueError, match="'bootstrap', and must be epochs, multi_epoch or prng"):
        resample(Numbers(10), 25, seed=0, kind="bootstrap")


@pytest.mark.parametrize("kind", ["multi_epoch", "prng"])
def test_bionemo_resamplers(digits, kind):
    pytest.importorskip("bionemo.core")
    n, num_samples = 100, 250
    part = Section(digits[True], 0, n)

    def order(seed):
        loader = DataLoader(resample(part, num_samples, seed, kind), batch_size=32, collate_fn=collate)
        batches = list(loader)
        for batch in batches:
            assert_same(batch, digits[True].__getitems__(batch["idx"].tolist()))
        return torch.cat([batch["idx"] for batch in batches]).tolist()

    first = order(seed=1)
    assert len(first) == num_samples
    assert first == order(seed=1)
    assert first != order(seed=2)
    samples = resample(part, num_samples, 1, kind)
    assert [samples[k]["idx"].item() for k in (249, 3, 120)] == [first[k] for k in (249, 3, 120)]
    is_permutation = sorted(first[:n]) == sorted(first[n : 2 * n]) == list(range(n))
    assert is_permutation == (kind == "multi_epoch"), "prng draws with replacement"


@pytest.mark.parametrize("kind", ["multi_epoch", "prng"])
def test_bionemo_missing(monkeypatch, kind):
    for module in ("multi_epoch_dataset", "resamplers"):
        monkeypatch.setitem(sys.modules, f"bionemo.core.data.{module}", None)
    with pytest.raises(DataError) as caught:
        resample(Numbers(10), 25, seed=0, kind=kind)
    command = 'pip install "mnist-megatron[bionemo]"'
    assert_message_for_a_person(str(caught.value), kind, command)


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
def test_missing_data_is_refused(refused, run_dir, tmp_path):
    words = ["--data.dataset", "full", "--data.root", tmp_path / "nothing"]
    assert "train-images-idx3-ubyte is missing" in refused("pretrain", *CPU, *run_dir, *words)


@pytest.mark.slow
def test_damaged_data_is_refused(refused, run_dir, monkeypatch):
    monkeypatch.setitem(EmbeddedMNIST.sha256, "train-labels-idx1-ubyte", "0" * 64)
    assert "train-labels-idx1-ubyte.gz is damaged" in refused("pretrain", *CPU, *run_dir)
