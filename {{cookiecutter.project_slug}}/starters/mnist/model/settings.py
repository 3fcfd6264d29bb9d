"""What can be set about digits and networks, and the defaults of each command (contracts/settings.py). No torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from ..contracts import settings as base
from ..contracts.settings import PROOF, ParallelSettings, TrainingSettings
from .item import IMAGE_SIDE


@dataclass(frozen=True)
class DataSettings(base.DataSettings):
    """Which digits are read."""

    NOT_KEPT: ClassVar[tuple[str, ...]] = (*base.DataSettings.NOT_KEPT, "root", "download")

    dataset: Literal["sample", "full"] = "sample"
    """sample: the 10,000 training digits that ship with the package; full: all 60,000, from --data.root"""
    root: str = "data"
    """folder that holds MNIST/raw as torchvision lays it out (only for the full dataset)"""
    download: bool = False
    """download the full dataset into --data.root if it is not there"""
    validation_size: int = 1_000
    """items at the end of the training file that are kept for validation"""


@dataclass(frozen=True)
class ModelSettings(base.ModelSettings):
    """The sizes of the networks."""

    ffn_hidden_size: int = 128
    """features of each step of the sequence inside a block"""
    latent_size: int = 32
    """features of the whole item, between the trunk and the heads"""

    @property
    def sequence_length(self) -> int:
        """An image is a sequence of its rows."""
        return IMAGE_SIDE


@dataclass(frozen=True)
class Settings(base.RunSettings):
    """Everything that decides a run; what `pretrain` runs with."""

    network: Literal["autoencoder", "classifier", "autoencoder_classifier"] = "autoencoder"
    """autoencoder for pretraining; classifier: the trunk with a head; autoencoder_classifier keeps the decoder too"""
    data: DataSettings = field(default_factory=DataSettings)
    """the data"""
    model: ModelSettings = field(default_factory=ModelSettings)
    """the network's sizes"""


FINETUNE = Settings(
    run_dir="runs/finetune",
    network="classifier",
    new_heads=("classifier",),
    training=TrainingSettings(max_steps=600, lr=1e-3),
)
FROM_START = ("model", "data", "seed")
LAYOUTS = Settings(network="autoencoder_classifier", parallel=ParallelSettings(devices=4), training=PROOF)
