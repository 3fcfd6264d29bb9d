"""Figures of a whole split, by hand."""

import numpy as np
import pytest

from {{cookiecutter.__package_name}}.model.measures.scores import accuracy, auroc, spearman, told_apart


def one_hot(answers, classes):
    return np.eye(classes)[answers]


def test_accuracy_is_the_share_of_labels_that_are_most_probable():
    assert accuracy(np.array([0, 1, 2, 2]), one_hot([0, 1, 2, 0], 3)) == 0.75


def test_auroc_is_the_share_of_pairs_in_the_right_order_averaged_over_classes():
    probability = np.array([[0.9, 0.1, 0.0], [0.2, 0.5, 0.3], [0.4, 0.2, 0.4], [0.1, 0.6, 0.3]])
    assert auroc(np.array([0, 1, 2, 1]), probability) == 1
    # of pairs of one of the class and one of the others 3 of 3, 3 of 4, and 1 of 3 and a tie
    assert auroc(np.array([0, 2, 1, 1]), probability) == pytest.approx((1 + 3 / 4 + 1.5 / 3) / 3)


def test_classes_that_no_item_has_or_all_have_do_not_count():
    label = np.array([0, 0, 2])
    assert told_apart(label, 4) == [0, 2]
    assert told_apart(np.array([1, 1]), 3) == []
    assert auroc(label, one_hot([0, 0, 2], 4)) == 1
    assert np.isnan(auroc(np.array([1, 1]), one_hot([1, 1], 3)))


def test_spearman_sees_the_order_only():
    label = np.array([1.0, 2.0, 3.0, 10.0])
    assert spearman(label, np.exp(label)) == pytest.approx(1)
    assert spearman(label, -label) == pytest.approx(-1)
    assert np.isnan(spearman(label, np.ones(4))) and np.isnan(spearman(np.ones(4), label))
