"""Where the waves come from: train.npz and test.npz, which make_waves.py writes."""

from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor

from ..contracts.item import DataError, Dataset
from ..contracts.view import split_validation
from .settings import Settings


class Waves:
    """The waves of one file, in memory."""

    def __init__(self, path: Path) -> None:
        """Read the arrays wave [N, 64, 3], frequency [N] and amplitude [N].

        Raises:
            DataError: the file is missing or damaged, or lacks an array.
        """
        try:
            with np.load(path) as arrays:
                self.arrays = {name: torch.from_numpy(arrays[name]) for name in ("wave", "frequency", "amplitude")}
        except (OSError, EOFError, KeyError, ValueError, BadZipFile) as error:
            raise DataError(f"{path} cannot be read ({error}): python docs/waves/make_waves.py writes it") from error

    def __len__(self) -> int:
        """Return the number of waves."""
        return len(self.arrays["wave"])

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """Return one wave."""
        return {name: array[index] for name, array in self.arrays.items()}

    def __getitems__(self, indices: list[int]) -> dict[str, Tensor]:
        """Return B waves as one batch, much faster than one by one."""
        return {name: array[indices] for name, array in self.arrays.items()}


def read_training(settings: Settings) -> tuple[Dataset, Dataset]:
    """Keep the last waves of train.npz for validation."""
    return split_validation(Waves(Path(settings.data.root, "train.npz")), settings.data.validation_size)


def read_test(settings: Settings) -> Dataset:
    """Read test.npz."""
    return Waves(Path(settings.data.root, "test.npz"))
