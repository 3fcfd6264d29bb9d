"""Every network of yours: pipeline stages that fit together, and start weights that no layout changes."""

from dataclasses import replace

import pytest
import torch
from conftest import TINY, change
from megatron.core import parallel_state
from megatron.core.dist_checkpointing.mapping import ShardedTensor

from {{cookiecutter.__package_name}}.contracts.view import Section
from {{cookiecutter.__package_name}}.model.config import NETWORKS
from {{cookiecutter.__package_name}}.training.train import make_module

pytestmark = pytest.mark.parametrize("network", NETWORKS)

ITEMS = 5


@pytest.fixture
def settings(network):
    return change(TINY, network=network, model={"num_layers": 4})


@pytest.fixture
def config(settings, megatron):
    """Return the config of a network as a training gets it."""
    return make_module(settings, start_weights=None).config


@pytest.fixture
def batch(settings, config):
    return Section(config.read_test(settings), 0, ITEMS).__getitems__(list(range(ITEMS)))


def weights_of(stage):
    """Return the weights by their names in a checkpoint, which both ends of a tied embedding share."""
    tensors = [tensor for tensor in stage.sharded_state_dict().values() if isinstance(tensor, ShardedTensor)]
    return {tensor.key: tensor.data.detach().clone() for tensor in tensors}


def stages_of(config, monkeypatch, count):
    """Build every pipeline stage of a network in this process, one after the other."""
    split = replace(config, pipeline_model_parallel_size=count, pipeline_dtype=torch.float32)
    stages = []
    for rank in range(count):
        with monkeypatch.context() as patch:
            patch.setattr(parallel_state, "get_pipeline_model_parallel_rank", lambda rank=rank: rank)
            patch.setattr(parallel_state, "get_pipeline_model_parallel_world_size", lambda: count)
            patch.setattr(parallel_state, "is_pipeline_first_stage", lambda rank=rank, **_: rank == 0)
            patch.setattr(parallel_state, "is_pipeline_last_stage", lambda rank=rank, **_: rank == count - 1)
            stages.append(split.configure_model().eval())
    return stages


@pytest.mark.parametrize("count", [2, 4])
def test_a_chain_of_pipeline_stages_equals_the_whole_network_bit_for_bit(count, config, batch, monkeypatch):
    whole, activations = config.configure_model().eval(), None
    for stage in stages_of(config, monkeypatch, count):
        stage.set_input_tensor(activations)
        activations = stage(batch)  # of the shape that Megatron sends, or it is refused
    expected = whole(batch)
    assert set(activations) == set(expected)
    assert all(torch.equal(activations[name], expected[name]) for name in expected)


@pytest.mark.parametrize("count", [2, 4])
def test_start_weights_do_not_depend_on_the_split(count, config, monkeypatch):
    whole, pieces = weights_of(config.configure_model()), {}
    for stage in stages_of(config, monkeypatch, count):
        pieces |= (here := weights_of(stage))
        assert all(torch.equal(weight, whole[name]) for name, weight in here.items())
    assert pieces.keys() == whole.keys()


def test_start_weights_depend_on_the_seed_and_on_nothing_else(config):
    first = weights_of(config.configure_model())
    torch.manual_seed(99)
    again = weights_of(config.configure_model())
    other = weights_of(replace(config, init_seed=config.init_seed + 1).configure_model())
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_building_a_network_leaves_the_random_numbers_of_the_run_alone(config):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    config.configure_model()
    assert torch.equal(torch.rand(3), expected)
