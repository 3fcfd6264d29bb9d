"""What cannot be set together is one line."""

import re
from pathlib import Path

import pytest
from conftest import change

from {{cookiecutter.__package_name}}.cli import PROG
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


FILE = ("--data.test_file", "FILE")


def test_a_file_to_train_with_needs_one_to_test_with():
    for files, words in (({}, ()), ({"train_file": "a", "test_file": "b"}, ()), ({"train_file": "a"}, FILE)):
        assert change(Settings(), data=files).to_test == words


@pytest.mark.parametrize("page", ["README.md", "docs/proteins.md"])
def test_commands_on_ones_own_data_use_no_folder_of_a_run_on_the_sample(page):
    text = (Path(__file__).resolve().parents[2] / page).read_text(encoding="utf-8")
    lines = re.findall(rf"^{PROG} (?:pretrain|finetune) .*--(?:data|from_hf|training).*$", text, flags=re.MULTILINE)
    assert len(lines) >= 2
    for line in lines:
        assert re.search(r"--run_dir runs/(?!pretrain\b|finetune\b)\S+", line), line


def test_predictions_are_called_by_what_was_asked_for():
    for asked, name in (
        ({}, ""),
        ({"input": "/there/new.fasta.gz"}, "new"),
        ({"input": "new.v2.FASTA.GZ", "embeddings": "sequence"}, "new.v2-sequence"),
        ({"embeddings": "residue", "layer": 0}, "residue-layer0"),
    ):
        assert change(Settings(), **asked).predicted == name


def test_rows_of_many_proteins_are_for_pretraining():
    assert "is for pretraining" in " ".join(change(FINETUNE, data={"pack": 256}).problems())
    assert Settings().problems() == FINETUNE.problems() == []
