"""The networks: outputs, loss and gradients are those of Hugging Face's transformers with the same weights."""

from dataclasses import replace

import pytest
import torch
from megatron.core import dist_checkpointing
from transformers import (
    EsmConfig,
    EsmForMaskedLM,
    EsmForSequenceClassification,
    EsmForTokenClassification,
)

from {{cookiecutter.__package_name}}.model.config import NETWORKS
from {{cookiecutter.__package_name}}.model.hugging_face.weights import from_hugging_face, to_hugging_face
from {{cookiecutter.__package_name}}.model.item import CLS, EOS, MASK, PAD, TOKENS
from {{cookiecutter.__package_name}}.training.train import make_module

HEADS, LENGTH = 4, 48
LENGTHS = (48, 31, 3, 12, 40)
THEIRS = {
    "masked": EsmForMaskedLM,
    "sequence_classifier": EsmForSequenceClassification,
    "sequence_regressor": EsmForSequenceClassification,
    "residue_classifier": EsmForTokenClassification,
    "residue_regressor": EsmForTokenClassification,
}


@pytest.fixture
def config(tiny, megatron):
    """Return the config of a tiny network by its name, as a training gets it."""
    return lambda network="masked", **changes: replace(
        make_module(tiny(network=network), start_weights=None).config, **changes
    )


def reference(network, num_labels):
    """Make the network of transformers with random weights, none of which is zero or one."""
    torch.manual_seed(5)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": HEADS, "intermediate_size": 32}
    model = THEIRS[network](
        EsmConfig(
            vocab_size=len(TOKENS),
            pad_token_id=PAD,
            mask_token_id=MASK,
            position_embedding_type="rotary",
            token_dropout=True,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            layer_norm_eps=1e-5,
            num_labels=num_labels,
            **sizes,
        )
    )
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.1 * torch.randn_like(weight)
    return model


def with_weights_of(theirs, network, config):
    """Build our network with the weights of theirs."""
    stage = config.configure_model()
    state = dict(theirs.state_dict())
    stage.load_state_dict(
        {name: from_hugging_face(name, state, network, HEADS) for name, _ in stage.named_parameters()}, strict=False
    )
    return stage


@pytest.fixture
def batch():
    """Proteins of several lengths, padded, an eighth of them masked; one with all its residues masked."""
    random = torch.Generator().manual_seed(3)
    tokens = torch.full((len(LENGTHS), LENGTH), PAD)
    for row, length in zip(tokens, LENGTHS, strict=True):
        row[:length] = torch.randint(4, 24, (length,), generator=random)
        row[0], row[length - 1] = CLS, EOS
    targets, inside = tokens.clone(), (tokens != PAD) & (tokens != CLS) & (tokens != EOS)
    is_masked = inside & (torch.rand(tokens.shape, generator=random) < 0.3)
    is_masked[2] = inside[2]
    tokens = tokens.masked_fill(is_masked, MASK)
    return {
        "tokens": tokens,
        "sequence": (tokens != PAD).long(),
        "targets": targets,
        "is_masked": is_masked,
        "idx": torch.arange(len(tokens)),
    }


def both(network, config, batch):
    """Return the logits of our network and of theirs with the same weights, and the two networks."""
    config = config(network)
    theirs = reference(network, getattr(config, "num_outputs", 2))
    ours = with_weights_of(theirs, network, config)
    return ours(batch)["logits"], answer(theirs, batch), ours, theirs


def answer(theirs, batch):
    """Return their logits. Embeddings are made apart, for transformers 4.57 does not tell them what is padding."""
    mask = batch["sequence"]
    embedded = theirs.esm.embeddings(batch["tokens"], attention_mask=mask)
    return theirs(inputs_embeds=embedded, attention_mask=mask).logits


def real(logits, batch):
    """Return what counts: of each position the ones that are not padding."""
    return logits[batch["sequence"] > 0] if logits.ndim == 3 else logits


def test_every_network_is_tried_here():
    assert set(THEIRS) == set(NETWORKS)


@pytest.mark.parametrize("network", THEIRS)
def test_outputs_loss_and_gradients_are_those_of_transformers(network, config, batch):
    found, expected, ours, theirs = both(network, config, batch)
    found, expected = real(found, batch), real(expected, batch)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    weights = torch.rand(expected.shape, generator=torch.Generator().manual_seed(1))
    losses = [(logits.log_softmax(-1) * weights + logits.square()).mean() for logits in (found, expected)]
    torch.testing.assert_close(*losses, rtol=1e-5, atol=0)
    for loss in losses:
        loss.backward()
    gradients = to_hugging_face({name: w.grad for name, w in ours.named_parameters()}, network, HEADS)
    for name, weight in theirs.named_parameters():
        if "contact_head" not in name and not name.startswith("esm.embeddings.position"):
            scale = max(float(weight.grad.abs().max()), 1e-3)
            torch.testing.assert_close(gradients.pop(name), weight.grad, rtol=0, atol=1e-5 * scale, msg=name)
    assert not gradients


def test_a_padded_protein_gives_what_transformers_makes_of_it_alone(config, batch):
    found, _, _, theirs = both("masked", config, batch)
    for row, length in enumerate(LENGTHS):
        alone = theirs(batch["tokens"][row : row + 1, :length]).logits[0]
        torch.testing.assert_close(found[row, :length], alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("layer", [0, 1, 2, None])
def test_features_after_each_layer_are_those_of_transformers(layer, config, batch):
    theirs = reference("masked", num_labels=2)
    ours = with_weights_of(theirs, "masked", config("masked", layer=layer)).eval()
    mask = batch["sequence"]
    embedded = theirs.esm.embeddings(batch["tokens"], attention_mask=mask)
    states = theirs.esm(inputs_embeds=embedded, attention_mask=mask, output_hidden_states=True).hidden_states
    expected = states[-1 if layer is None else layer]
    torch.testing.assert_close(real(ours(batch)["hidden"], batch), real(expected, batch), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("start", THEIRS)
def test_only_a_head_of_the_same_kind_is_loaded_though_a_layer_of_another_would_fit(start, config, tmp_path):
    dist_checkpointing.save(config(start).configure_model().sharded_state_dict(prefix="module."), str(tmp_path))
    for network in THEIRS.keys() - {"masked"}:
        found = config(network, init_seed=99, start_weights_dir=str(tmp_path), new_heads=("head",)).configure_model()
        assert found.loaded_heads == (("head",) if network == start else ()), network
