"""Rows of many proteins: the network makes of each what it makes of it alone."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from conftest import TINY

from {{cookiecutter.__package_name}}.model.config import MaskedConfig
from {{cookiecutter.__package_name}}.model.item import CLS, EOS, MASK, PAD, most_proteins
from {{cookiecutter.__package_name}}.model.network import Rows
from {{cookiecutter.__package_name}}.training.train import make_module

LENGTHS = (48, 31, 3, 12, 40, 7)
PACKED = ((0, 1, 2, 3), (4, 5))  # which of them a row holds: both with padding at the end
LONGEST, ROW = 48, 128


@pytest.fixture
def config(megatron):
    """Return the config of the network with rows of a length."""
    module = make_module(replace(TINY, network="masked"), start_weights=None)
    return lambda row: replace(module.config, sequence_length=row)


def protein(number):
    """Make tokens, some of them masked, of one protein: (seen, targets, is_masked)."""
    random = torch.Generator().manual_seed(number)
    targets = torch.randint(4, 24, (LENGTHS[number],), generator=random)
    is_masked = torch.rand(len(targets), generator=random) < 0.3
    is_masked[0] = is_masked[-1] = False
    targets[0], targets[-1] = CLS, EOS
    return targets.masked_fill(is_masked, MASK), targets, is_masked


def batch_of(rows, length):
    """Put proteins into rows; each row is a list of their numbers."""
    tokens, targets = torch.full((2, len(rows), length), PAD).unbind()
    sequence, is_masked = torch.zeros_like(tokens), torch.zeros(tokens.shape, dtype=torch.bool)
    for row, numbers in enumerate(rows):
        start = 0
        for place, number in enumerate(numbers, 1):
            stop = start + LENGTHS[number]
            here = (row, slice(start, stop))
            tokens[here], targets[here], is_masked[here] = protein(number)
            sequence[here] = place
            start = stop
    idx = torch.arange(len(rows))
    return {"tokens": tokens, "sequence": sequence, "targets": targets, "is_masked": is_masked, "idx": idx}


def loss_and_gradients(config, batch):
    stage = config.configure_model()
    torch.manual_seed(9)
    with torch.no_grad():
        for weight in stage.parameters():  # biases and norms start as zeros and ones, which would hide a mistake
            weight += 0.1 * torch.randn_like(weight)
    logits = stage(batch)["logits"]
    assert isinstance(config, MaskedConfig)
    loss = F.cross_entropy(logits[batch["is_masked"]], batch["targets"][batch["is_masked"]], reduction="sum")
    loss.backward()
    return {"loss": loss.detach(), **{name: weight.grad for name, weight in stage.named_parameters()}}


def test_packed_proteins_give_the_loss_and_gradients_of_padded_ones(config):
    padded = loss_and_gradients(config(LONGEST), batch_of([[n] for n in range(len(LENGTHS))], LONGEST))
    packed = loss_and_gradients(config(ROW), batch_of(PACKED, ROW))
    for name, expected in padded.items():
        scale = max(float(expected.abs().max()), 1.0)
        torch.testing.assert_close(packed[name], expected, rtol=0, atol=1e-5 * scale, msg=name)


def test_a_protein_sees_nothing_of_its_neighbours(config):
    stage, batch = config(ROW).configure_model().eval(), batch_of(PACKED, ROW)
    before = stage(batch)["logits"]
    batch["tokens"][0, :48] = batch["tokens"][0, :48].flip(0)
    after = stage(batch)["logits"]
    assert torch.equal(before[0, 48:], after[0, 48:])
    assert not torch.equal(before[0, :48], after[0, :48])


def test_the_borders_for_a_gpu_are_those_of_the_mask(config):
    """Flash attention is told where each protein begins; here that is compared with the mask that a CPU uses."""
    batch = batch_of(PACKED, ROW)
    rows = Rows(batch["sequence"], config(ROW))
    borders, longest = rows._borders()
    assert borders.dtype == torch.int32
    lengths = borders.diff()
    assert (longest, int(lengths.max()), int(lengths.sum())) == (LONGEST, LONGEST, len(PACKED) * ROW)
    segment = torch.repeat_interleave(torch.arange(len(lengths)), lengths).view(len(PACKED), ROW)
    same = segment[:, :, None] == segment[:, None, :]
    is_token = batch["sequence"] > 0
    both = is_token[:, :, None] & is_token[:, None, :]
    assert torch.equal(same & both, rows.mask() & both)
    assert not (same & (is_token[:, :, None] ^ is_token[:, None, :])).any()


def test_positions_begin_anew_with_each_protein(config):
    batch = batch_of(PACKED, ROW)
    packed, alone = (
        Rows(given["sequence"], config(row)).angles().cos for given, row in ((batch, ROW), (batch_of([[4]], 48), 48))
    )
    for row, numbers in enumerate(PACKED):
        start = 0
        for number in numbers:
            length = LENGTHS[number]
            assert torch.equal(packed[start : start + length, row], alone[:length, 0])
            start += length


def test_a_row_holds_no_more_proteins_than_attention_is_laid_out_for(config):
    rows = Rows(batch_of(PACKED, ROW)["sequence"], config(ROW))
    assert rows.most == most_proteins(ROW) >= max(map(len, PACKED))
    assert Rows(torch.ones(1, LONGEST, dtype=torch.int64), config(LONGEST)).most == 1
