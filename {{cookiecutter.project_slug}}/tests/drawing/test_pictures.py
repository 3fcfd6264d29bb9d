"""Pictures that fit many models: what they show of the numbers they are given, and that any numbers can be drawn."""

import matplotlib.style
import numpy as np
import pytest
from matplotlib.colors import to_rgb

from {{cookiecutter.__package_name}}.drawing.pictures import (
    COLOURS,
    MOST_COUNTED,
    MOST_POINTS,
    _push_apart,
    answers,
    confusion,
    latent_space,
    principal_components,
    shortened,
)
from {{cookiecutter.__package_name}}.drawing.theme import LIGHT


def test_principal_components_find_the_plane_and_its_shares() -> None:
    random = np.random.default_rng(0)
    plane = random.normal(size=(500, 2)) * (3, 1)
    turn = np.linalg.qr(random.normal(size=(8, 8)))[0][:2]
    points, explained = principal_components(plane @ turn + 5)
    np.testing.assert_allclose(explained, np.array([9, 1]) / 10, atol=0.02)
    np.testing.assert_allclose(explained.sum(), 1)
    np.testing.assert_allclose(np.linalg.norm(points, axis=1), np.linalg.norm(plane - plane.mean(0), axis=1))


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (4, 1), (4, 2)], ids=str)
def test_any_vectors_can_be_drawn(shape: tuple[int, int]) -> None:
    for latent in (np.zeros(shape), np.arange(float(np.prod(shape))).reshape(shape)):
        assert latent_space(LIGHT, latent, np.arange(len(latent))).axes
        points, explained = principal_components(latent)
        assert points.shape == (len(latent), 2) and explained.shape == (2,)
        assert shape[1] > 1 or not points[:, 1].any()


def test_every_label_has_a_badge_and_clouds_stay_light() -> None:
    label = np.arange(MOST_POINTS + 500) % 12
    (axes,) = latent_space(LIGHT, np.random.default_rng(0).normal(size=(len(label), 3)), label).axes
    assert [text.get_text() for text in axes.texts] == [str(number) for number in range(12)]
    assert len(axes.collections[0].get_offsets()) == MOST_POINTS


def test_names_of_labels_are_told_below_the_cloud_those_that_are_there() -> None:
    names = ["north", "a name that is far too long", "south"]
    figure = latent_space(LIGHT, np.eye(4), np.array([2, 1, 1, 2]), names)
    (legend,) = figure.legends
    words = ["1  a name that is far to\N{HORIZONTAL ELLIPSIS}", "2  south"]
    assert [text.get_text() for text in legend.get_texts()] == words
    assert [text.get_text() for text in figure.axes[0].texts] == ["1", "2"]
    assert [line.get_color() for line in legend.get_lines()] == [COLOURS[1], COLOURS[2]]


def test_a_name_is_shortened_only_if_it_is_too_long() -> None:
    assert [shortened("north", most) for most in (4, 5, 6)] == ["nor\N{HORIZONTAL ELLIPSIS}", "north", "north"]


def test_badges_are_pushed_apart() -> None:
    moved = _push_apart(np.array([[0.0, 0.0], [0.0, 0.0], [0.1, 0.0], [5.0, 5.0]]), 1.0)
    gaps = np.linalg.norm(moved[:, None] - moved[None], axis=-1) + 9 * np.eye(4)
    assert gaps.min() > 0.95
    np.testing.assert_allclose(moved[3], [5, 5], atol=1e-4)


def test_colours_of_labels_stay_apart() -> None:
    rgb = np.array([to_rgb(colour) for colour in COLOURS])
    apart = np.linalg.norm(rgb[:, None] - rgb[None], axis=-1) + 9 * np.eye(len(COLOURS))
    assert apart.min() > 0.35


def test_predicted_over_true_has_equal_axes_and_names_its_line() -> None:
    truth, answer = np.array([0.0, 9.0, np.nan]), np.array([1.0, 5.0, -2.0])
    (axes,) = answers(LIGHT, "half_life", answer, truth).axes
    assert axes.get_title() == "Half life of the test items"
    assert axes.get_xlim() == axes.get_ylim()
    assert [line.get_xydata().tolist() for line in axes.lines] == [[[-2, -2], [9, 9]]]
    assert axes.get_aspect() == 1
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["predicted = true"]


@pytest.mark.parametrize("name", ["", "a name too long"])
@pytest.mark.parametrize("labels", [2, 4, 10, MOST_COUNTED])
def test_recall_stands_beside_its_row_and_its_name_beside_the_matrix(labels: int, name: str) -> None:
    with matplotlib.style.context(LIGHT.style()):
        figure = confusion(LIGHT, 1000 * np.eye(labels, dtype=int), [f"{name} {n}" for n in range(labels) if name])
        figure.draw_without_rendering()
    matrix, (recall,) = figure.axes[0], figure.axes[0].child_axes
    assert [text.get_text() for text in recall.get_yticklabels()] == ["100.0%"] * labels
    assert recall.get_yticks().tolist() == list(range(labels))
    name, box = recall.yaxis.label.get_window_extent(), matrix.get_window_extent()
    assert box.x1 < name.x0 and box.y0 < name.y0 and name.y1 < box.y1
    cell = box.width / labels
    assert all(text.get_window_extent().width < cell for text in matrix.texts)


def test_a_row_of_the_confusion_matrix_is_a_true_label_and_recall_its_share() -> None:
    counts = np.array([[1, 1, 0], [0, 0, 0], [0, 1, 3]])  # the second label has no item, and so no recall
    (axes,) = confusion(LIGHT, counts).axes
    assert [text.get_text() for text in axes.texts] == [str(count) for count in counts.ravel()]
    (recall,) = axes.child_axes
    assert recall.get_yticks().tolist() == [0, 2]
    assert [text.get_text() for text in recall.get_yticklabels()] == ["50.0%", "75.0%"]
    np.testing.assert_allclose(axes.get_children()[0].get_array() ** 2, [[0.5, 0.5, 0], [0, 0, 0], [0, 0.25, 0.75]])


def test_labels_have_their_names_on_both_axes() -> None:
    (axes,) = confusion(LIGHT, np.eye(2, dtype=int), ["north", "south"]).axes
    for ticks in (axes.get_xticklabels(), axes.get_yticklabels()):
        assert [text.get_text() for text in ticks] == ["north", "south"]


def test_beyond_the_most_labels_no_number_is_written() -> None:
    (axes,) = confusion(LIGHT, np.eye(MOST_COUNTED + 1, dtype=int)).axes
    assert not axes.texts and not axes.child_axes
