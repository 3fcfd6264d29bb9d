"""The proteins: masks that are the same again, losses that plain torch confirms, and a trunk that is handed on."""

import pytest
import torch
import torch.nn.functional as F
from conftest import TINY

from {{cookiecutter.__package_name}}.contracts.item import PADDING_IDX, Index, checked, keys_of
from {{cookiecutter.__package_name}}.contracts.view import Section
from {{cookiecutter.__package_name}}.model.config import NETWORKS
from {{cookiecutter.__package_name}}.model.dataset import MaskedProteins, encoded, read_labelled_test
from {{cookiecutter.__package_name}}.model.item import FAMILIES, MASK, PAD, TOKENS, FamilyItem, MaskedItem
from {{cookiecutter.__package_name}}.model.losses import FamilyLoss, MaskedLoss
from {{cookiecutter.__package_name}}.results.export import PLAIN_FILE, export_run

PROTEINS = MaskedProteins(encoded(["ACDEFGHIKLMN" * 5, "ACD", "WYWYWYWY"], 32))
LABELLED = Section(read_labelled_test(TINY), 0, 3)
SIZES = {"sequence_length": 32}.get


def test_a_batch_is_what_the_item_says():
    batch = checked(Section(PROTEINS, 0, 3).__getitems__([0, 1, 2]), keys_of(MaskedItem, SIZES))
    assert batch["is_letter"].sum(dim=1).tolist() == [32, 3, 8]


def test_a_labelled_batch_is_what_its_item_says():
    batch = checked(LABELLED.__getitems__([0, 1, 2]), keys_of(FamilyItem, SIZES))
    assert (batch["letters"] == PAD).equal(~batch["is_letter"])


def test_masks_are_the_same_for_the_same_epoch_and_others_in_the_next():
    first, again, later = (PROTEINS[Index(0, epoch, seed=1)] for epoch in (3, 3, 4))
    assert torch.equal(first["is_masked"], again["is_masked"])
    assert not torch.equal(first["is_masked"], later["is_masked"])


def test_what_is_masked_is_hidden_and_never_padding():
    item = PROTEINS[Index(2, epoch=0, seed=1)]
    assert (item["tokens"] == MASK).equal(item["is_masked"])
    assert (item["letters"] == PAD).equal(~item["is_letter"])
    assert not (item["is_masked"] & ~item["is_letter"]).any()


def test_the_loss_is_the_mean_over_masked_letters_as_plain_torch_has_it():
    batch = Section(PROTEINS, 0, 3).__getitems__([0, 2, 1])
    batch["idx"][2] = PADDING_IDX
    logits = torch.randn(3, 32, len(TOKENS))
    loss = MaskedLoss()
    total, count, kept = loss.forward(batch, {"logits": logits})
    where = batch["is_masked"] & (batch["idx"] >= 0)[:, None]
    plain = F.cross_entropy(logits[where], batch["letters"][where])
    torch.testing.assert_close(total / count, plain)
    torch.testing.assert_close(loss.figures(kept["totals"])["perplexity"], plain.exp())


def test_the_loss_of_families_is_that_of_plain_torch_and_passes_over_padding():
    batch = LABELLED.__getitems__([0, 1, 2])
    batch["idx"][2] = PADDING_IDX
    logits = F.one_hot(batch["family"], FAMILIES).float()
    logits[1] = logits[1].roll(1)  # which is another family
    loss = FamilyLoss()
    total, count, kept = loss.forward(batch, {"logits": logits})
    assert count == 2
    torch.testing.assert_close(total / count, F.cross_entropy(logits[:2], batch["family"][:2]))
    assert loss.figures(kept["totals"])["accuracy"] == 0.5


def test_a_family_is_guessed_from_letters_and_not_from_what_fills_up(megatron):
    stage = NETWORKS["family"](
        num_layers=1, hidden_size=16, num_attention_heads=4, ffn_hidden_size=32, sequence_length=32
    ).configure_model()
    batch = LABELLED.__getitems__([0, 1, 2])
    padded = batch | {"letters": batch["letters"].where(batch["is_letter"], MASK)}
    torch.testing.assert_close(stage(padded)["logits"], stage(batch)["logits"])


@pytest.mark.slow
@pytest.mark.parametrize("run", ["pretrained", "finetuned"])
def test_plain_torch_computes_what_each_network_does(run, request, tmp_path):
    folder = export_run(request.getfixturevalue(run).settings, tmp_path / "export")
    assert (folder / PLAIN_FILE).exists()
