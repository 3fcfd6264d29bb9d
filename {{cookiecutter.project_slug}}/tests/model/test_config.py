"""The configs: which loss belongs to which network, and start weights that are loaded whole or refused by name."""

import shutil
from pathlib import Path

import pytest
import torch
from megatron.core import dist_checkpointing

from {{cookiecutter.__package_name}}.config import (
    NETWORKS,
    AutoencoderClassifierConfig,
    AutoencoderConfig,
    ClassifierConfig,
    StartWeightsError,
)
from {{cookiecutter.__package_name}}.errors import UserError
from {{cookiecutter.__package_name}}.losses import (
    ClassifierLossReduction,
    MSELossReduction,
    MSEPlusClassifierLossReduction,
)
from {{cookiecutter.__package_name}}.names import CHECKPOINTS_FOLDER
from {{cookiecutter.__package_name}}.runtime.checkpoint import best_checkpoint
from {{cookiecutter.__package_name}}.runtime.seal import SEAL
from {{cookiecutter.__package_name}}.training import make_module


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
def test_the_trunk_starts_from_the_pretrained_weights(network, pretrained):
    saved, fresh = saved_weights(pretrained.folder), parameters(network(start=None))
    loaded = parameters(network())
    trunk = {name for name in loaded if name.startswith("trunk.")}
    assert len(trunk) == len(loaded) - 2
    for name in trunk:
        assert torch.equal(loaded[name], saved[name]), name
        assert torch.equal(loaded[name], pretrained.end[name]), name
        assert not torch.equal(loaded[name], fresh[name]), name


@pytest.mark.slow
def test_new_heads_start_with_random_weights(network):
    loaded, fresh = parameters(network()), parameters(network(start=None))
    for name in ("classifier.scores.weight", "classifier.scores.bias"):
        assert torch.equal(loaded[name], fresh[name])
    assert loaded["classifier.scores.weight"].std() > 0.1


@pytest.mark.slow
def test_finetuning_trains_from_exactly_these_weights(pretrained, finetuned):
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
def test_without_new_heads_the_checkpoint_must_have_every_weight(network, pretrained):
    loaded = parameters(network("autoencoder", new_heads=()))
    assert all(torch.equal(loaded[name], pretrained.end[name]) for name in loaded)


@pytest.mark.slow
def test_a_prefix_that_names_nothing_is_refused_with_the_parts_that_there_are(network):
    with pytest.raises(StartWeightsError, match="its parts are classifier, trunk") as caught:
        network(new_heads=("classifier", "projection"))
    assert "--new_heads projection" in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize("prefix", ["classif", "classifier.score", "classifier.scores.weight"])
def test_a_prefix_ends_at_a_dot(prefix, network):
    with pytest.raises(StartWeightsError) as caught:
        network(new_heads=(prefix,))
    missing = "no such part" if prefix != "classifier.scores.weight" else "classifier.scores.bias is missing"
    assert missing in str(caught.value)


@pytest.mark.slow
def test_weights_that_are_missing_outside_the_new_heads_are_listed(network):
    with pytest.raises(StartWeightsError) as caught:
        network(new_heads=())
    assert "(classifier.scores.weight is missing; classifier.scores.bias is missing)" in str(caught.value)
    assert "now: none" in str(caught.value)


@pytest.mark.slow
def test_a_new_head_does_not_excuse_another_part(network, finetuned):
    with pytest.raises(StartWeightsError) as caught:
        network("autoencoder_classifier", start=finetuned.folder)
    answer = str(caught.value)
    assert "image_decoder.rows.weight is missing" in answer
    assert "classifier.scores" not in answer and "trunk" not in answer


@pytest.mark.slow
def test_weights_of_another_shape_are_listed_with_both_shapes(network):
    with pytest.raises(StartWeightsError) as caught:
        network(latent_size=4)
    assert "(trunk.latent.weight is (8, 448), not (4, 448); trunk.latent.bias is (8,), not (4,))" in str(caught.value)


@pytest.mark.slow
def test_a_deeper_trunk_is_refused_by_the_names_of_its_new_blocks(network):
    with pytest.raises(StartWeightsError) as caught:
        network(num_layers=3)
    assert "trunk.blocks.2.norm.weight is missing" in str(caught.value)
    assert "trunk.blocks.1" not in str(caught.value)


@pytest.mark.slow
def test_an_unfinished_checkpoint_is_not_started_from(pretrained, tmp_path):
    shutil.copytree(pretrained.folder / CHECKPOINTS_FOLDER, tmp_path / "checkpoints")
    best = best_checkpoint(tmp_path / "checkpoints")
    (best / SEAL).unlink()  # which is written last
    with pytest.raises(UserError, match="holds no finished checkpoint"):
        best_checkpoint(tmp_path / "checkpoints")


@pytest.mark.slow
def test_a_start_that_fails_leaves_no_folder(tiny, train, pretrained):
    settings = tiny(from_run=pretrained.settings.run_dir, network="classifier")  # the new head is not named
    with pytest.raises(UserError, match=r"classifier.scores.weight is missing"):
        train(settings)
    assert not Path(settings.run_dir).exists()


@pytest.mark.slow
def test_a_checkpoint_of_another_network_is_refused(refused, run_dir, pretrained, finetuned):
    answer = refused("evaluate", "--from", finetuned.folder, "--network", "autoencoder")
    assert "image_decoder.rows.weight is missing" in answer
    assert "trunk" not in answer
    answer = refused("predict", "--from", pretrained.folder)
    assert "predicts nothing for an item" in answer
