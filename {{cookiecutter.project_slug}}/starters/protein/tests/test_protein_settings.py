"""What cannot be set together is one line."""

import pytest
from conftest import change

from {{cookiecutter.__package_name}}.model.settings import FINETUNE, Settings


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"data": {"pack": 256}, "model": {"attention_dropout": 0.1}}, "attention_dropout 0.1 is not for packed"),
        ({"data": {"pack": 64}}, "--data.pack 64 must be above --model.max_length 128"),
        ({"model": {"freeze": "trunk"}}, "--model.freeze trunk is for finetuning"),
        ({"parallel": {"tensor": 3, "devices": 3}, "model": {"num_attention_heads": 6, "hidden_size": 72}}, "3 does"),
    ],
)
def test_what_does_not_go_together_is_told(changes, words):
    assert words in " ".join(change(Settings(), **changes).problems())


def test_rows_of_many_proteins_are_for_pretraining():
    assert "is for pretraining" in " ".join(change(FINETUNE, data={"pack": 256}).problems())
    assert Settings().problems() == FINETUNE.problems() == []
