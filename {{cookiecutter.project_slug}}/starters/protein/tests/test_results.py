"""What is kept, scored and predicted: counted and cut by hand, and texts that can be read again."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import roc_auc_score

from {{cookiecutter.__package_name}}.model import results
from {{cookiecutter.__package_name}}.model.config import NETWORKS
from {{cookiecutter.__package_name}}.model.item import AMINO_ACIDS, CLS, EOS, MASK, PAD, TOKENS
from {{cookiecutter.__package_name}}.model.reading.labels import LabelReader

RESIDUES = (3, 1, 4)
LENGTH = 7


def config_of(network="masked", classes=("a", "b", "c"), **changes):
    """Return what hooks read of a config."""
    sizes = {"sequence_length": LENGTH, "max_length": LENGTH, "num_layers": 2, "layer": None, "embeddings": "none"}
    config = SimpleNamespace(**{**sizes, "classes": list(classes), **changes})
    parts = NETWORKS[network]
    config.is_classifier = getattr(parts, "is_classifier", False)
    config.answers = lambda kept: parts.answers(config, kept)
    return config


@pytest.fixture
def batch():
    """Three proteins, of 3, 1 and 4 residues."""
    tokens = torch.full((3, LENGTH), PAD)
    for row, letters in zip(tokens, ("LAL", "X", "GGCL"), strict=True):
        row[: len(letters) + 2] = torch.tensor([CLS, *map(TOKENS.index, letters), EOS])
    left_out = torch.tensor([0, 0, 2])
    return {"tokens": tokens, "sequence": (tokens != PAD).long(), "left_out": left_out, "idx": torch.arange(3)}


@pytest.fixture
def hidden():
    return torch.rand(3, LENGTH, 5, generator=torch.Generator().manual_seed(1))


def count(**letters):
    return [letters.get(letter, 0) for letter in AMINO_ACIDS]


def test_masked_residues_and_right_guesses_are_counted_by_amino_acid(batch, hidden):
    is_masked = torch.zeros(3, LENGTH, dtype=torch.bool)
    for place in ((0, 1), (0, 2), (0, 3), (1, 1), (2, 2), (2, 3)):
        is_masked[place] = True
    guess = batch["tokens"].clone()
    guess[0, 3] = TOKENS.index("A")
    guess[2, 2] = TOKENS.index("-")
    output = {"logits": F.one_hot(guess, len(TOKENS)).float(), "hidden": hidden}
    whole = {**batch, "targets": batch["tokens"], "is_masked": is_masked}
    kept = results.keep_masked(config_of(), output, {**whole, "tokens": batch["tokens"].masked_fill(is_masked, MASK)})
    assert kept["masked"].tolist() == [count(L=2, A=1), count(), count(G=1, C=1)]
    assert kept["right"].tolist() == [count(L=1, A=1), count(), count(C=1)]
    assert kept["masked"].dtype == torch.int64


def test_the_embedding_is_the_mean_of_the_residues_whatever_stands_around(batch, hidden):
    kept = results.keep_features(config_of(), {"hidden": hidden.bfloat16()}, batch)
    expected = [hidden[n, 1 : 1 + count].bfloat16().float().mean(dim=0) for n, count in enumerate(RESIDUES)]
    torch.testing.assert_close(kept["embedding"], torch.stack(expected))
    assert kept["residues"].tolist() == list(RESIDUES) and set(kept) == {"residues", "left_out", "embedding"}


def test_rows_of_several_proteins_have_no_embedding(batch, hidden):
    assert results.keep_features(config_of(max_length=LENGTH - 1), {"hidden": hidden}, batch) == {}


def arrays(kept):
    return {name: value.numpy() for name, value in kept.items()}


def test_features_of_residues_lie_one_protein_after_the_other(batch, hidden):
    config = config_of(embeddings="residue")
    kept = arrays(results.keep_features(config, {"hidden": hidden}, batch))
    found = results.embeddings(config, kept)["embedding"]
    assert found.offsets.tolist() == [0, 3, 4, 8]
    for n, residues in enumerate(RESIDUES):
        part = found.values[found.offsets[n] : found.offsets[n + 1]]
        assert np.array_equal(part, hidden[n, 1 : 1 + residues].numpy())


def test_residues_say_where_in_the_whole_protein_they_stand():
    found = results.places({"residues": np.array([3, 5, 1]), "left_out": np.array([0, 4, 0])})
    assert found["positions"].tolist() == ["1-3", "1-3 8-9", "1-1"]
    assert found["position"].values.tolist() == [1, 2, 3, 1, 2, 3, 8, 9, 1]
    assert found["position"].offsets.tolist() == [0, 3, 8, 9]


def labelled(network, batch, hidden, logits, label, is_labelled, **changes):
    """Return what is kept of a network's outputs, and the config."""
    config = config_of(network, **changes)
    labels = {"label": torch.tensor(label), "is_labelled": torch.tensor(is_labelled)}
    return arrays(results.keep_labelled(config, {"logits": logits, "hidden": hidden}, {**batch, **labels})), config


