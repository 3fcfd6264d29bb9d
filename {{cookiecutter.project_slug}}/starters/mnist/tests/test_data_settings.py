"""What can be set about the digits: what does not fit is one line before a run begins."""

import pytest
from conftest import change

from {{cookiecutter.__package_name}}.contracts.errors import UserError
from {{cookiecutter.__package_name}}.model.dataset import EmbeddedMNIST
from {{cookiecutter.__package_name}}.model.settings import Settings
from {{cookiecutter.__package_name}}.training.run_settings import check_same_run

CPU = ("--accelerator", "cpu")


def test_a_label_that_is_no_class_is_refused_before_a_run_begins(refused, run_dir, monkeypatch):
    original = EmbeddedMNIST.__init__

    def shifted(self, train):
        original(self, train)
        self.targets = self.targets + 10

    monkeypatch.setattr(EmbeddedMNIST, "__init__", shifted)
    assert "item 0 has label 15; model/item.py says 0 to 9" in refused("pretrain", *CPU, *run_dir)


def test_where_the_digits_lie_may_change_on_a_resume_and_which_they_are_may_not():
    saved = change(Settings(), data={"dataset": "full", "root": "here", "download": True})
    check_same_run(change(saved, data={"root": "there", "download": False}), saved)
    with pytest.raises(UserError, match=r"--data\.validation_size 1000, not 7"):
        check_same_run(change(saved, data={"validation_size": 7}), saved)
    with pytest.raises(UserError, match=r"--data\.dataset full, not sample"):
        check_same_run(change(saved, data={"dataset": "sample"}), saved)


@pytest.mark.parametrize("size", ["10000", "60000"])
def test_more_validation_items_than_there_are_are_refused(size, refused, run_dir):
    assert "must be from 1 to 9999" in refused("pretrain", *CPU, *run_dir, "--data.validation_size", size)


@pytest.mark.slow
def test_a_folder_that_the_sample_does_not_read_is_refused(refused, run_dir):
    answer = refused("pretrain", *CPU, *run_dir, "--data.root", "there")
    assert "--data.root there holds no sample" in answer
    assert "add --data.dataset full, or --data.root data for the sample" in answer


@pytest.mark.slow
def test_missing_data_is_refused(refused, run_dir, tmp_path):
    words = ["--data.dataset", "full", "--data.root", tmp_path / "nothing"]
    assert "raw is missing: run with --data.download true" in refused("pretrain", *CPU, *run_dir, *words)


@pytest.mark.slow
def test_damaged_data_is_refused(refused, run_dir, monkeypatch):
    monkeypatch.setitem(EmbeddedMNIST.sha256, "train-labels-idx1-ubyte", "0" * 64)
    assert "train-labels-idx1-ubyte.gz is not MNIST's, or damaged" in refused("pretrain", *CPU, *run_dir)
