"""The generated project's network as the BioNeMo example trained its own: NeMo's strategy as it is, item by item.

Without Apex and Transformer Engine, as pip installs it. NeMo's strategy needs a GPU: the CPU backend is the project's.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from megatron.core.optimizer import OptimizerConfig
from nemo import lightning as nl
from nemo.lightning.data import WrappedDataLoader
from nemo.lightning.megatron_parallel import MegatronLossReduction
from nemo.lightning.pytorch.optim import CosineAnnealingScheduler, MegatronOptimizerModule
from nemo.lightning.pytorch.plugins import MegatronDataSampler, MegatronMixedPrecision
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.datasets import MNIST


class DictItems(Dataset[dict[str, Tensor]]):
    """torchvision's items as dicts, for as many samples as the training takes."""

    def __init__(self, digits: MNIST, num_samples: int) -> None:
        self.digits, self.num_samples = digits, num_samples
        self.order = torch.cat([torch.randperm(len(digits)) for _ in range(num_samples // len(digits) + 1)]).tolist()

    def __len__(self) -> int:
        return self.num_samples

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        image, label = self.digits[self.order[index]]
        return {"data": image, "label": torch.tensor(label), "idx": torch.tensor(index)}


class DataModule(pl.LightningDataModule):
    """What the example's data module amounts to."""

    def __init__(self, digits: MNIST, training: Any) -> None:
        super().__init__()
        self.digits, self.training = digits, training
        size = training.global_batch_size
        self.data_sampler = MegatronDataSampler(seq_len=28, micro_batch_size=size, global_batch_size=size)

    def train_dataloader(self) -> WrappedDataLoader:
        items = DictItems(self.digits, self.training.max_steps * self.training.global_batch_size)
        return WrappedDataLoader(mode="train", dataset=items)


class MeanSquaredError(MegatronLossReduction):
    """The example's loss: a mean over the micro batch, then over micro batches."""

    def forward(self, batch: dict[str, Tensor], forward_out: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        loss = F.mse_loss(forward_out["reconstruction"], batch["data"])
        return loss, {"avg": loss.detach().clone()}

    def reduce(self, losses_reduced_per_micro_batch: Any) -> Tensor:
        return torch.stack([each["avg"] for each in losses_reduced_per_micro_batch]).mean()


class Module(pl.LightningModule):
    """The example's LightningModule; NeMo's strategy logs."""

    def __init__(self, config: Any, training: Any, tick: Callable[[], None]) -> None:
        super().__init__()
        self.config, self.tick = config, tick
        optimizer = OptimizerConfig(
            optimizer="adam",
            lr=training.lr,
            min_lr=training.min_lr,
            weight_decay=training.weight_decay,
            clip_grad=training.clip_grad,
            use_distributed_optimizer=True,
        )
        schedule = CosineAnnealingScheduler(
            max_steps=training.max_steps, warmup_steps=training.warmup_steps, constant_steps=0, min_lr=training.min_lr
        )
        MegatronOptimizerModule(optimizer, lr_scheduler=schedule).connect(self)

    def configure_model(self) -> None:
        if not hasattr(self, "module"):
            self.module = self.config.configure_model()

    def forward(self, batch: dict[str, Tensor]) -> Any:
        return self.module(batch)

    forward_step = forward

    def training_step(self, batch: dict[str, Tensor], batch_idx: int | None = None) -> Any:
        return self(batch)

    def training_loss_reduction(self) -> MeanSquaredError:
        return MeanSquaredError()

    def on_train_batch_end(self, *args: Any) -> None:
        self.tick()


def train_with_nemo(config: Any, digits: MNIST, training: Any, tick: Callable[[], None], folder: Path) -> None:
    """Train with NeMo's trainer and strategy, without checkpoints."""
    trainer = nl.Trainer(
        accelerator="gpu",
        devices=1,
        strategy=nl.MegatronStrategy(),
        plugins=MegatronMixedPrecision(precision="32", params_dtype=torch.float32, pipeline_dtype=torch.float32),
        max_steps=training.max_steps,
        limit_val_batches=0,
        log_every_n_steps=training.log_every_n_steps,
        default_root_dir=str(folder),  # NeMo records the arguments, and a Path breaks pathlib
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Module(config, training, tick), DataModule(digits, training))
