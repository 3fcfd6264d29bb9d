"""What can be set about waves and the network, and the defaults of each command. No torch."""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from ..contracts import settings as base


@dataclass(frozen=True)
class DataSettings(base.DataSettings):
    """Which waves are read."""

    NOT_KEPT: ClassVar[tuple[str, ...]] = (*base.DataSettings.NOT_KEPT, "root")

    root: str = "data/waves"
    """folder that holds train.npz and test.npz"""
    validation_size: int = 500
    """waves at the end of train.npz that are kept for validation"""


@dataclass(frozen=True)
class ModelSettings(base.ModelSettings):
    """The sizes of the network."""

    hidden_size: int = 32
    """features of each step of the sequence between blocks"""
    ffn_hidden_size: int = 64
    """features inside a block"""
    latent_size: int = 32
    """features of a whole wave"""

    @property
    def sequence_length(self) -> int:
        """Steps of a wave: what the data are like, and nothing to be set."""
        return 64


@dataclass(frozen=True)
class Settings(base.RunSettings):
    """Everything that decides a run; what `pretrain` runs with."""

    network: Literal["waves"] = "waves"
    """waves: the mixer, for frequency and amplitude"""
    data: DataSettings = field(default_factory=DataSettings)
    """the data"""
    model: ModelSettings = field(default_factory=ModelSettings)
    """the network's sizes"""


FINETUNE = Settings(run_dir="runs/finetune")
FROM_START = ("model", "data", "seed")
LAYOUTS = Settings(parallel=base.ParallelSettings(devices=4), training=base.PROOF)
