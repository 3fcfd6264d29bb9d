"""The operations that a config counts are those that torch counts, forward and backward."""

from dataclasses import replace

import pytest
import torch
from conftest import TINY, change
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from {{cookiecutter.__package_name}}.model.config import NETWORKS
from {{cookiecutter.__package_name}}.training.train import make_module

ITEMS, LENGTH = 3, TINY.model.max_length


@pytest.fixture
def counted(megatron):
    """Count what a tiny network computes for some proteins; return that of one, and its config."""

    def count(network, length=LENGTH, **model):
        module = make_module(change(TINY, network=network, model=model), start_weights=None)
        config = replace(module.config, sequence_length=length)
        rows = torch.arange(length).expand(ITEMS, length)
        batch = {"tokens": 4 + rows % 20, "sequence": 1 + rows // LENGTH, "idx": torch.arange(ITEMS)}
        # the kernels for CPUs are not counted, nor is what they compute again in the backward pass
        with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
            config.configure_model()(batch)["logits"].sum().backward()
        return counter.get_total_flops() / ITEMS, config

    return count


@pytest.mark.parametrize("network", NETWORKS)
def test_a_row_for_each_protein_is_counted_exactly(network, counted):
    found, config = counted(network)
    assert config.flops_per_item() == found


@pytest.mark.parametrize("network", ["sequence_classifier", "residue_classifier"])
def test_a_frozen_trunk_has_no_backward_pass(network, counted):
    found, config = counted(network, freeze="trunk")
    assert config.flops_per_item() == pytest.approx(found, rel=0.02)  # torch leaves out the gradient of a head's input
    assert found < counted(network)[0] / 2


def test_in_packed_rows_a_protein_attends_to_no_more_than_its_longest(counted):
    """As it is on GPUs in bf16; here a mask is laid over whole rows."""
    found, config = counted("masked", length=2 * LENGTH)
    over_the_mask = 12 * config.num_layers * config.hidden_size * 2 * LENGTH * LENGTH
    assert config.flops_per_item() == found - over_the_mask
