"""Which network, with which data, loss and results: one config class each (contracts/config.py)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..contracts.config import NetworkConfig
from . import dataset, results
from .item import IMAGE_SIDE, NUM_CLASSES, MnistItem
from .losses import ClassifierLossReduction, MSELossReduction, MSEPlusClassifierLossReduction
from .network import Stage


@dataclass
class MnistConfig(NetworkConfig):
    """What the networks have in common; the subclasses name heads and loss."""

    latent_size: int = 32
    """Features of the whole item, between trunk and heads."""

    decoder: ClassVar[bool] = False
    classifier: ClassVar[bool] = False

    item_class = MnistItem
    stage_class = Stage
    prepare = staticmethod(dataset.prepare)
    read_training = staticmethod(dataset.read_training)
    read_test = staticmethod(dataset.read_test)
    keep = staticmethod(results.keep)
    predictions = staticmethod(results.predictions)

    def flops_per_item(self) -> float:
        """Return those of an image: two for each weight and row that it sees, forward, and twice that backward."""
        size, inner, latent = self.hidden_size, self.ffn_hidden_size, self.latent_size
        ends, spread = IMAGE_SIDE * IMAGE_SIDE * inner, IMAGE_SIDE * size * latent
        trunk = ends + IMAGE_SIDE * size * inner * (1 + 2 * self.num_layers) + spread
        heads = self.decoder * (spread + IMAGE_SIDE * size * inner + ends) + self.classifier * latent * NUM_CLASSES
        return 6.0 * (trunk + heads)


@dataclass
class AutoencoderConfig(MnistConfig):
    """Pretraining: trunk and decoder, trained to reproduce the image."""

    decoder = True
    loss_reduction_class = MSELossReduction


@dataclass
class ClassifierConfig(MnistConfig):
    """Finetuning: trunk and a new classifier."""

    classifier = True
    loss_reduction_class = ClassifierLossReduction


@dataclass
class AutoencoderClassifierConfig(MnistConfig):
    """Finetuning that keeps the decoder: both heads, both losses."""

    decoder = True
    classifier = True
    loss_reduction_class = MSEPlusClassifierLossReduction


NETWORKS: dict[str, type[NetworkConfig]] = {
    "autoencoder": AutoencoderConfig,
    "classifier": ClassifierConfig,
    "autoencoder_classifier": AutoencoderClassifierConfig,
}
