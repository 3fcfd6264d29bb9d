"""The data module: which items train, validate, test and are predicted, and how far training has come in them.

NeMo's strategy takes `data_sampler` from here and replaces each loader's sampler by Megatron's, which reads positions
0, 1, 2, ... in sequence and gives every data parallel rank its share of each global batch. So the order of training
is a view's (`resampling.py`), and its position is one number, the consumed samples, saved in checkpoints.
"""

from __future__ import annotations

import zlib
from functools import partial
from typing import Any

import lightning.pytorch as pl
import torch
from megatron.core.num_microbatches_calculator import update_num_microbatches
from nemo.lightning.data import WrappedDataLoader
from torch import Tensor

from ..contracts.config import NetworkConfig
from ..contracts.errors import UserError
from ..contracts.item import DataError, Dataset, Key, checked, keys_for
from ..contracts.names import SETTINGS_FILE
from ..contracts.settings import RunSettings
from ..contracts.view import Section, View, collate, innermost
from ..runtime.loader import Sampler
from .resampling import PaddedToMultiple, resample
from .run_settings import kept, others_than

CONSUMED_SAMPLES, FINGERPRINT, KEPT = "consumed_samples", "fingerprint", "settings"


class DataModule(pl.LightningDataModule):
    """The data of a network for Megatron: batches of one micro batch on one data parallel rank each."""

    def __init__(self, config: type[NetworkConfig], settings: RunSettings) -> None:
        """Keep what is needed to build the loaders; nothing is read before `prepare_data` and `setup`.

        Args:
            config: of the network, which says how its data are read.
            settings: of the run.
        """
        super().__init__()
        self.trainer: pl.Trainer  # Lightning sets it before it asks for a loader or a state
        self.config, self.settings = config, settings
        self.is_resumed = False
        self.data_sampler = Sampler(
            seq_len=settings.sequence_length,
            micro_batch_size=settings.micro_batch_size,
            global_batch_size=settings.training.global_batch_size,
            output_log=False,  # it would log constants in every step
        )

    def prepare_data(self) -> None:
        """Download what is missing; Lightning calls this in one process of each machine."""
        self.config.prepare(self.settings)

    def setup(self, stage: str) -> None:
        """Read what the stage needs: `train` and `validation` to fit or validate, `test` to test or predict.

        Raises:
            DataError: a file is missing or damaged, or an item is not what `model/item.py` says.
        """
        self.keys = keys_for(self.config.item_class, self.settings)
        if stage in ("fit", "validate"):
            self.train, self.validation = self._read("read_training", "training", "validation")
            ends = _check_ends(self.train, self.keys)  # before a run folder is made
            whole = getattr(innermost(self.train), "fingerprint", None)
            self.fingerprint = (*ends, whole()) if callable(whole) else ends
        elif stage == "test":
            [self.test] = self._read("read_test", "test")
        elif not hasattr(self, "test"):  # else it is the outputs of what was tested that are wanted
            [self.test] = self._read("read_predict", "prediction")

    def _read(self, method: str, *kinds: str) -> tuple[Dataset, ...]:
        """Return what a method of the config reads: a dataset of each kind; DataError if one lacks or is empty."""
        found = getattr(self.config, method)(self.settings)
        datasets = found if isinstance(found, tuple) else (found,)
        where = f"model/config.py: {self.config.__name__}.{method}"
        if len(datasets) != len(kinds) or not all(hasattr(dataset, "__len__") for dataset in datasets):
            given = ", ".join(type(dataset).__name__ for dataset in datasets)
            wanted = " and ".join(f"a {kind} set" for kind in kinds)
            raise DataError(f"{where} gives {given}: return {wanted}, datasets as model/item.py says")
        if empty := [kind for kind, dataset in zip(kinds, datasets, strict=True) if not len(dataset)]:
            raise DataError(f"{where} gives no {empty[0]} items: look into what it reads")
        return datasets

    def train_dataloader(self) -> WrappedDataLoader:
        """Return the loader of the whole run's samples; Megatron's sampler starts it at the consumed samples."""
        # the sampler counts steps from the one at which this loader begins
        self.data_sampler.init_global_step = self.trainer.global_step
        if self.trainer.global_step and not self.is_resumed:
            raise UserError(
                "the checkpoint does not say how far in the data it is: another version of this project saved it; "
                "finish the run with that one, or begin a new run in another --run_dir"
            )
        training = self.settings.training
        steps_to_go = training.max_steps - self.trainer.global_step
        # a resumed run may have another global batch than the one that consumed the first samples
        num_samples = self.data_sampler.init_consumed_samples + steps_to_go * training.global_batch_size
        kind = self.settings.data.resampling
        return self._loader("train", resample(self.train, num_samples, self.settings.seed, kind))

    def val_dataloader(self) -> WrappedDataLoader:
        """Return the loader of the validation items, in order."""
        return self._evaluation_loader("validation", self.validation)

    def test_dataloader(self) -> WrappedDataLoader:
        """Return the loader of all test items, in order."""
        return self._evaluation_loader("test", self.test)

    def predict_dataloader(self) -> WrappedDataLoader:
        """Return the loader of all items to predict, in order."""
        return self._evaluation_loader("predict", self.test)

    def _evaluation_loader(self, mode: str, dataset: Dataset) -> WrappedDataLoader:
        batch = self.settings.training.global_batch_size
        return self._loader(mode, PaddedToMultiple(dataset, batch, self.settings.seed))

    def _loader(self, mode: str, view: View) -> WrappedDataLoader:
        workers = self.settings.data.num_workers
        return WrappedDataLoader(
            mode=mode,  # without it NeMo takes a loader for training, and starts it at the consumed samples
            dataset=view,
            num_workers=workers,
            persistent_workers=workers > 0,
            timeout=60 * self.settings.parallel.timeout_minutes if workers else 0,
            collate_fn=partial(_collate, self.keys),
        )

    def state_dict(self) -> dict[str, Any]:
        """Return the training position, in which data and of which run, for the checkpoint."""
        steps = self.trainer.global_step - self.data_sampler.init_global_step
        consumed = self.data_sampler.compute_consumed_samples(steps)
        return {CONSUMED_SAMPLES: consumed, FINGERPRINT: self.fingerprint, KEPT: kept(self.settings)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from the training position of a checkpoint, with whatever batch sizes this run has.

        Raises:
            UserError: the checkpoint is another run's.
            DataError: the training items are others than those that the run began with.
        """
        if others := others_than(state_dict.get(KEPT, {}), self.settings):  # older versions did not save them
            raise UserError(
                f"the checkpoint is not of the run in {self.settings.run_dir}, or its {SETTINGS_FILE} was changed: it "
                f"has {others}; put back what belongs to the run, or begin a new one in another --run_dir"
            )
        if any(was != now for was, now in zip(state_dict[FINGERPRINT], self.fingerprint, strict=False)):
            raise DataError(
                "the training data are not those that the run began with (their number, or what is in them): resume "
                "with those, or begin a new run in another --run_dir"
            )
        sampler, consumed = self.data_sampler, state_dict[CONSUMED_SAMPLES]
        sampler.init_consumed_samples = sampler.prev_consumed_samples = consumed
        sampler.if_first_step = 1
        self.is_resumed = True
        update_num_microbatches(consumed_samples=consumed, consistency_check=False)


def _collate(keys: dict[str, Key], batch: Any) -> Any:
    return checked(collate(batch), keys)


def _check_ends(dataset: Dataset, keys: dict[str, Key]) -> tuple[int, int]:
    """Return what tells a dataset from another: the number of items, and a checksum of the first and the last.

    Raises:
        DataError: one of these two is not what it should be, or not when it is asked for again.
    """
    items, last = Section(dataset, 0, len(dataset)), len(dataset) - 1
    batch = checked(items.__getitems__([0, last]), keys)
    again = checked(items.__getitems__([last, 0, 0]), keys)  # which shows whoever sorts, turns round or leaves out
    if others := [key for key in keys if not _equal(again[key], batch[key][[1, 0, 0]])]:
        raise DataError(
            f"{', '.join(others)} of an item is another when it is asked for again: random parts must come from "
            "index.random(), and __getitems__ must answer in the order of its indices"
        )
    tensors: list[Tensor] = [batch[key] for key in sorted(batch)]
    content = b"".join(tensor.reshape(-1).view(torch.uint8).numpy().tobytes() for tensor in tensors)
    return len(dataset), zlib.crc32(content)


def _equal(one: Tensor, other: Tensor) -> bool:
    """Tell whether two tensors are the same but for rounding, which may depend on how many items are computed."""
    if one.is_floating_point():
        return torch.allclose(one, other, rtol=1e-2, atol=1e-5, equal_nan=True)
    return one.equal(other)
