"""Where the digits come from: `MNISTCustom` reads the full set, `EmbeddedMNIST` the sample inside this package.

`config.py` names `prepare`, `read_training` and `read_test`; what a dataset must answer says contracts/item.py.
"""

import gzip
import hashlib
import os
import zlib
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torchvision.datasets import MNIST

from ..contracts.item import DataError, Dataset
from ..contracts.view import split_validation
from .settings import DataSettings, Settings


def prepare(settings: Settings) -> None:
    """Fetch what is missing of the full set into `<root>/MNIST/raw` (55 MB unpacked), if the settings ask for it.

    Raises:
        DataError: the download failed, or a file that was already there is not MNIST's.
    """
    if settings.data.dataset == "full" and settings.data.download:
        for train in (True, False):
            MNISTCustom(settings.data.root, train, download=True)


def read_training(settings: Settings) -> tuple[Dataset, Dataset]:
    """Read the training file, of which the last digits are for validation."""
    return split_validation(_read(settings.data, train=True), settings.data.validation_size)


def read_test(settings: Settings) -> Dataset:
    """Read the test file."""
    return _read(settings.data, train=False)


def _read(settings: DataSettings, train: bool) -> "MNISTCustom":
    if settings.dataset == "full":
        return MNISTCustom(settings.root, train)
    if settings.root != DataSettings.root:
        raise DataError(
            f"--data.root {settings.root} holds no sample, which is in this package: add --data.dataset full, or "
            f"--data.root {DataSettings.root} for the sample"
        )
    return EmbeddedMNIST(train)


class MNISTCustom(MNIST):
    """MNIST as dict items, from torchvision's usual files in `<root>/MNIST/raw`.

    Images stay uint8 in memory and become float32 batch by batch: a quarter of the memory, and measured to be faster
    than gathering float32, because a batch reads a quarter of the bytes from all over the file.
    """

    # Of the unpacked files; torchvision checks what it downloads, never what it finds on disk.
    sha256: ClassVar[dict[str, str]] = {
        "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    }
    suffix = ""
    remedy = "run with --data.download true in another --data.root; docs/make-it-yours.md says how to use your own data"

    def __init__(self, root: str | Path, train: bool = True, download: bool = False) -> None:
        """Load one split into memory.

        Args:
            root: The folder that holds, or gets, `MNIST/raw`.
            train: The training file (60,000 digits), else the test file (10,000).
            download: Fetch whatever is missing with torchvision's own download.

        Raises:
            DataError: A file is missing, damaged or not MNIST's, or the download failed.
        """
        # Past MNIST.__init__, which would prefer an old `processed/*.pt` to the files that are checked here.
        super(MNIST, self).__init__(str(root))
        self.train = train
        if download:
            self.download()
        if not os.path.isdir(self.raw_folder):
            raise DataError(f"{self.raw_folder} is missing: run with --data.download true")
        split = "train" if train else "t10k"
        self.data = torch.from_numpy(self._read(f"{split}-images-idx3-ubyte"))
        self.targets = torch.from_numpy(self._read(f"{split}-labels-idx1-ubyte")).to(torch.int64)

    @property
    def raw_folder(self) -> str:
        """`<root>/MNIST/raw`; torchvision derives it from the class name and would look in `<root>/MNISTCustom`."""
        return str(Path(self.root) / "MNIST" / "raw")

    def download(self) -> None:
        """Fetch all four files if one is missing; DataError if that fails, or would overwrite what is not MNIST's."""
        for name in self.sha256:
            if Path(self.raw_folder, name).exists():
                self._read(name)
        try:
            super().download()
        except (OSError, RuntimeError) as error:
            reason = one_line(error)
            raise DataError(
                f"MNIST cannot be downloaded to {self.raw_folder}: check the network, or copy its four unpacked files "
                f"there by hand ({reason})"
            ) from error

    def _read(self, name: str) -> np.ndarray:
        return read_idx(Path(self.raw_folder) / f"{name}{self.suffix}", self.sha256[name], self.remedy)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return the digit at one position, `data` and `label` of `MnistItem`; IndexError if there is none."""
        data = self.data[index].unsqueeze(0).to(torch.float32).div_(255)
        return {"data": data, "label": self.targets[index].clone()}

    def __getitems__(self, indices: list[int]) -> dict[str, Any]:
        """Return B digits as one batch; IndexError if a position is not in 0 to len - 1."""
        label = self.targets.index_select(0, torch.tensor(indices))  # it refuses negative positions
        # NumPy, because torch wakes all threads for so little work: milliseconds on a machine with many cores
        data = np.divide(self.data.numpy()[indices, np.newaxis], 255, dtype=np.float32)
        return {"data": torch.from_numpy(data), "label": label}


class EmbeddedMNIST(MNISTCustom):
    """The sample inside this package: the first 10,000 training digits and all 10,000 test digits. No download."""

    sha256: ClassVar[dict[str, str]] = {
        **MNISTCustom.sha256,
        "train-images-idx3-ubyte": "2889698e6bc3614913e76901316712919d1998fc2b44512451bfe65bc1e668b1",
        "train-labels-idx1-ubyte": "651e38e2ac0632f5113ec18f1df4977117f953197819034009971a6675a0df78",
    }
    suffix = ".gz"
    remedy = "restore it from git, or reinstall this package"

    def __init__(self, train: bool = True) -> None:
        """Load one split into memory.

        Args:
            train: The first 10,000 digits of the training file, else the whole test file (10,000).

        Raises:
            DataError: A file of the package is missing or damaged.
        """
        super().__init__(Path(__file__).parent, train=train)

    @property
    def raw_folder(self) -> str:
        """The folder of the package that holds the sample."""
        return str(Path(self.root) / "sample")

    def download(self) -> None:
        """Fetch nothing: everything is in the package."""


def read_idx(path: Path, sha256: str, remedy: str) -> np.ndarray:
    """Read one IDX file (the format of MNIST's own files), unpacking it if its name ends in .gz.

    Args:
        path: The file.
        sha256: The checksum, in hexadecimal, of its unpacked bytes.
        remedy: What a person can do if it is damaged; ends the error's text.

    Returns:
        A new uint8 array of the shape that the file's header announces.

    Raises:
        DataError: The file is missing, unreadable, cut short, altered or another.
    """
    try:
        raw = path.read_bytes()
        if path.suffix == ".gz":
            raw = gzip.decompress(raw)
    except FileNotFoundError:
        raise DataError(f"{path} is missing: {remedy}") from None
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read ({one_line(error)}): {remedy}") from error
    if hashlib.sha256(raw).hexdigest() != sha256:
        raise DataError(f"{path} is not MNIST's, or damaged (its {len(raw):,} bytes have another checksum): {remedy}")
    ndim = raw[3]  # header: 0, 0, dtype (8 is uint8), ndim, then each dimension as a big-endian uint32
    shape = np.frombuffer(raw, dtype=">u4", count=ndim, offset=4)
    return np.frombuffer(raw, dtype=np.uint8, offset=4 + 4 * ndim).reshape(shape).copy()


def one_line(error: Exception) -> str:
    """Return the error's text on one line."""
    return " ".join(str(error).split())
