"""What can be set, each with its unit, and the checks that need nothing but the values.

`model/settings.py` derives its own `DataSettings`, `ModelSettings` and `Settings` from those here: it adds fields, or
gives one that is here another default. The line under a field is its `--help` text. `Settings()` is what `pretrain`
runs with, and three constants beside it say what differs for the other commands:

    FINETUNE    the defaults of `finetune`
    FROM_START  what finetuning takes from the run that it starts from, of "model", "data" and "seed"
    LAYOUTS     the defaults of `layouts`: the network with every head, so that the whole of it is tried

A run may also start from what another program wrote: `foreign_start` and `from_start` say which, and its sizes.

Nothing here imports torch: a wrong setting is answered in a fraction of a second, before any work starts. So a
model's own checks of its values belong there too, into `problems`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from typing import Any, ClassVar, Literal, TypeVar

from .errors import UserError
from .files import at_home
from .settings_rules import batch_checks, layout_checks, number_checks, text_checks


def by_name(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Give each of nested settings under its dotted name, which is also its name on the command line."""
    for name, value in values.items():
        if isinstance(value, dict) and value:
            yield from by_name(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


@dataclass(frozen=True)
class Group:
    """What all groups of settings have in common: `~/` begins a path, wherever it comes from.

    A text that begins so is a path, also in a list. The lists of ModelSettings hold names, which stay as they are, and
    so does a lone `~` in any list.
    """

    LISTS_OF_NAMES: ClassVar[bool] = False
    """Whether the texts in lists here are names, and no paths."""

    def __post_init__(self) -> None:
        """Put the home folder into paths, once and for all: what reads them later differs in what it knows of `~`."""
        for name in (item.name for item in fields(self)):
            value = getattr(self, name)
            if isinstance(value, str):
                object.__setattr__(self, name, at_home(value))
            elif isinstance(value, list | tuple) and not self.LISTS_OF_NAMES:
                parts = (at_home(part) if isinstance(part, str) and part != "~" else part for part in value)
                object.__setattr__(self, name, type(value)(parts))


@dataclass(frozen=True)
class DataSettings(Group):
    """Which items are read, and in which order; a model adds where they lie."""

    NOT_KEPT: ClassVar[tuple[str, ...]] = ("num_workers",)
    """Names of the settings here that a resumed run may change: where the data lie, not which they are."""

    resampling: Literal["epochs", "multi_epoch", "prng"] = "epochs"
    """epochs: a new permutation every epoch; multi_epoch, prng: bionemo-core's resamplers (extra `bionemo`)"""
    num_workers: int = 0
    """processes that load batches; 0 loads in the training process, fastest for data that is in memory"""

    def problems(self) -> list[str]:
        """Return what is wrong with these values, each with the value, the rule and the mend."""
        if self.num_workers < 0:
            return [f"--data.num_workers {self.num_workers} must be at least 0"]
        return []


@dataclass(frozen=True)
class ModelSettings(Group):
    """The sizes of the network, which are also fields of its config; a model adds its own.

    A network with attention has a field `num_attention_heads`, which must divide `hidden_size`, and may have one
    `attention_dropout`.
    """

    LISTS_OF_NAMES: ClassVar[bool] = True

    NOT_SPLIT: ClassVar[tuple[str, ...]] = ("num_layers", "sequence_length")
    """Names of the whole numbers here that tensor parallel need not divide."""

    OF_HEADS: ClassVar[tuple[str, ...]] = ()
    """Names of the settings here that say what a head answers: one that answered something else is drawn anew."""

    num_layers: int = 4
    """blocks of the trunk, which pipeline stages share"""
    hidden_size: int = 64
    """features of each step of the sequence between blocks"""
    hidden_dropout: float = 0.0
    """probability of zeroing a block's output feature during training"""

    @property
    def sequence_length(self) -> int:
        """Length S of the activations (S, B, H) that stages exchange; a field, or what the data are like."""
        raise UserError("model/settings.py: ModelSettings has no sequence_length: make it a field, or a property")

    def counts(self) -> dict[str, int]:
        """Return the whole numbers by their names."""
        return {name: value for name, value in asdict(self).items() if type(value) is int}

    def problems(self) -> list[str]:
        """Return what is wrong with these values, each with the value, the rule and the mend."""
        found = [f"--model.{name} {size} must be at least 1" for name, size in self.counts().items() if size < 1]
        heads = self.counts().get("num_attention_heads", 1)
        if not found and self.hidden_size % heads:
            found.append(f"--model.num_attention_heads {heads} does not divide --model.hidden_size {self.hidden_size}")
        if not 0 <= self.hidden_dropout < 1:
            found.append(f"--model.hidden_dropout {self.hidden_dropout} must be from 0 to below 1")
        return found


@dataclass(frozen=True)
class ParallelSettings(Group):
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
    timeout_minutes: float = 5.0
    """how long processes wait for each other, at the start and in every step, before the run ends"""


@dataclass(frozen=True)
class TrainingSettings(Group):
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
    head_lr_factor: float = 1.0
    """the weights of --new_heads, loaded or drawn, learn at the learning rate times this, from warm-up to end"""
    weight_decay: float = 0.01
    """decoupled weight decay (AdamW) of matrices"""
    clip_grad: float = 1.0
    """largest global norm of the gradients; 0 does not clip"""
    precision: Literal["fp32", "bf16"] = "fp32"
    """bf16: weights and activations in bfloat16, with fp32 main weights in the optimizer"""
    cuda_graph: bool = True
    """on GPUs: record a step and replay it, much faster for small networks; docs/runs.md says where that cannot be"""
    val_check_interval: int = 100
    """optimizer steps between validations; every validation is followed by a checkpoint"""
    checkpoint_minutes: float = 30.0
    """minutes after which a checkpoint is saved, if there was none since; 0: only after validations"""
    keep_checkpoints: int = 2
    """how many of the last checkpoints are kept, beside the best one"""
    async_checkpoints: bool = False
    """write checkpoints while training goes on, from a copy of the state in the memory of the host"""
    log_every_n_steps: int = 10
    """optimizer steps between logged training figures"""


PROOF = TrainingSettings(
    max_steps=50, global_batch_size=144, lr=1e-3, warmup_steps=10, val_check_interval=25, log_every_n_steps=1
)
"""What `layouts` trains, and the bounds of rounding were measured with: a batch that 1 to 4 ranks and parts divide."""


Own = TypeVar("Own", bound="RunSettings")


@dataclass(frozen=True)
class RunSettings(Group):
    """Everything that decides a run; saved beside its checkpoints. A model's `Settings` derive from this."""

    ONLY_PREDICT: ClassVar[dict[str, str]] = {}
    """Names of the settings that only `predict` takes, which are not saved, each with what to do in other commands. The
    config is given those that it has a field for."""

    run_dir: str = "runs/pretrain"
    """folder of the run: settings, checkpoints, logs, report"""
    resume: bool = False
    """go on with the run that run_dir holds; without one, start it"""
    loggers: str = "tensorboard"
    """where figures go beside metrics.csv: tensorboard, wandb, mlflow, several with commas between, or none"""
    verbose: bool = False
    """show what NeMo, Megatron and Lightning log while they start"""
    seed: int = 1234
    """seed of the start weights, the data order and dropout"""
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    """auto: gpu where there is one, else cpu"""
    network: str = ""
    """which network is trained, a name in NETWORKS of model/config.py"""
    from_run: str | None = None
    """run whose weights this one starts from (finetune: --from)"""
    new_heads: tuple[str, ...] = ()
    """prefixes of the only weights that --from may lack; such a head is loaded if all of it fits, else drawn anew"""
    redraw_heads: bool = False
    """draw the weights of --new_heads anew even if those of --from fit"""
    data: DataSettings = field(default_factory=DataSettings)
    """the data"""
    model: ModelSettings = field(default_factory=ModelSettings)
    """the network's sizes"""
    training: TrainingSettings = field(default_factory=TrainingSettings)
    """the training"""
    parallel: ParallelSettings = field(default_factory=ParallelSettings)
    """the layout"""

    @property
    def sequence_length(self) -> int:
        """Length S of the activations; that of the network's sizes, unless a model's data decide it."""
        return self.model.sequence_length

    @property
    def world_size(self) -> int:
        """Number of processes of the run."""
        return self.parallel.devices * self.parallel.num_nodes

    @property
    def logger_names(self) -> tuple[str, ...]:
        """What `loggers` names."""
        return () if self.loggers == "none" else tuple(name.strip() for name in self.loggers.split(","))

    @property
    def foreign_start(self) -> str | None:
        """Folder that another program wrote, whose weights this run starts from; None: there is none.

        A model that can read one has a setting for it; its config then has `load_foreign` (config.py).
        """
        return None

    def from_start(self) -> dict[str, Any]:
        """Return the settings, such as `network` and `model`, that `foreign_start` brings along.

        They hold where the command line gives no other value. `pretrain` and `finetune` take those in FROM_START only.

        Raises:
            UserError: the folder cannot be read, or holds what the networks here are not.
        """
        return {}

    @property
    def predicted(self) -> str:
        """A word for what is predicted, which the names of the files then end with; none for the test set."""
        return ""

    @property
    def to_test(self) -> tuple[str, ...]:
        """Words of the command line that say what to test with, where nothing else does; `evaluate` needs them then."""
        return ()

    def to_predict(self: Own) -> Own:
        """Return what `predict` runs with, where that is not how the run was trained; UserError if there is nothing."""
        return self

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
        wrong_numbers = [text for is_wrong, text in (*text_checks(self), *number_checks(self)) if is_wrong]
        wrong_numbers += self.model.problems() + self.data.problems()
        if wrong_numbers:
            return wrong_numbers  # the other rules divide by these numbers
        return [text for is_wrong, text in (*layout_checks(self), *batch_checks(self)) if is_wrong]
