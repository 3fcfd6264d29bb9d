"""The proteins: masks that are the same again, and a loss of masked letters that plain torch confirms."""

import torch
import torch.nn.functional as F

from {{cookiecutter.__package_name}}.contracts.item import PADDING_IDX, Index, checked, keys_of
from {{cookiecutter.__package_name}}.contracts.view import Section
from {{cookiecutter.__package_name}}.model.dataset import Proteins
from {{cookiecutter.__package_name}}.model.item import MASK, PAD, TOKENS, ProteinItem
from {{cookiecutter.__package_name}}.model.losses import MaskedLoss

PROTEINS = Proteins(["ACDEFGHIKLMN" * 5, "ACD", "WYWYWYWY"], 32)


def test_a_batch_is_what_the_item_says():
    keys = keys_of(ProteinItem, {"sequence_length": 32}.get)
    batch = checked(Section(PROTEINS, 0, 3).__getitems__([0, 1, 2]), keys)
    assert batch["is_letter"].sum(dim=1).tolist() == [32, 3, 8]


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
