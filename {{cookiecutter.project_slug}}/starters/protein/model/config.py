"""Which network, with which data, loss and results: one config class each (contracts/config.py)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..contracts.config import NetworkConfig
from ..contracts.item import DataError
from ..contracts.stage import PipelineStage
from . import dataset, results
from .hugging_face import export as hugging_face
from .hugging_face.start import load_folder
from .item import ClassItem, MaskedItem, ResidueClassItem, ResidueValueItem, ValueItem
from .losses import ClassLoss, MaskedLoss, ResidueClassLoss, ResidueValueLoss, ValueLoss
from .measures import baseline, entropy
from .network import LabelledStage, MaskedStage, ProteinHead, ResidueHead, Units
from .settings import VOCABULARY_ROWS, Settings

MOST_APART = 20.0
"""How many deviations apart the means of labels in the same units may be, and how many times larger a deviation."""

as_in_esm = partial(torch.nn.init.normal_, std=0.02)


@dataclass
class EsmConfig(NetworkConfig):
    """What the networks have in common: ESM-2's trunk (Lin et al., 2023)."""

    max_length: int = 512
    """Tokens of the longest protein."""
    classes: list[str] = field(default_factory=list)
    """Names of the classes."""
    pooling: str = "first"
    """What a head for whole proteins sees."""
    freeze: str = "none"
    """Which part is not trained."""
    embeddings: str = "none"
    """Which features are predicted."""
    layer: int | None = None
    """Of which layer; None: of the last one."""

    answers_for: ClassVar[str]
    """A name in `weights.HEADS`."""
    export_files = hugging_face.FILES

    init_method: Callable[[Tensor], Tensor] | None = as_in_esm
    output_layer_init_method: Callable[[Tensor], Tensor] | None = as_in_esm

    prepare = staticmethod(dataset.prepare)
    read_training = staticmethod(dataset.read_training)
    count_training = staticmethod(dataset.count_training)
    read_test = staticmethod(dataset.read_test)
    read_predict = staticmethod(dataset.read_predict)
    pieces = "tokens"

    def flops_per_item(self) -> float:
        """Return those of a row: two for each weight and token, in the forward pass and twice in the backward pass.

        To them come the scores of all pairs of tokens and the sums that they weigh. They are counted for proteins of
        `max_length`: exact for a row with its padding, and the most that a packed row may need.

        Source: PaLM (Chowdhery et al., 2022, appendix B): 6 N + 12 L H Q T a token.
        """
        size, tokens = self.hidden_size, self.sequence_length
        layer = 4 * size * size + 2 * size * self.ffn_hidden_size + 2 * size * self.max_length
        passes = 1 if self.freeze == "trunk" else 3
        return 2.0 * (passes * tokens * self.num_layers * layer + 3 * self.head_products)

    @property
    def head_products(self) -> int:
        """Multiplications of a row in the head, forward."""
        raise NotImplementedError

    def load_foreign(self, stage: PipelineStage) -> None:
        """Load from a folder of Hugging Face's transformers."""
        assert self.foreign_start_dir is not None, "else nobody asks"
        load_folder(stage, Path(self.foreign_start_dir), self.answers_for, self.new_heads)

    def export(
        self, folder: Path, weights: dict[str, Tensor], settings: Settings, description: dict[str, Any]
    ) -> str | None:
        """Write a folder for Hugging Face's transformers."""
        return hugging_face.write_folder(self, folder, weights, settings, description)


@dataclass
class MaskedConfig(EsmConfig):
    """Pretraining: guesses masked residues."""

    answers_for = "masked"
    item_class = MaskedItem
    stage_class = MaskedStage
    loss_reduction_class = MaskedLoss
    useful = "fill"
    keep = results.keep_masked
    predictions = results.embeddings
    references = staticmethod(entropy.of_residues)

    @property
    def head_products(self) -> int:
        """Of a layer, and of the scores, for each token."""
        return self.sequence_length * self.hidden_size * (self.hidden_size + VOCABULARY_ROWS)


