"""What a config pairs: a network, its data, its loss, and what is made of its outputs.

A config is Megatron's `TransformerConfig` (the sizes, and after NeMo's strategy has connected it also the layout and
the precision) that can build what it describes. `model/config.py` has one for each network and lists them in
`NETWORKS`, under the names that `--network` takes: pretraining and finetuning are two, and may read other data. Each:

    item_class            what an item is (item.py)
    stage_class           the network (stage.py)
    loss_reduction_class  what is minimised and reported (loss.py)
    read_training         settings -> the training and the validation dataset
    count_training        settings -> how many items there are to train on, where reading them takes long
    read_test             settings -> the test dataset
    read_predict          settings -> what `predict` predicts, if not that
    prepare               settings -> None, before: in one process of each machine, to download, say
    see_training          training dataset -> None: the config takes from it what a new network is built by
    keep                  (output, batch) -> what evaluation and prediction keep of a micro batch
    scores                what was kept, whole -> figures that are no means over items
    predictions           what was kept, whole -> what `predict` writes
    references            settings -> figures that those of the run are held against
    pieces, useful        what an item is made of, and which figure says how much of it counts: for rates
    flops_per_item        what an item costs, for the share of the device's peak
    load_foreign          stage -> None: gives it the weights that another program wrote to `foreign_start_dir`
    export, export_files  what `export` writes of the weights, if not one file with all of them

Outputs are large, so `keep` chooses, on the device: tensors with B in front, gathered from all ranks in the order of
the test set. `evaluate` writes them to outputs.npz for `figures.py`, `predict` what `predictions` makes of them. These
and `scores` may be methods that read the fields of the config.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from megatron.core import parallel_state
from megatron.core.transformer.transformer_config import TransformerConfig
from nemo.lightning import io
from safetensors.torch import save
from torch import Tensor

from .errors import UserError
from .item import Dataset, Item
from .loss import LossReduction, check_loss
from .names import WEIGHTS_FILE
from .stage import PipelineStage, check_stage
from .start import StartWeightsError, load_start_weights


class Ragged(NamedTuple):
    """Arrays of different lengths, one for each item, one after the other."""

    values: np.ndarray
    """[all, ...]"""
    offsets: np.ndarray
    """int64 [N + 1]: those of item n are values[offsets[n] : offsets[n + 1]]"""


@dataclass
class NetworkConfig(TransformerConfig, io.IOMixin):
    """The base of every config. Fields of Megatron's `TransformerConfig` are there to be used by the network.

    Every size in a model's `ModelSettings` must be a field here, in `TransformerConfig` or in the model's own config.
    """

    sequence_length: int = 0
    """Length S of the activations that stages exchange."""

    init_seed: int = 1234
    """Seed of the start weights."""

    start_weights_dir: str | None = None
    """Distributed checkpoint that `configure_model` loads the weights from; None starts from random weights."""

    new_heads: tuple[str, ...] | None = ()
    """Name prefixes of the only weights that the start checkpoint may lack, e.g. ("head",); None: it is a checkpoint of
    this same network."""

    redraw_heads: bool = False
    """Draw the weights of `new_heads` also where the start has them."""

    foreign_start_dir: str | None = None
    """Folder that another program wrote, from which `load_foreign` loads where there is no start checkpoint."""

    recompute: str = "none"
    """Which activations are computed again in the backward pass: none, selective (those inside an MLP), or full (all
    but what goes from block to block)."""

    join_kernels: bool = False
    """Compile element-wise functions between matrix products into one kernel each, on GPUs: worth the seconds that it
    takes at the start for large networks."""

    item_class: ClassVar[type[Item]]
    stage_class: ClassVar[type[PipelineStage]]
    loss_reduction_class: ClassVar[type[LossReduction]]

    pieces: ClassVar[str | None] = None
    """A word for the `sequence_length` positions of an item, "tokens" say, if their rate says more than that of items;
    logged as tokens_per_second then."""
    useful: ClassVar[str | None] = None
    """The figure of the loss that is the share of positions that are no padding, if it reports it; logged as
    useful_tokens_per_second then."""

    export_files: ClassVar[tuple[str, ...]] = (WEIGHTS_FILE,)
    """Names of all files that `export` may write, by which an older export is known."""

    # Megatron's own defaults are 0.1, which a network whose settings do not name them would silently train with.
    hidden_dropout: float = 0.0
    attention_dropout: float = 0.0

    # The loss is a sum, and the gradients are divided by the count of the global batch (loss.py).
    calculate_per_token_loss: bool = True

    # Start weights are drawn on the CPU for whole layers, and so are the same for every tensor parallel size.
    use_cpu_initialization: bool = True
    init_method: Callable[[Tensor], Tensor] | None = torch.nn.init.xavier_uniform_
    # Each residual block starts as the identity (Goyal et al., 2017). Else the first gradients grow with every block: a
    # step of zeros has a norm that multiplies its gradient by 1 / sqrt(layernorm_epsilon).
    output_layer_init_method: Callable[[Tensor], Tensor] | None = torch.nn.init.zeros_

    @staticmethod
    def read_training(settings: Any) -> tuple[Dataset, Dataset]:
        """Return the items to train on and those to validate with; DataError if they cannot be read."""
        raise NotImplementedError

    @classmethod
    def count_training(cls, settings: Any) -> int | None:
        """Return how many items there are to train on, for `plan`; None: nobody knows before they have been read.

        They are read, by default: say it in another way where that takes more than a moment.
        """
        return len(cls.read_training(settings)[0])

    @staticmethod
    def read_test(settings: Any) -> Dataset:
        """Return the items to test with; DataError if they cannot be read."""
        raise NotImplementedError

    @classmethod
    def read_predict(cls, settings: Any) -> Dataset:
        """Return the items to predict, those to test with by default; DataError if they cannot be read."""
        return cls.read_test(settings)

    @staticmethod
    def prepare(settings: Any) -> None:
        """Make ready what is read, in one process of each machine."""

    def see_training(self, items: Dataset) -> None:
        """Take from the items to train on what a new network is built by, such as the scale of labels; on each rank.

        It is kept by the weights: put it into a buffer of the network, which a checkpoint then has. When a trained
        network is built again, nobody calls this.
        """

    @staticmethod
    def keep(output: dict[str, Tensor], batch: Any) -> dict[str, Tensor]:
        """Return what of a micro batch evaluation and prediction keep, (B, ...) by name; nothing by default.

        A name has letters, numbers and _, and is none of idx, name and file.
        """
        return {}

    @staticmethod
    def scores(kept: dict[str, np.ndarray]) -> dict[str, float]:
        """Return figures of the whole test set that are no means over its items, such as a rank correlation, by name.

        One that does not exist for this test set is NaN.
        """
        return {}

    @staticmethod
    def predictions(kept: dict[str, np.ndarray]) -> Mapping[str, np.ndarray | Ragged]:
        """Return what `predict` writes, a row an item: numbers and texts [N] as columns, arrays [N, ...] beside.

        Arrays of different lengths are written as `<name>` and `<name>_offsets`. Names are like those of `keep`.
        """
        return {}

    @staticmethod
    def references(settings: Any) -> dict[str, dict[str, float]]:
        """Return test figures of other methods, on the same data: method -> name of a figure -> value; or nothing.

        `evaluate` asks for them in one process. The report sets them beside the run's own figures of the same names.
        """
        return {}

    def flops_per_item(self) -> float | None:
        """Return the floating point operations that training needs for an item, forward and backward; None: unknown.

        Matrix products only, a multiplication and an addition being two; what is computed again to save memory does not
        count. With it the share of the device's peak is logged (model FLOPs utilisation: Chowdhery et al., 2022).
        """
        return None

    def configure_model(self, vp_stage: int = 0) -> PipelineStage:
        """Build this rank's stage of the network, with its start weights.

        Raises:
            StartWeightsError: a part draws its start weights outside of `start_weights`; or the start checkpoint lacks
                weights outside `new_heads`, or has them in another shape.
        """
        random_numbers = torch.get_rng_state()
        stage = self.stage_class(
            self,
            pre_process=parallel_state.is_pipeline_first_stage(ignore_virtual=False, vp_stage=vp_stage),
            post_process=parallel_state.is_pipeline_last_stage(ignore_virtual=False, vp_stage=vp_stage),
            vp_stage=vp_stage,
        )
        if not torch.equal(torch.get_rng_state(), random_numbers):
            raise StartWeightsError(
                "a part of the network draws its start weights outside of `start_weights`, so they would be others in "
                'another layout: build each part of model/network.py inside `with start_weights(config, "its name"):`'
            )
        if self.start_weights_dir:
            load_start_weights(stage, Path(self.start_weights_dir), self.new_heads)
        elif self.foreign_start_dir:
            self.load_foreign(stage)
        return stage

    def load_foreign(self, stage: PipelineStage) -> None:
        """Give a freshly built stage its weights from `foreign_start_dir`, which may lack those of `new_heads`.

        `start.py` has what helps: which part of which weight a rank wants, and how to say what does not fit.

        Raises:
            UserError: the folder cannot be read, or does not fit the network.
        """
        raise NotImplementedError

    def export(
        self, folder: Path, weights: dict[str, Tensor], settings: Any, description: dict[str, Any]
    ) -> str | None:
        """Write the whole network for the world outside.

        Args:
            folder: an empty one.
            weights: every weight, whole, by its name in the network, in the dtype it was trained in.
            settings: the run.
            description: what model.json will say (results/export.py).

        Returns:
            What its user should know, in one line; None if there is nothing to say.
        """
        copied = {name: weight.clone(memory_format=torch.contiguous_format) for name, weight in weights.items()}
        # safetensors refuses tied weights, so they are copied; and its save_file leaves it to the owner only
        (folder / WEIGHTS_FILE).write_bytes(save(copied, {"format": "pt"}))
        return None

    def get_loss_reduction_class(self) -> type[LossReduction]:
        """Return the loss that this network is trained with."""
        return self.loss_reduction_class


def sized(config: type[NetworkConfig], settings: Any, **start: Any) -> NetworkConfig:
    """Build the config of a run's network.

    Args:
        config: its class.
        settings: of the run, which say how large it is.
        start: fields that say where its weights come from.

    Raises:
        UserError: the config has no field for one of the sizes.
    """
    sizes = {**asdict(settings.model), "sequence_length": settings.sequence_length}
    known = {field.name for field in fields(config)}
    if unknown := sizes.keys() - known:
        raise UserError(f"model/config.py: {config.__name__} has no field {', '.join(sorted(unknown))}: add it there")
    sizes.setdefault("num_attention_heads", settings.model.hidden_size)  # Megatron wants some
    predict = {name: getattr(settings, name) for name in settings.ONLY_PREDICT if name in known}
    return config(**sizes, **predict, init_seed=settings.seed, **start)


def check_config(name: str, networks: dict[str, type[NetworkConfig]]) -> type[NetworkConfig]:
    """Return the config of a network, if it pairs all that it should.

    Raises:
        UserError: there is no such network, or its config lacks something.
    """
    if name not in networks:
        raise UserError(f"NETWORKS in model/config.py has no {name}, only {', '.join(networks)}: add it there")
    config = networks[name]
    if not (isinstance(config, type) and issubclass(config, NetworkConfig)):
        raise UserError(f"model/config.py: NETWORKS has {config} for {name}, and not a subclass of NetworkConfig")
    for part, base in {"item_class": dict, "stage_class": PipelineStage, "loss_reduction_class": LossReduction}.items():
        found = getattr(config, part, None)
        if not (isinstance(found, type) and issubclass(found, base)):
            rule = "Item" if base is dict else base.__name__
            raise UserError(f"model/config.py: {config.__name__}.{part} must be a subclass of {rule}, and is {found}")
    for part in ("read_training", "read_test"):
        if getattr(config, part) is getattr(NetworkConfig, part):
            raise UserError(f"model/config.py: {config.__name__} lacks {part}: say how its data are read")
    check_stage(config.stage_class)
    check_loss(loss := config.loss_reduction_class)
    if config.useful and config.useful not in (*loss.names, *loss.derived):
        raise UserError(f"model/config.py: {config.__name__}.useful is {config.useful}, no figure of {loss.__name__}")
    return config
