"""Which network, with which loss, from which start weights: one config class each.

A config is Megatron's `TransformerConfig` (the sizes, and after NeMo's strategy has connected it also the layout and
the precision) that can build what it describes. This pairing is one of the four places to edit for your own model.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from megatron.core import dist_checkpointing, parallel_state
from megatron.core.dist_checkpointing.mapping import ShardedTensor
from megatron.core.transformer.transformer_config import TransformerConfig
from nemo.lightning import io
from torch import Tensor

from .errors import UserError
from .losses import ClassifierLossReduction, ItemLossReduction, MSELossReduction, MSEPlusClassifierLossReduction
from .model import Stage


class StartWeightsError(UserError):
    """The network cannot be given its start weights."""


@dataclass
class NetworkConfig(TransformerConfig, io.IOMixin):
    """What the networks have in common; the subclasses name heads and loss.

    Fields of Megatron's `TransformerConfig` that are used: num_layers (blocks of the trunk), hidden_size,
    ffn_hidden_size, hidden_dropout, layernorm_epsilon, init_method, output_layer_init_method (of the blocks).
    """

    latent_size: int = 32
    """Features of the whole item, between trunk and heads."""

    init_seed: int = 1234
    """Seed of the start weights."""

    start_weights_dir: str | None = None
    """Distributed checkpoint that `configure_model` loads the weights from; None starts from random weights."""

    new_heads: tuple[str, ...] | None = ()
    """Name prefixes of the only weights that the start checkpoint may lack, e.g. ("classifier",); None: it is a
    checkpoint of this same network."""

    decoder: ClassVar[bool] = False
    classifier: ClassVar[bool] = False
    loss_reduction_class: ClassVar[type[ItemLossReduction]]

    hidden_dropout: float = 0.0
    """Probability of zeroing an output feature of a block (Megatron's own default is 0.1)."""

    # Start weights are drawn on the CPU for whole layers, and so are the same for every tensor parallel size.
    use_cpu_initialization: bool = True
    init_method: Callable[[Tensor], Tensor] | None = torch.nn.init.xavier_uniform_
    # Each residual block starts as the identity (Goyal et al., 2017). Else the first gradients grow with every block: a
    # step of zeros (a blank row) has a norm that multiplies its gradient by 1 / sqrt(layernorm_epsilon).
    output_layer_init_method: Callable[[Tensor], Tensor] | None = torch.nn.init.zeros_

    def configure_model(self, vp_stage: int = 0) -> Stage:
        """Build this rank's stage of the network, with its start weights.

        Raises:
            StartWeightsError: a part draws its start weights outside of `start_weights`; or the start checkpoint lacks
                weights outside `new_heads`, or has them in another shape.
        """
        random_numbers = torch.get_rng_state()
        stage = Stage(
            self,
            pre_process=parallel_state.is_pipeline_first_stage(ignore_virtual=False, vp_stage=vp_stage),
            post_process=parallel_state.is_pipeline_last_stage(ignore_virtual=False, vp_stage=vp_stage),
            vp_stage=vp_stage,
        )
        if not torch.equal(torch.get_rng_state(), random_numbers):
            raise StartWeightsError(
                "a part of the network draws its start weights outside of `start_weights`, so they would be others in "
                'another layout: build each part of model.py inside `with start_weights(config, "its name"):`'
            )
        if self.start_weights_dir:
            load_start_weights(stage, Path(self.start_weights_dir), self.new_heads)
        return stage

    def get_loss_reduction_class(self) -> type[ItemLossReduction]:
        """Return the loss that this network is trained with."""
        return self.loss_reduction_class


@dataclass
class AutoencoderConfig(NetworkConfig):
    """Pretraining: trunk and decoder, trained to reproduce the image."""

    decoder = True
    loss_reduction_class = MSELossReduction


@dataclass
class ClassifierConfig(NetworkConfig):
    """Finetuning: trunk and a new classifier."""

    classifier = True
    loss_reduction_class = ClassifierLossReduction


@dataclass
class AutoencoderClassifierConfig(NetworkConfig):
    """Finetuning that keeps the decoder: both heads, both losses."""

    decoder = True
    classifier = True
    loss_reduction_class = MSEPlusClassifierLossReduction


NETWORKS: dict[str, type[NetworkConfig]] = {
    "autoencoder": AutoencoderConfig,
    "classifier": ClassifierConfig,
    "autoencoder_classifier": AutoencoderClassifierConfig,
}


def load_start_weights(stage: Stage, checkpoint: Path, new_heads: tuple[str, ...] | None) -> None:
    """Load every weight of this stage but the new heads' from a distributed checkpoint of any layout.

    Args:
        stage: the freshly built stage; its new heads keep their random start weights.
        checkpoint: the folder with the distributed checkpoint's files.
        new_heads: name prefixes whose weights the checkpoint may lack; a prefix ends at a dot, so that
            "classifier" does not match "classifier_norm.weight". None: it is a checkpoint of this same network.

    Raises:
        StartWeightsError: a weight outside the new heads is missing or of another shape, or a prefix names nothing.
    """
    prefix = "module."  # under which NeMo saves the network
    wanted = {
        name: tensor
        for name, tensor in stage.sharded_state_dict(prefix=prefix).items()
        if isinstance(tensor, ShardedTensor)
    }
    saved = dist_checkpointing.load_tensors_metadata(str(checkpoint))
    heads = new_heads or ()
    _check_heads(stage, heads)
    old = {name: tensor for name, tensor in wanted.items() if not _is_new(name.removeprefix(prefix), heads)}
    problems = [
        f"{name.removeprefix(prefix)} is missing"
        if tensor.key not in saved
        else f"{name.removeprefix(prefix)} is {saved[tensor.key].global_shape}, not {tensor.global_shape}"
        for name, tensor in old.items()
        if tensor.key not in saved or saved[tensor.key].global_shape != tensor.global_shape
    ]
    if problems:
        mend = (
            "The network was another when it was trained: restore it, or train anew in another --run_dir"
            if new_heads is None
            else "Use the model sizes of that run, or name the parts that may start anew with --new_heads "
            f"(now: {', '.join(new_heads) or 'none'})"
        )
        raise StartWeightsError(f"{checkpoint} does not fit this network ({_shortened(problems)}). {mend}.")
    weights = dist_checkpointing.load(old, str(checkpoint))
    stage.load_state_dict({name.removeprefix(prefix): weight for name, weight in weights.items()}, strict=False)


def _shortened(problems: list[str], most: int = 5) -> str:
    more = f"; and {len(problems) - most} more" if len(problems) > most else ""
    return "; ".join(problems[:most]) + more


def _is_new(name: str, new_heads: tuple[str, ...]) -> bool:
    return any(name == head or name.startswith(f"{head}.") for head in new_heads)


def _check_heads(stage: Stage, new_heads: tuple[str, ...]) -> None:
    if not stage.post_process:
        return  # heads live on the last stage, which checks them
    names = [name for name, _ in stage.named_parameters()]
    for head in new_heads:
        if not any(_is_new(name, (head,)) for name in names):
            parts = ", ".join(sorted({name.split(".")[0] for name in names}))
            raise StartWeightsError(f"--new_heads {head}: the network has no such part; its parts are {parts}.")