def test_classes_of_proteins_are_predicted_by_name(batch, hidden):
    logits = torch.tensor([[0.0, 2.0, 1.0], [3.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    kept, config = labelled("sequence_classifier", batch, hidden, logits, [1, 0, 2], [True, False, True])
    found = results.predictions(config, kept)
    assert list(found) == ["label", "prediction", "probability", "probability_a", "probability_b", "probability_c"]
    assert found["label"].tolist() == ["b", "", "c"] and found["prediction"].tolist() == ["b", "a", "c"]
    probability = logits.softmax(dim=1).numpy()
    np.testing.assert_allclose(np.stack([found[f"probability_{name}"] for name in "abc"], axis=1), probability)
    np.testing.assert_allclose(found["probability"], probability.max(axis=1))


def test_values_of_proteins_are_predicted_beside_their_labels(batch, hidden):
    logits = torch.tensor([[0.5], [1.5], [-2.0]])
    kept, config = labelled("sequence_regressor", batch, hidden, logits, [1.25, 0.0, 3.0], [True, False, True])
    found = results.predictions(config, kept)
    assert found["label"].tolist() == ["1.25", "", "3"] and found["value"].tolist() == [0.5, 1.5, -2.0]


@pytest.mark.parametrize("classes", [["a", "b", "c"], ["coil", "b", "helix"]])
def test_classes_of_residues_are_written_as_labels_are_read(classes, batch, hidden):
    logits = torch.rand(3, LENGTH, 3, generator=torch.Generator().manual_seed(2))
    nothing = torch.zeros(3, LENGTH).long().tolist(), torch.zeros(3, LENGTH).bool().tolist()
    kept, config = labelled("residue_classifier", batch, hidden, logits, *nothing, classes=classes)
    found = results.predictions(config, kept)
    reader = LabelReader("residue_classifier", classes)
    for n, residues in enumerate(RESIDUES):
        guess = logits[n, 1 : 1 + residues].argmax(dim=1).tolist()
        assert reader.read(found["prediction"][n], None, residues)[0].tolist() == guess
    probability = found["probability"]
    assert probability.offsets.tolist() == [0, 3, 4, 8]
    np.testing.assert_allclose(probability.values[4:], logits[2, 1:5].softmax(dim=1).numpy())


def test_values_of_residues_are_written_as_labels_are_read(batch, hidden):
    logits = torch.rand(3, LENGTH, 1, generator=torch.Generator().manual_seed(2)) * 1e-3
    nothing = torch.zeros(3, LENGTH).tolist(), torch.zeros(3, LENGTH).bool().tolist()
    kept, config = labelled("residue_regressor", batch, hidden, logits, *nothing)
    found = results.predictions(config, kept)
    for n, residues in enumerate(RESIDUES):
        read, _ = LabelReader("residue_regressor", []).read(found["prediction"][n], None, residues)
        np.testing.assert_allclose(read, logits[n, 1 : 1 + residues, 0], rtol=1e-5)
    assert np.array_equal(found["value"].values[:3], logits[0, 1:4, 0].numpy())


@pytest.mark.parametrize(("layer", "has_answers"), [(None, True), (2, True), (1, False), (0, False)])
def test_a_layer_before_the_last_gives_features_and_no_answers(layer, has_answers, batch, hidden):
    asked = {"layer": layer, "embeddings": "sequence"}
    kept, config = labelled("sequence_classifier", batch, hidden, torch.zeros(3, 3), [0] * 3, [True] * 3, **asked)
    found = results.predictions(config, kept)
    assert ("prediction" in found) == has_answers
    assert np.array_equal(found["embedding"], kept["embedding"])


def test_a_masked_network_predicts_nothing_unless_embeddings_are_asked_for(batch, hidden):
    kept = arrays(results.keep_features(config_of(), {"hidden": hidden}, batch))
    assert results.embeddings(config_of(), kept) == {}


# Scores


def test_the_score_of_classes_is_a_mean_over_those_that_are_there():
    random = np.random.default_rng(0)
    label, probability = random.integers(0, 3, 40), random.dirichlet(np.ones(4), 40).astype(np.float32)
    kept = {"label": label, "probability": probability, "is_labelled": np.ones(40, bool)}
    expected = np.mean([roc_auc_score(label == c, probability[:, c]) for c in range(3)])
    assert results.score_classes(kept) == {"auroc": pytest.approx(expected)}
    same = {**kept, "label": np.full(40, 3)}
    assert math.isnan(results.score_classes(same)["auroc"])


def test_the_score_of_two_classes_is_the_usual_one():
    label, probability = np.array([0, 0, 1, 1]), np.array([0.1, 0.4, 0.35, 0.8])
    both = np.stack([1 - probability, probability], axis=1)
    kept = {"label": label, "probability": both, "is_labelled": np.ones(4, bool)}
    assert results.score_classes(kept) == {"auroc": 0.75}


def test_values_are_scored_by_their_order():
    kept = {"label": np.float32([1, 2, 3, 4]), "value": np.float32([1, 3, 2, 9]), "is_labelled": np.ones(4, bool)}
    assert results.score_values(kept) == {"spearman": pytest.approx(0.8)}


def test_only_labelled_residues_are_scored():
    random = np.random.default_rng(1)
    is_labelled = random.random((5, 9)) < 0.4
    label, probability = random.integers(0, 2, (5, 9)), random.dirichlet([1, 1], (5, 9))
    kept = {"label": label, "probability": probability, "is_labelled": is_labelled}
    expected = roc_auc_score(label[is_labelled], probability[is_labelled][:, 1])
    assert results.score_classes(kept) == {"auroc": pytest.approx(expected)}
    kept = {"label": label, "value": np.where(is_labelled, label + 0.5, 100.0), "is_labelled": is_labelled}
    assert results.score_values(kept) == {"spearman": pytest.approx(1)}
