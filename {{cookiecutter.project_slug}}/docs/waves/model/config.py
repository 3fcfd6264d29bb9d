"""The pairing: the network, its data, its loss, its results."""

from dataclasses import dataclass

from ..contracts.config import NetworkConfig
from . import dataset, results
from .item import WaveItem
from .losses import WaveLoss
from .network import Stage


@dataclass
class WaveConfig(NetworkConfig):
    """The mixer."""

    latent_size: int = 32
    """Features of a whole wave: the one size that Megatron's config lacks."""

    item_class = WaveItem
    stage_class = Stage
    loss_reduction_class = WaveLoss
    read_training = staticmethod(dataset.read_training)
    read_test = staticmethod(dataset.read_test)
    keep = staticmethod(results.keep)
    predictions = staticmethod(results.predictions)


NETWORKS: dict[str, type[NetworkConfig]] = {"waves": WaveConfig}
