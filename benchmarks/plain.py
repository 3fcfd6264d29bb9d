"""What the generated project is compared with: the same autoencoder, written without Megatron or NeMo.

The same sizes, batch, digits, optimizer, clipping and learning rates, in the words that a user of PyTorch or Lightning
would choose, with their default settings.
"""

from __future__ import annotations

import gzip
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.datasets import MNIST
from torchvision.transforms import ToTensor

Batch = tuple[Tensor, Tensor]
"""images, float32 [B, 1, 28, 28] of 0 to 1, and labels, int64 [B]"""


# --- the network


def mlp(inputs: int, inner: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, inner), nn.GELU(), nn.Linear(inner, outputs))


class Block(nn.Module):
    def __init__(self, hidden: int, inner: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(hidden)
        self.mlp = mlp(hidden, inner, hidden)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.mlp(self.norm(x))


class Autoencoder(nn.Module):
    """The generated project's default network; an image is read as a sequence of its rows."""

    def __init__(self, layers: int, hidden: int, inner: int, latent: int, side: int = 28) -> None:
        super().__init__()
        self.stem = mlp(side, inner, hidden)
        self.blocks = nn.Sequential(*(Block(hidden, inner) for _ in range(layers)))
        self.norm = nn.LayerNorm(hidden)
        self.latent = nn.Linear(side * hidden, latent)
        self.rows = nn.Linear(latent, side * hidden)
        self.decoder_norm = nn.LayerNorm(hidden)
        self.pixels = mlp(hidden, inner, side)

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.norm(self.blocks(self.stem(images.squeeze(1))))
        rows = self.rows(F.gelu(self.latent(hidden.flatten(1))))
        return self.pixels(self.decoder_norm(rows.view_as(hidden))).unsqueeze(1)


# --- the data


def torchvision_digits(root: Path, sample: Path) -> MNIST:
    """The usual dataset: a PIL image and a transform for each item. Its files are the generated project's sample."""
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True, exist_ok=True)
    for packed in sample.glob("*.gz"):
        with gzip.open(packed) as source, (raw / packed.stem).open("wb") as target:
            shutil.copyfileobj(source, target)
    return MNIST(root, train=True, transform=ToTensor())


class InMemory(Dataset[Batch]):
    """The same digits as two tensors, of which a batch is taken at once."""

    def __init__(self, digits: MNIST) -> None:
        self.images = digits.data.unsqueeze(1).float() / 255
        self.labels = digits.targets

    def __len__(self) -> int:
        return len(self.labels)

    def __getitems__(self, indices: list[int]) -> Batch:
        return self.images[indices], self.labels[indices]


def loader(digits: MNIST | InMemory, batch_size: int, device: str) -> DataLoader[Batch]:
    if batch_size > len(digits):
        raise SystemExit(f"there are {len(digits)} digits, too few for a batch of {batch_size}")
    ready = {"collate_fn": lambda batch: batch} if isinstance(digits, InMemory) else {}
    return DataLoader(digits, batch_size, shuffle=True, drop_last=True, pin_memory=device == "cuda", **ready)


def for_ever(batches: DataLoader[Batch]) -> Iterator[Batch]:
    while True:
        yield from batches


# --- the training


def optimizer_and_schedule(network: nn.Module, training: Any) -> tuple[torch.optim.AdamW, Any]:
    """AdamW with a linear warm-up and a cosine decay; `training` is the generated project's TrainingSettings."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=training.lr, weight_decay=training.weight_decay)
    schedules = torch.optim.lr_scheduler
    warmup = schedules.LinearLR(optimizer, start_factor=0.02, total_iters=training.warmup_steps)
    decay = schedules.CosineAnnealingLR(
        optimizer, T_max=training.max_steps - training.warmup_steps, eta_min=training.min_lr
    )
    return optimizer, schedules.SequentialLR(optimizer, [warmup, decay], milestones=[training.warmup_steps])


def train_with_torch(
    network: Autoencoder, batches: DataLoader[Batch], training: Any, device: str, tick: Callable[[], None]
) -> None:
    """Train in the loop of PyTorch's tutorials."""
    network.to(device)
    optimizer, schedule = optimizer_and_schedule(network, training)
    for _, (images, _) in zip(range(training.max_steps), for_ever(batches), strict=False):
        images = images.to(device, non_blocking=True)
        loss = F.mse_loss(network(images), images)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), training.clip_grad)
        optimizer.step()
        schedule.step()
        tick()


def train_with_cuda_graph(
    network: Autoencoder, batches: DataLoader[Batch], training: Any, device: str, tick: Callable[[], None]
) -> None:
    """Replay the bare step, recorded once: what the GPU could do if nobody had to tell it. One batch, one rate."""
    network.to(device)
    images = next(iter(batches))[0].to(device)
    optimizer = torch.optim.AdamW(network.parameters(), lr=training.lr, fused=True, capturable=True)

    def step() -> None:
        optimizer.zero_grad()
        F.mse_loss(network(images), images).backward()
        nn.utils.clip_grad_norm_(network.parameters(), training.clip_grad, foreach=True)
        optimizer.step()

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    for _ in range(training.max_steps):
        graph.replay()
        tick()


class LightningAutoencoder(pl.LightningModule):
    """The same loop as Lightning's tutorials write it."""

    def __init__(self, network: Autoencoder, training: Any, tick: Callable[[], None]) -> None:
        super().__init__()
        self.network, self.training_settings, self.tick = network, training, tick

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        images, _ = batch
        loss = F.mse_loss(self.network(images), images)
        self.log("train_loss", loss)
        return loss

    def configure_optimizers(self) -> Any:
        optimizer, schedule = optimizer_and_schedule(self.network, self.training_settings)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_train_batch_end(self, *args: Any) -> None:
        self.tick()


def train_with_lightning(
    network: Autoencoder, batches: DataLoader[Batch], training: Any, device: str, tick: Callable[[], None], folder: Path
) -> None:
    """Train with Lightning's trainer, without checkpoints."""
    trainer = pl.Trainer(
        accelerator={"cpu": "cpu", "cuda": "gpu"}[device],
        devices=1,
        max_steps=training.max_steps,
        gradient_clip_val=training.clip_grad,
        log_every_n_steps=training.log_every_n_steps,
        default_root_dir=folder,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    )
    trainer.fit(LightningAutoencoder(network, training, tick), batches)
