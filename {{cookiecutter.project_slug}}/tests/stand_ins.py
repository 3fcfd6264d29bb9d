"""Small stand-ins for what a model gives, for tests that must hold whatever `model/` holds."""

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor, nn

from {{cookiecutter.__package_name}}.contracts.config import NetworkConfig
from {{cookiecutter.__package_name}}.contracts.item import Item, Key
from {{cookiecutter.__package_name}}.contracts.loss import ItemLossReduction
from {{cookiecutter.__package_name}}.contracts.stage import PipelineStage
from {{cookiecutter.__package_name}}.contracts.start import start_weights
from {{cookiecutter.__package_name}}.contracts.view import split_validation


class NumberItem(Item):
    """What the datasets below give."""

    value: Annotated["Tensor", Key("float32", (2,))]
    given: Annotated["Tensor", Key("int64", (2,))]
    """seed and epoch, all that a random part of the item could depend on beside its position"""


class Numbers:
    """A dataset of one item at a time: item i holds i."""

    def __init__(self, size):
        self.size = size

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        return {"value": torch.full((2,), float(index)), "given": torch.tensor([index.seed, index.epoch])}


class Batches(Numbers):
    """The same numbers from a dataset that also gives ready batches."""

    def __getitems__(self, indices):
        value = torch.tensor(indices).float().unsqueeze(1).repeat(1, 2)
        return {"value": value, "given": torch.tensor([[indices.seed, epoch] for epoch in indices.epochs])}


def assert_same(a, b):
    """Equal keys, dtypes, shapes and bits."""
    assert a.keys() == b.keys()
    for key in a:
        assert a[key].dtype == b[key].dtype, key
        assert torch.equal(a[key], b[key]), key


class NumberStage(PipelineStage):
    """A network of a body on every stage, and of a head and a scale on the last one."""

    def __init__(self, config, pre_process=True, post_process=True, vp_stage=0):
        super().__init__(config, pre_process, post_process, vp_stage)
        with start_weights(config, "body"):
            self.body = nn.Linear(2, config.hidden_size)
        if post_process:
            with start_weights(config, "head"):
                self.head = nn.Linear(config.hidden_size, config.answers)
            self.head_norm = nn.LayerNorm(config.hidden_size)

    def forward(self, batch):
        hidden = self.body(batch["value"])
        return {"answer": self.head(self.head_norm(hidden))} if self.post_process else hidden.unsqueeze(0)


class NumberLoss(ItemLossReduction):
    def per_item(self, output, batch):
        return (output["answer"].square().mean(dim=1),)


@dataclass
class NumberConfig(NetworkConfig):
    """The pairing of all these."""

    num_layers: int = 1
    hidden_size: int = 4
    num_attention_heads: int = 1
    sequence_length: int = 1
    answers: int = 3

    item_class = NumberItem
    stage_class = NumberStage
    loss_reduction_class = NumberLoss

    @staticmethod
    def read_training(settings):
        return split_validation(Batches(100), 10)

    @staticmethod
    def read_test(settings):
        return Batches(10)


def grown(stage):
    """Return a stage with a weight more."""

    class Grown(stage):
        def __init__(self, *arguments, **named):
            super().__init__(*arguments, **named)
            self.extra = torch.nn.Parameter(torch.ones(3))

    return Grown


def shrunk(stage):
    """Return a stage whose biases are gone, as far as a checkpoint sees it."""

    class Shrunk(stage):
        def sharded_state_dict(self, *arguments, **named):
            state = super().sharded_state_dict(*arguments, **named)
            return {name: tensor for name, tensor in state.items() if not name.endswith("bias")}

    return Shrunk


def renamed(loss):
    """Return a loss that reports another figure too."""
    return type("Renamed", (loss,), {"names": (*loss.names, "other")})
