"""The pairings: each network with its data, its loss and its results."""

from dataclasses import dataclass

from ..contracts.config import NetworkConfig
from . import dataset, results
from .item import FamilyItem, MaskedItem
from .losses import FamilyLoss, MaskedLoss
from .network import FamilyStage, MaskedStage


@dataclass
class ProteinConfig(NetworkConfig):
    """What both have in common. All sizes are fields of Megatron's config, or of the base."""

    predictions = staticmethod(results.predictions)


@dataclass
class MaskedConfig(ProteinConfig):
    """Pretraining: guesses masked letters."""

    item_class = MaskedItem
    stage_class = MaskedStage
    loss_reduction_class = MaskedLoss
    read_training = staticmethod(dataset.read_training)
    read_test = staticmethod(dataset.read_test)
    keep = staticmethod(results.keep_masked)


@dataclass
class FamilyConfig(ProteinConfig):
    """Finetuning: guesses the family."""

    item_class = FamilyItem
    stage_class = FamilyStage
    loss_reduction_class = FamilyLoss
    read_training = staticmethod(dataset.read_labelled_training)
    read_test = staticmethod(dataset.read_labelled_test)
    keep = staticmethod(results.keep_family)


NETWORKS: dict[str, type[NetworkConfig]] = {"masked": MaskedConfig, "family": FamilyConfig}
