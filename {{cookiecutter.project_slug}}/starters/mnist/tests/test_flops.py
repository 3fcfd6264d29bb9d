"""The operations that a config counts are those that torch counts, forward and backward."""

import pytest
import torch
from conftest import TINY, change
from torch.utils.flop_counter import FlopCounterMode

from {{cookiecutter.__package_name}}.model.config import NETWORKS
from {{cookiecutter.__package_name}}.training.train import make_module

ITEMS = 3


@pytest.mark.usefixtures("megatron")
@pytest.mark.parametrize("network", NETWORKS)
def test_operations_are_counted_exactly(network):
    config = make_module(change(TINY, network=network), start_weights=None).config
    batch = {"data": torch.rand(ITEMS, 1, 28, 28), "idx": torch.arange(ITEMS)}
    with FlopCounterMode(display=False) as counter:
        output = config.configure_model()(batch)
        sum(output[name].sum() for name in ("reconstruction", "logits") if name in output).backward()
    assert config.flops_per_item() == counter.get_total_flops() / ITEMS
