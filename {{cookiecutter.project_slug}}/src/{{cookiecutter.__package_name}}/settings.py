"""Every knob of a run, with its unit, and the checks that need nothing but the values.

The line under a field is also its `--help` text. Nothing here imports torch: a wrong setting is answered in a
fraction of a second, before any work starts.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import ClassVar, Literal

from .data.item import SEQUENCE_LENGTH


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

    NOT_SPLIT: ClassVar[tuple[str, ...]] = ("num_layers",)
    """Names of the whole numbers here that tensor parallel need not divide."""

    num_layers: int = 4
    """residual blocks of the trunk"""
    hidden_size: int = 64
    """features of each step of the sequence between blocks"""
    ffn_hidden_size: int = 128
    """features of each step of the sequence inside a block"""
    latent_size: int = 32
    """features of the whole item, between the trunk and the heads"""
    hidden_dropout: float = 0.0
    """probability of zeroing a block's output feature during training"""

    def counts(self) -> dict[str, int]:
        """Return the whole numbers by their names."""
        return {name: value for name, value in asdict(self).items() if type(value) is int}


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
    virtual_pipeline: int = 1
    """virtual pipeline: parts of each stage, worked on in turns, so that stages wait less (needs pipeline > 1)"""
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
    cuda_graph: bool = True
    """on GPUs: record a step and replay it, much faster for small networks; not with dropout and sequence parallel"""
    val_check_interval: int = 100
    """optimizer steps between validations; every validation is followed by a checkpoint"""
    log_every_n_steps: int = 10
    """optimizer steps between logged training figures"""


@dataclass(frozen=True)
class Settings:
    """Everything that decides a run; saved beside its checkpoints."""

    run_dir: str = "runs/pretrain"
    """folder of the run: settings, checkpoints, logs, report"""
    resume: bool = False
    """go on with the run that run_dir holds; without one, start it"""
    verbose: bool = False
    """show what NeMo, Megatron and Lightning log while they start"""
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
        return self.world_size // max(self.parallel.tensor * self.parallel.pipeline, 1)

    @property
    def micro_batch_size(self) -> int:
        """Items that one process computes at once, resolved."""
        if self.training.micro_batch_size is not None:
            return self.training.micro_batch_size
        return max(self.training.global_batch_size // max(self.data_parallel_size, 1), 1)

    def problems(self) -> list[str]:
        """Return everything that is wrong with these values, each with the value, the rule and the mend."""
        wrong_numbers = [text for is_wrong, text in self._number_checks() if is_wrong]
        if wrong_numbers:
            return wrong_numbers  # the other rules divide by these numbers
        return [text for is_wrong, text in (*self._layout_checks(), *self._batch_checks()) if is_wrong]

    def _layout_checks(self) -> list[tuple[bool, str]]:
        layout, sizes = self.parallel, self.model
        world, copies = self.world_size, layout.tensor * layout.pipeline
        virtual = f" x --parallel.virtual_pipeline {layout.virtual_pipeline}" if layout.virtual_pipeline > 1 else ""
        return [
            (
                world % copies != 0,
                f"--parallel.tensor {layout.tensor} x --parallel.pipeline {layout.pipeline} needs a multiple of "
                f"{copies} processes, but there are {world}: set --parallel.devices",
            ),
            *(
                (
                    size % layout.tensor != 0,
                    f"--parallel.tensor {layout.tensor} does not divide --model.{name} {size}: change one of them",
                )
                for name, size in sizes.counts().items()
                if name not in sizes.NOT_SPLIT
            ),
            (
                sizes.num_layers % (layout.pipeline * layout.virtual_pipeline) != 0,
                f"--parallel.pipeline {layout.pipeline}{virtual} does not divide --model.num_layers "
                f"{sizes.num_layers}: change one of them",
            ),
            (
                layout.virtual_pipeline > 1 and layout.pipeline == 1,
                "--parallel.virtual_pipeline cuts pipeline stages into parts: set --parallel.pipeline above 1",
            ),
            (
                layout.sequence and layout.tensor == 1,
                "--parallel.sequence splits what tensor parallel ranks share: set --parallel.tensor above 1",
            ),
            (
                layout.sequence and SEQUENCE_LENGTH % layout.tensor != 0,
                f"--parallel.sequence: --parallel.tensor {layout.tensor} does not divide the sequence length "
                f"{SEQUENCE_LENGTH}: use a divisor",
            ),
        ]

    def _batch_checks(self) -> list[tuple[bool, str]]:
        training, layout, copies = self.training, self.parallel, max(self.data_parallel_size, 1)
        share = copies * self.micro_batch_size
        given = training.micro_batch_size
        micro = f" x --training.micro_batch_size {given}" if given else ""
        return [
            (
                layout.virtual_pipeline > 1 and (training.global_batch_size // share) % layout.pipeline != 0,
                f"--parallel.virtual_pipeline needs a multiple of --parallel.pipeline {layout.pipeline} micro batches "
                f"a step, and there are {training.global_batch_size // share}: change --training.micro_batch_size",
            ),
            (
                training.global_batch_size % share != 0,
                f"--training.global_batch_size {training.global_batch_size} is not a multiple of "
                f"{share if given else copies} (data parallel size {copies}{micro}): change one of them",
            ),
        ]

    def _number_checks(self) -> list[tuple[bool, str]]:
        training = self.training
        at_least_one = {
            **{f"--model.{name}": size for name, size in self.model.counts().items()},
            "--data.validation_size": self.data.validation_size,
            "--parallel.devices": self.parallel.devices,
            "--parallel.num_nodes": self.parallel.num_nodes,
            "--parallel.tensor": self.parallel.tensor,
            "--parallel.pipeline": self.parallel.pipeline,
            "--parallel.virtual_pipeline": self.parallel.virtual_pipeline,
            "--training.max_steps": training.max_steps,
            "--training.global_batch_size": training.global_batch_size,
            "--training.micro_batch_size": self.micro_batch_size,
            "--training.val_check_interval": training.val_check_interval,
            "--training.log_every_n_steps": training.log_every_n_steps,
            "--seed": self.seed,
        }
        return [
            (not self.run_dir, "--run_dir is empty: name a folder"),
            *((value < 1, f"{name} {value} must be at least 1") for name, value in at_least_one.items()),
            (self.data.num_workers < 0, f"--data.num_workers {self.data.num_workers} must be at least 0"),
            (
                not 0 <= self.model.hidden_dropout < 1,
                f"--model.hidden_dropout {self.model.hidden_dropout} must be from 0 to below 1",
            ),
            (
                not 0 <= training.min_lr <= training.lr or training.lr == 0,
                f"--training.lr {training.lr} must be above 0 and not below --training.min_lr {training.min_lr}",
            ),
            (
                not 0 <= training.warmup_steps < training.max_steps,
                f"--training.warmup_steps {training.warmup_steps} must be below --training.max_steps "
                f"{training.max_steps}: lower it",
            ),
            (not training.clip_grad >= 0, f"--training.clip_grad {training.clip_grad} must be at least 0"),
            (not training.weight_decay >= 0, f"--training.weight_decay {training.weight_decay} must be at least 0"),
        ]
