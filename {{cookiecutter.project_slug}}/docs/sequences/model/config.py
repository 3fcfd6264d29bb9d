"""The pairing: the network, its data, its loss, its results."""

from dataclasses import dataclass

from ..contracts.config import NetworkConfig
from . import dataset, results
from .item import ProteinItem
from .losses import MaskedLoss
from .network import Stage


@dataclass
class MaskedConfig(NetworkConfig):
    """Guesses masked letters. All its sizes are fields of Megatron's config, or of the base."""

    item_class = ProteinItem
    stage_class = Stage
    loss_reduction_class = MaskedLoss
    read_training = staticmethod(dataset.read_training)
    read_test = staticmethod(dataset.read_test)
    keep = staticmethod(results.keep)
    predictions = staticmethod(results.predictions)


NETWORKS: dict[str, type[NetworkConfig]] = {"masked": MaskedConfig}
