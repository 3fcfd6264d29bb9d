"""The waves: items as promised, and a loss that plain torch confirms."""

import torch
import torch.nn.functional as F
from conftest import TINY

from {{cookiecutter.__package_name}}.contracts.item import PADDING_IDX, checked, keys_of
from {{cookiecutter.__package_name}}.contracts.view import Section
from {{cookiecutter.__package_name}}.model.dataset import read_test
from {{cookiecutter.__package_name}}.model.item import WaveItem
from {{cookiecutter.__package_name}}.model.losses import WaveLoss

WAVES = Section(read_test(TINY), 0, 3)


def test_a_batch_is_what_the_item_says_and_its_waves_stacked():
    batch = checked(WAVES.__getitems__([2, 0]), keys_of(WaveItem, {"sequence_length": 64}.get))
    for key, tensor in batch.items():
        assert torch.equal(tensor, torch.stack([WAVES[2][key], WAVES[0][key]]))


def test_the_loss_is_that_of_plain_torch_and_passes_over_padding():
    batch = WAVES.__getitems__([0, 1, 2])
    batch["idx"][2] = PADDING_IDX
    logits, amplitude = torch.randn(3, 8), batch["amplitude"] + torch.tensor([0.5, 0.0, 9.0])
    loss = WaveLoss()
    total, count, kept = loss.forward(batch, {"logits": logits, "amplitude": amplitude})
    assert count == 2
    volts = F.smooth_l1_loss(amplitude[:2], batch["amplitude"][:2])
    torch.testing.assert_close(total / count, F.cross_entropy(logits[:2], batch["frequency"][:2]) + volts)
    torch.testing.assert_close(loss.figures(kept["totals"])["error"], torch.tensor(0.25))