@dataclass
class LabelledConfig(EsmConfig):
    """Finetuning: the trunk and a new head."""

    label_units: tuple[float, float] = (0.0, 1.0)
    """Mean and standard deviation of the values to train on, in which a new head of values learns."""

    is_classifier: ClassVar[bool]
    head_class: ClassVar[type]
    stage_class = LabelledStage
    keep = results.keep_labelled
    predictions = results.predictions

    def see_training(self, items: Any) -> None:
        """Take the units of the labels, if they are values."""
        if not self.is_classifier:
            self.label_units = items.units()

    def configure_model(self, vp_stage: int = 0) -> PipelineStage:
        """Build this rank's stage; DataError if a head that is loaded has learned labels of quite another scale."""
        stage = super().configure_model(vp_stage)
        if stage.loaded_heads and stage.head.units is not None:
            check_units(self, stage.head.units)
        return stage

    @property
    def num_outputs(self) -> int:
        """Scores of the classes, or one value."""
        return len(self.classes) if self.is_classifier else 1

    @property
    def head_products(self) -> int:
        """Of scores for each token; or of a layer and of scores for the protein."""
        scores = self.hidden_size * self.num_outputs
        is_for_residues = issubclass(self.head_class, ResidueHead)
        return self.sequence_length * scores if is_for_residues else self.hidden_size**2 + scores


@dataclass
class ClassConfig(LabelledConfig):
    """A class for each protein."""

    answers_for = "sequence"
    is_classifier = True
    head_class = ProteinHead
    item_class = ClassItem
    loss_reduction_class = ClassLoss
    answers = results.protein_classes
    references = staticmethod(baseline.of_proteins)
    scores = staticmethod(results.score_classes)


@dataclass
class ValueConfig(LabelledConfig):
    """A value for each protein."""

    answers_for = "sequence"
    is_classifier = False
    head_class = ProteinHead
    item_class = ValueItem
    loss_reduction_class = ValueLoss
    answers = results.protein_values
    references = staticmethod(baseline.of_proteins)
    scores = staticmethod(results.score_values)


@dataclass
class ResidueClassConfig(LabelledConfig):
    """A class for each residue."""

    answers_for = "residue"
    is_classifier = True
    head_class = ResidueHead
    item_class = ResidueClassItem
    loss_reduction_class = ResidueClassLoss
    answers = results.residue_classes
    references = staticmethod(baseline.of_residues)
    scores = staticmethod(results.score_classes)


@dataclass
class ResidueValueConfig(LabelledConfig):
    """A value for each residue."""

    answers_for = "residue"
    is_classifier = False
    head_class = ResidueHead
    item_class = ResidueValueItem
    loss_reduction_class = ResidueValueLoss
    answers = results.residue_values
    references = staticmethod(baseline.of_residues)
    scores = staticmethod(results.score_values)


def check_units(config: LabelledConfig, learned: Units) -> None:
    """Raise a DataError if the labels seem to be in other units than those that a head has learned."""
    (mean, deviation), (old_mean, old_deviation) = config.label_units, learned.bits.view(torch.float64).tolist()
    if abs(mean - old_mean) > MOST_APART * old_deviation or not 1 / MOST_APART < deviation / old_deviation < MOST_APART:
        raise DataError(
            f"the labels are {mean:.4g} on average, with a deviation of {deviation:.3g}, and the head that is loaded "
            f"has learned some of {old_mean:.4g} and {old_deviation:.3g}: start with a new one (--redraw_heads true), "
            "or give labels in the same units"
        )


NETWORKS: dict[str, type[NetworkConfig]] = {
    "masked": MaskedConfig,
    "sequence_classifier": ClassConfig,
    "sequence_regressor": ValueConfig,
    "residue_classifier": ResidueClassConfig,
    "residue_regressor": ResidueValueConfig,
}
