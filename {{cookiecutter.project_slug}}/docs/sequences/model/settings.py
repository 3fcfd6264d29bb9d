"""What can be set about proteins and networks, and the defaults of each command. No torch."""

from dataclasses import dataclass, field
from typing import Literal

from ..contracts import settings as base


@dataclass(frozen=True)
class DataSettings(base.DataSettings):
    """Which proteins are made."""

    num_proteins: int = 4_500
    """proteins to train and to validate with"""
    validation_size: int = 500
    """proteins of these that are kept for validation"""


@dataclass(frozen=True)
class ModelSettings(base.ModelSettings):
    """The sizes of the networks."""

    hidden_size: int = 32
    """features of each letter between blocks"""
    num_attention_heads: int = 4
    """heads of each attention, which tensor parallel ranks share"""
    ffn_hidden_size: int = 64
    """features of each letter inside a block"""
    sequence_length: int = 32
    """letters of a protein: what is longer is cut, what is shorter is padded"""


@dataclass(frozen=True)
class Settings(base.RunSettings):
    """Everything that decides a run; what `pretrain` runs with."""

    network: Literal["masked", "family"] = "masked"
    """masked: guesses masked letters, for pretraining; family: the same trunk with a head that guesses the family"""
    data: DataSettings = field(default_factory=DataSettings)
    """the data"""
    model: ModelSettings = field(default_factory=ModelSettings)
    """the networks' sizes"""


FINETUNE = Settings(
    run_dir="runs/finetune",
    network="family",
    new_heads=("head",),
    data=DataSettings(num_proteins=600, validation_size=200),
    training=base.TrainingSettings(max_steps=100, val_check_interval=25),
)
FROM_START = ("model", "seed")
LAYOUTS = Settings(parallel=base.ParallelSettings(devices=4), training=base.PROOF)
