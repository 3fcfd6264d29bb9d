"""The data module: which items train, validate, test and are predicted, and how far training has come in them.

NeMo's strategy takes `data_sampler` from here and replaces each loader's sampler by Megatron's, which reads positions
0, 1, 2, ... in sequence and gives every data parallel rank its share of each global batch. So the order of training
is the dataset's own (`resampling.py`), and its position is one number, the consumed samples, saved in checkpoints.
"""

from __future__ import annotations

import zlib
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from megatron.core.num_microbatches_calculator import update_num_microbatches
from nemo.lightning.data import WrappedDataLoader
from nemo.lightning.pytorch.plugins import MegatronDataSampler
from torch import Tensor
from torch.utils.data import Dataset

from ..settings import DataSettings
from .dataset import pictures, prepare, read
from .item import NUM_CLASSES, SEQUENCE_LENGTH, DataError, MnistItem
from .resampling import Indexed, PaddedToMultiple, Section, collate, resample, split_validation

CONSUMED_SAMPLES, FINGERPRINT = "consumed_samples", "fingerprint"


class MNISTDataModule(pl.LightningDataModule):
    """The data for Megatron: batches of `MnistItem`, of one micro batch on one data parallel rank each."""

    def __init__(
        self,
        *,
        settings: DataSettings,
        seed: int = 1234,
        max_steps: int = 1,
        micro_batch_size: int = 128,
        global_batch_size: int = 128,
    ) -> None:
        """Keep what is needed to build the loaders; nothing is read before `prepare_data` and `setup`.

        Args:
            settings: which items are read, and in which order.
            seed: of the training order.
            max_steps: optimizer steps of the run, which bound the training samples.
            micro_batch_size: items that a rank computes at once.
            global_batch_size: items of an optimizer step over all ranks.
        """
        super().__init__()
        self.trainer: pl.Trainer  # Lightning sets it before it asks for a loader or a state
        self.settings, self.seed = settings, seed
        self.max_steps, self.global_batch_size = max_steps, global_batch_size
        self.data_sampler = MegatronDataSampler(
            seq_len=SEQUENCE_LENGTH,
            micro_batch_size=micro_batch_size,
            global_batch_size=global_batch_size,
            output_log=False,  # it would log constants in every step
        )

    def prepare_data(self) -> None:
        """Download what is missing; Lightning calls this in one process of each machine."""
        prepare(self.settings)

    def setup(self, stage: str) -> None:
        """Read the splits that the stage needs: `train` and `val` to fit or validate, `test` to test or predict.

        Raises:
            DataError: a file is missing or damaged, there are too few items for validation, or an item is not what
                `item.py` says.
        """
        if stage in ("fit", "validate"):
            whole, size = read(self.settings, train=True), self.settings.validation_size
            if not 0 < size < len(whole):
                raise DataError(
                    f"--data.validation_size {size} must be from 1 to {len(whole) - 1}: there are {len(whole)} "
                    "training items"
                )
            self.train, self.val = split_validation(whole, size)
            self.fingerprint = _check_ends(whole)  # before a run folder is made
        else:
            self.test = read(self.settings, train=False)

    def train_dataloader(self) -> WrappedDataLoader:
        """Return the loader of the whole run's samples; Megatron's sampler starts it at the consumed samples."""
        # the sampler counts steps from the one at which this loader begins
        self.data_sampler.init_global_step = self.trainer.global_step
        steps_to_go = self.max_steps - self.trainer.global_step
        # a resumed run may have another global batch than the one that consumed the first samples
        num_samples = self.data_sampler.init_consumed_samples + steps_to_go * self.global_batch_size
        return self._loader("train", resample(self.train, num_samples, self.seed, self.settings.resampling))

    def val_dataloader(self) -> WrappedDataLoader:
        """Return the loader of the validation items, in order."""
        return self._evaluation_loader("validation", self.val)

    def test_dataloader(self) -> WrappedDataLoader:
        """Return the loader of all test items, in order."""
        return self._evaluation_loader("test", self.test)

    def predict_dataloader(self) -> WrappedDataLoader:
        """Return the loader of all test items, in order."""
        return self._evaluation_loader("predict", self.test)

    def test_pictures(self) -> np.ndarray | None:
        """Return all test items as the report shows them, uint8 [N, height, width]; None if they are no pictures."""
        return pictures(Section(self.test, 0, len(self.test)).__getitems__(list(range(len(self.test))))["data"])

    def _evaluation_loader(self, mode: str, dataset: Indexed) -> WrappedDataLoader:
        return self._loader(mode, PaddedToMultiple(dataset, self.global_batch_size))

    def _loader(self, mode: str, dataset: Dataset[MnistItem]) -> WrappedDataLoader:
        return WrappedDataLoader(
            mode=mode,  # without it NeMo takes a loader for training, and starts it at the consumed samples
            dataset=dataset,
            num_workers=self.settings.num_workers,
            persistent_workers=self.settings.num_workers > 0,
            collate_fn=checked,
        )

    def state_dict(self) -> dict[str, Any]:
        """Return the training position and in which data, for the checkpoint."""
        steps = self.trainer.global_step - self.data_sampler.init_global_step
        return {CONSUMED_SAMPLES: self.data_sampler.compute_consumed_samples(steps), FINGERPRINT: self.fingerprint}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from the training position of a checkpoint, with whatever batch sizes this run has.

        Raises:
            DataError: the training items are others than those that the run began with.
        """
        if state_dict.get(FINGERPRINT, self.fingerprint) != self.fingerprint:  # older checkpoints have none
            raise DataError(
                "the training data are not those that the run began with (their number, the first or the last item): "
                "resume with those, or begin a new run in another --run_dir"
            )
        sampler, consumed = self.data_sampler, state_dict[CONSUMED_SAMPLES]
        sampler.init_consumed_samples = sampler.prev_consumed_samples = consumed
        sampler.if_first_step = 1
        update_num_microbatches(consumed_samples=consumed, consistency_check=False)


def checked(batch: MnistItem | list[MnistItem]) -> MnistItem:
    """Collate a batch, and hold it against `MnistItem`: in the network a wrong item is far harder to understand.

    Raises:
        DataError: a key is missing or too many, a tensor has another dtype or shape, or a label is no class.
    """
    batch = collate(batch)
    contract = MnistItem.__annotations__
    if batch.keys() != contract.keys():
        raise DataError(f"items have the keys {', '.join(batch)}; data/item.py says {', '.join(contract)}")
    size = batch["idx"].numel()
    for key, tensor in batch.items():
        dtype, shape = contract[key].__metadata__
        expected, found = f"{dtype} {(size, *shape)}", type(tensor).__name__
        if isinstance(tensor, Tensor):
            found = f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"
        if found != expected:
            raise DataError(f"{key} of {size} items is {found}; data/item.py says {expected}")
    label = batch["label"]
    if (outside := (label < 0) | (label >= NUM_CLASSES)).any():
        i = outside.nonzero()[0]
        raise DataError(
            f"item {int(batch['idx'][i])} has label {int(label[i])}; data/item.py says 0 to {NUM_CLASSES - 1}"
        )
    return batch


def _check_ends(dataset: Indexed) -> tuple[int, int]:
    """Return what tells a dataset from another: the number of items, and a checksum of the first and the last.

    Raises:
        DataError: one of these two is not what it should be.
    """
    ends = [0, len(dataset) - 1]
    batch = checked(Section(dataset, 0, len(dataset)).__getitems__(ends))
    if (found := batch["idx"].tolist()) != ends:
        raise DataError(f"items {ends} have the idx {found}; data/item.py says the position in the file")
    tensors: list[Tensor] = [batch[key] for key in sorted(batch)]  # type: ignore[literal-required]
    content = b"".join(tensor.reshape(-1).view(torch.uint8).numpy().tobytes() for tensor in tensors)
    return len(dataset), zlib.crc32(content)
