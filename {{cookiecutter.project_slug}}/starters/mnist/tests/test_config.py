"""The configs: which loss belongs to which network, and which weights a finetuning takes over."""

import pytest
import torch
from megatron.core import dist_checkpointing

from {{cookiecutter.__package_name}}.contracts.names import CHECKPOINTS_FOLDER
from {{cookiecutter.__package_name}}.contracts.start import StartWeightsError
from {{cookiecutter.__package_name}}.model.config import (
    NETWORKS,
    AutoencoderClassifierConfig,
    AutoencoderConfig,
    ClassifierConfig,
)
from {{cookiecutter.__package_name}}.model.losses import (
    ClassifierLossReduction,
    MSELossReduction,
    MSEPlusClassifierLossReduction,
)
from {{cookiecutter.__package_name}}.runtime.checkpoint import best_checkpoint
from {{cookiecutter.__package_name}}.training.train import make_module


@pytest.mark.parametrize(
    ("config", "loss", "decoder", "classifier"),
    [
        (AutoencoderConfig, MSELossReduction, True, False),
        (ClassifierConfig, ClassifierLossReduction, False, True),
        (AutoencoderClassifierConfig, MSEPlusClassifierLossReduction, True, True),
    ],
)
def test_every_network_is_trained_with_its_loss(config, loss, decoder, classifier):
    assert config(num_layers=1, hidden_size=4, num_attention_heads=1).get_loss_reduction_class() is loss
    assert (config.decoder, config.classifier) == (decoder, classifier)
    assert config in NETWORKS.values()


def saved_weights(run):
    """Return the weights of a run's best checkpoint by name, read without the network and without our loader."""
    best = best_checkpoint(run / CHECKPOINTS_FOLDER)
    tensors = dist_checkpointing.load_plain_tensors(str(best / "weights"))
    named = {key.removeprefix("module."): value for key, value in tensors.items() if key.startswith("module.")}
    return {name: value for name, value in named.items() if isinstance(value, torch.Tensor)}


@pytest.fixture
def network(tiny, megatron, pretrained):
    """Build a network as a training does, from the pretrained run's best checkpoint."""

    def build(name="classifier", new_heads=("classifier",), start=pretrained.folder, **model):
        start = start and best_checkpoint(start / CHECKPOINTS_FOLDER)
        settings = tiny(network=name, new_heads=new_heads, model=model)
        return make_module(settings, start_weights=start).config.configure_model()

    return build


def parameters(stage):
    return {name: weight.detach() for name, weight in stage.named_parameters()}


@pytest.mark.slow
def test_the_trunk_starts_from_the_pretrained_weights_and_a_new_head_from_random_ones(network, pretrained):
    saved, fresh, loaded = saved_weights(pretrained.folder), parameters(network(start=None)), parameters(network())
    head = {name for name in loaded if name.startswith("classifier.")}
    trunk = {name for name in loaded if name.startswith("trunk.")}
    assert (len(head), head | trunk) == (2, set(loaded))
    for name in trunk:
        assert torch.equal(loaded[name], saved[name]), name
        assert torch.equal(loaded[name], pretrained.end[name]), name
        assert not torch.equal(loaded[name], fresh[name]), name
    assert all(torch.equal(loaded[name], fresh[name]) for name in head)
    assert loaded["classifier.scores.weight"].std() > 0.1


@pytest.mark.slow
def test_finetuning_trains_every_weight_from_there(pretrained, finetuned):
    trunk = [name for name in finetuned.start if name.startswith("trunk.")]
    assert len(trunk) == len(finetuned.start) - 2
    assert all(torch.equal(finetuned.start[name], pretrained.end[name]) for name in trunk)
    assert not any(torch.equal(finetuned.end[name], finetuned.start[name]) for name in finetuned.start)


@pytest.mark.slow
def test_keeping_the_decoder_loads_it_too(network, pretrained):
    loaded = parameters(network("autoencoder_classifier"))
    decoder = [name for name in loaded if name.startswith("image_decoder.")]
    assert decoder and all(torch.equal(loaded[name], pretrained.end[name]) for name in decoder)


@pytest.mark.slow
def test_a_new_head_does_not_excuse_another_one(network, finetuned):
    with pytest.raises(StartWeightsError) as caught:
        network("autoencoder_classifier", start=finetuned.folder)
    answer = str(caught.value)
    assert "image_decoder.rows.weight is missing" in answer
    assert "classifier.scores" not in answer and "trunk" not in answer


@pytest.mark.slow
def test_a_trunk_of_other_sizes_is_refused_by_what_differs(network):
    with pytest.raises(StartWeightsError) as caught:
        network(latent_size=4)
    assert "(trunk.latent.weight is (8, 448), not (4, 448); trunk.latent.bias is (8,), not (4,))" in str(caught.value)
    with pytest.raises(StartWeightsError) as caught:
        network(num_layers=3)
    assert "trunk.blocks.2.norm.weight is missing" in str(caught.value)
    assert "trunk.blocks.1" not in str(caught.value)


@pytest.mark.slow
def test_a_run_of_another_network_is_refused(refused, pretrained, finetuned):
    answer = refused("evaluate", "--from", finetuned.folder, "--network", "autoencoder")
    assert "image_decoder.rows.weight is missing" in answer
    assert "trunk" not in answer
    answer = refused("predict", "--from", pretrained.folder)
    assert "predicts nothing for an item" in answer
