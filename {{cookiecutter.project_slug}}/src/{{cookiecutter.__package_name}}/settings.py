"""Every knob of a run, with its unit, and the checks that need nothing but the values.

The line under a field is also its `--help` text. Nothing here imports torch: a wrong setting is answered in a
fraction of a second, before any work starts.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

SAMPLE_TRAIN_ITEMS = 10_000
FULL_TRAIN_ITEMS = 60_000


@dataclass(frozen=True)
class DataSettings:
    """Which digits are read, and in which order."""

    dataset: Literal["sample", "full"] = "sample"
    """sample: the 10,000 training digits that ship with the package; full: all 60,000, from --data.root"""
    root: str = "data"
    """folder that holds MNIST/raw as torchvision lays it out (only for the full dataset)"""
    download: bool = False
    """download the full dataset into --data.root if it is not there"""
    validation_size: int = 1_000
    """items at the end of the training file that are kept for validation"""
    resampling: Literal["epochs", "multi_epoch", "prng"] = "epochs"
    """epochs: a new permutation every epoch; multi_epoch, prng: bionemo-core's resamplers (extra `bionemo`)"""
    num_workers: int = 0
    """processes that load batches; 0 loads in the training process, fastest for data that is in memory"""


@dataclass(frozen=True)
class ModelSettings:
    """The sizes of the network."""

    num_layers: int = 2
    """residual blocks in the encoder, and as many again in the decoder"""
    hidden_size: int = 64
    """features of each image row between blocks"""
    ffn_hidden_size: int = 128
    """features of each image row inside a block"""
    latent_size: int = 32
    """features of the whole image between encoder and decoder"""
    hidden_dropout: float = 0.0
    """probability of zeroing a block's output feature during training"""


@dataclass(frozen=True)
class ParallelSettings:
    """How the work is spread over processes; data parallel takes what tensor and pipeline leave."""

    devices: int = 1
    """processes on each machine, one a GPU (on CPU: any number)"""
    num_nodes: int = 1
    """machines"""
    tensor: int = 1
    """tensor parallel: processes that share each layer's weights"""
    pipeline: int = 1
    """pipeline parallel: stages that the layers are cut into"""
    sequence: bool = False
    """sequence parallel: also split the activations between tensor parallel regions (needs tensor > 1)"""


@dataclass(frozen=True)
class TrainingSettings:
    """How long and how hard to train."""

    max_steps: int = 1_000
    """optimizer steps"""
    global_batch_size: int = 128
    """items that one optimizer step sees, over all processes"""
    micro_batch_size: int | None = None
    """items that one process computes at once; default: the global batch divided by the data parallel size"""
    lr: float = 2e-3
    """highest learning rate, reached after the warm-up"""
    min_lr: float = 1e-5
    """learning rate at the end of the cosine decay"""
    warmup_steps: int = 50
    """optimizer steps of linear warm-up"""
    weight_decay: float = 0.01
    """decoupled weight decay (AdamW) of matrices"""
    clip_grad: float = 1.0
    """largest global norm of the gradients; 0 does not clip"""
    precision: Literal["fp32", "bf16"] = "fp32"
    """bf16: weights and activations in bfloat16, with fp32 main weights in the optimizer"""
    val_check_interval: int = 100
    """optimizer steps between validations; every validation is followed by a checkpoint"""
    log_every_n_steps: int = 10
    """optimizer steps between logged training figures"""


@dataclass(frozen=True)
class Settings:
    """Everything that decides a run; saved beside its checkpoints."""

    run_dir: str = "runs/pretrain"
    """folder of the run: settings, checkpoints, logs, report"""
    seed: int = 1234
    """seed of the start weights, the data order and dropout"""
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    """auto: gpu where there is one, else cpu"""
    network: Literal["autoencoder", "classifier", "autoencoder_classifier"] = "autoencoder"
    """autoencoder for pretraining; classifier: the trunk with a head; autoencoder_classifier keeps the decoder too"""
    from_run: str | None = None
    """run whose weights this one starts from (finetune: --from)"""
    new_heads: tuple[str, ...] = ()
    """prefixes of the only weights that --from may lack"""
    data: DataSettings = field(default_factory=DataSettings)
    """the data"""
    model: ModelSettings = field(default_factory=ModelSettings)
    """the network's sizes"""
    training: TrainingSettings = field(default_factory=TrainingSettings)
    """the training"""
    parallel: ParallelSettings = field(default_factory=ParallelSettings)
    """the layout"""

    @property
    def world_size(self) -> int:
        """Number of processes of the run."""
        return self.parallel.devices * self.parallel.num_nodes

    @property
    def data_parallel_size(self) -> int:
        """Number of copies of the model that see different items."""
        return self.world_size // (self.parallel.tensor * self.parallel.pipeline)

    @property
    def micro_batch_size(self) -> int:
        """Items that one process computes at once, resolved."""
        return self.training.micro_batch_size or self.training.global_batch_size // self.data_parallel_size
