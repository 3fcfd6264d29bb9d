"""The data module: which items train, validate, test and are predicted, and how far training has come in them.

NeMo's strategy takes `data_sampler` from here and replaces each loader's sampler by Megatron's, which reads positions
0, 1, 2, ... in sequence and gives every data parallel rank its share of each global batch. So the order of training
is the dataset's own (`resampling.py`), and its position is one number, the consumed samples, saved in checkpoints.
"""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from megatron.core.num_microbatches_calculator import update_num_microbatches
from nemo.lightning.data import WrappedDataLoader
from nemo.lightning.pytorch.plugins import MegatronDataSampler
from torch import Tensor
from torch.utils.data import Dataset

from .dataset import EmbeddedMNIST, MNISTCustom, download
from .item import SEQUENCE_LENGTH, DataError, MnistItem
from .resampling import Indexed, PaddedToMultiple, Resampling, collate, resample, split_validation

CONSUMED_SAMPLES = "consumed_samples"


class MNISTDataModule(pl.LightningDataModule):
    """MNIST for Megatron: batches of `MnistItem`, of one micro batch on one data parallel rank each."""

    def __init__(
        self,
        *,
        dataset: str = "sample",
        root: str = "data",
        download: bool = False,
        validation_size: int = 1_000,
        resampling: Resampling = "epochs",
        num_workers: int = 0,
        seed: int = 1234,
        max_steps: int = 1,
        micro_batch_size: int = 128,
        global_batch_size: int = 128,
    ) -> None:
        """Keep what is needed to build the loaders; nothing is read before `prepare_data` and `setup`.

        Args:
            dataset: "sample" (in the package) or "full" (torchvision's folder under `root`).
            root: where the full set is.
            download: fetch the full set if it is missing.
            validation_size: items at the end of the training file that are kept for validation.
            resampling: how training items are ordered, see `resampling.resample`.
            num_workers: loader processes for each rank.
            seed: of the training order.
            max_steps: optimizer steps of the run, which bound the training samples.
            micro_batch_size: items that a rank computes at once.
            global_batch_size: items of an optimizer step over all ranks.
        """
        super().__init__()
        self.trainer: pl.Trainer  # Lightning sets it before it asks for a loader or a state
        self.dataset, self.root, self.download = dataset, root, download
        self.validation_size, self.resampling, self.num_workers = validation_size, resampling, num_workers
        self.seed, self.max_steps, self.global_batch_size = seed, max_steps, global_batch_size
        self.data_sampler = MegatronDataSampler(
            seq_len=SEQUENCE_LENGTH,
            micro_batch_size=micro_batch_size,
            global_batch_size=global_batch_size,
            output_log=False,  # it would log constants in every step
        )

    def prepare_data(self) -> None:
        """Download what is missing; Lightning calls this in one process of each machine."""
        if self.dataset == "full" and self.download:
            download(self.root)

    def setup(self, stage: str) -> None:
        """Read the splits that the stage needs: `train` and `val` to fit or validate, `test` to test or predict.

        Raises:
            DataError: a file is missing or damaged, or there are too few items for validation.
        """
        if stage in ("fit", "validate"):
            whole = self._read(train=True)
            if not 0 < self.validation_size < len(whole):
                raise DataError(
                    f"--data.validation_size {self.validation_size} must be from 1 to {len(whole) - 1}: there are "
                    f"{len(whole)} training items"
                )
            self.train, self.val = split_validation(whole, self.validation_size)
        else:
            self.test = self._read(train=False)

    def _read(self, train: bool) -> MNISTCustom:
        return EmbeddedMNIST(train) if self.dataset == "sample" else MNISTCustom(self.root, train)

    def train_dataloader(self) -> WrappedDataLoader:
        """Return the loader of the whole run's samples; Megatron's sampler starts it at the consumed samples."""
        # the sampler counts steps from the one at which this loader begins
        self.data_sampler.init_global_step = self.trainer.global_step
        steps_to_go = self.max_steps - self.trainer.global_step
        # a resumed run may have another global batch than the one that consumed the first samples
        num_samples = self.data_sampler.init_consumed_samples + steps_to_go * self.global_batch_size
        return self._loader("train", resample(self.train, num_samples, self.seed, self.resampling))

    def val_dataloader(self) -> WrappedDataLoader:
        """Return the loader of the validation items, in order."""
        return self._evaluation_loader("validation", self.val)

    def test_dataloader(self) -> WrappedDataLoader:
        """Return the loader of all test items, in order."""
        return self._evaluation_loader("test", self.test)

    def predict_dataloader(self) -> WrappedDataLoader:
        """Return the loader of all test items, in order."""
        return self._evaluation_loader("predict", self.test)

    def test_images(self, idx: np.ndarray) -> np.ndarray:
        """Return test items as the report shows them, uint8 [N, height, width]."""
        return self.pictures(self.test.__getitems__(idx.tolist())["data"])

    @staticmethod
    def pictures(images: Tensor) -> np.ndarray:
        """Turn images or reconstructions, float [N, channels, height, width] of 0 to 1, into grey uint8 pictures."""
        grey = images.mean(dim=1).clamp(0, 1).mul(255).round()
        return grey.to(torch.uint8).numpy()

    def _evaluation_loader(self, mode: str, dataset: Indexed) -> WrappedDataLoader:
        return self._loader(mode, PaddedToMultiple(dataset, self.global_batch_size))

    def _loader(self, mode: str, dataset: Dataset[MnistItem]) -> WrappedDataLoader:
        return WrappedDataLoader(
            mode=mode,  # without it NeMo takes a loader for training, and starts it at the consumed samples
            dataset=dataset,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            collate_fn=collate,
        )

    def state_dict(self) -> dict[str, Any]:
        """Return the training position, for the checkpoint."""
        steps = self.trainer.global_step - self.data_sampler.init_global_step
        return {CONSUMED_SAMPLES: self.data_sampler.compute_consumed_samples(steps)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from the training position of a checkpoint, with whatever batch sizes this run has."""
        sampler, consumed = self.data_sampler, state_dict[CONSUMED_SAMPLES]
        sampler.init_consumed_samples = sampler.prev_consumed_samples = consumed
        sampler.if_first_step = 1
        update_num_microbatches(consumed_samples=consumed, consistency_check=False)
