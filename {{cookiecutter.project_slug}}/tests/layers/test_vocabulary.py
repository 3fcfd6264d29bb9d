"""The embedding and the scores that are tied to it: what plain torch computes, and a copy that stays one weight."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from {{cookiecutter.__package_name}}.contracts.config import NetworkConfig
from {{cookiecutter.__package_name}}.layers import TiedScores, TiedStage, embedding

ROWS, H = 8, 6
CONFIG = NetworkConfig(num_layers=1, hidden_size=H, num_attention_heads=2)
TOKENS = torch.tensor([[3, 1, 3, 7], [0, 0, 5, 2]])

pytestmark = pytest.mark.usefixtures("megatron")


class Stage(TiedStage):
    """A network of an embedding and scores."""

    def __init__(self, pre_process=True, post_process=True):
        super().__init__(CONFIG, pre_process, post_process, 0)
        self.trunk, self.head = nn.Module(), nn.Module()
        if pre_process:
            self.trunk.embedding = embedding(CONFIG, ROWS)
        if post_process:
            self.head.scores = TiedScores(CONFIG, self.tied, ROWS)

    @property
    def tied(self):
        return self.trunk.embedding.weight if self.pre_process else None


def test_gradients_of_both_ends_add_up_as_in_plain_torch():
    stage = Stage()
    hidden = stage.trunk.embedding(TOKENS).transpose(0, 1)
    scores = stage.head.scores(hidden, stage.tied)
    weight = stage.tied.detach().clone().requires_grad_()
    expected = F.linear(F.embedding(TOKENS, weight), weight).transpose(0, 1)
    torch.testing.assert_close(scores, expected)
    for each in (scores, expected):
        each.square().sum().backward()
    torch.testing.assert_close(stage.tied.grad, weight.grad)
    bias = stage.head.scores.linear.bias
    torch.testing.assert_close(bias.grad, 2 * expected.sum(dim=(0, 1)))


def test_the_last_stage_begins_with_the_same_rows_and_is_saved_under_the_same_name():
    first, last = Stage(post_process=False), Stage(pre_process=False)
    assert torch.equal(first.shared_embedding_or_output_weight(), last.shared_embedding_or_output_weight())
    ends = first.sharded_state_dict()[TiedStage.EMBEDDING_KEY], last.sharded_state_dict()[TiedStage.SCORES_KEY]
    assert ends[0].key == ends[1].key == TiedStage.EMBEDDING_KEY
    assert ends[0].replica_id[0] == 0
    assert ends[1].replica_id[0] == 1  # or both would write it


def test_only_a_copy_is_left_out_of_the_norm_of_the_gradients():
    assert Stage(pre_process=False).shared_embedding_or_output_weight().shared
    assert not hasattr(Stage(post_process=False).shared_embedding_or_output_weight(), "shared")
    assert not hasattr(Stage().shared_embedding_or_output_weight(), "shared")
