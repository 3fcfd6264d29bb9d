"""The curves of a report: which axes they get, and that nothing that is not finite is drawn or kept silent."""

import numpy as np
import pytest
from matplotlib.ticker import PercentFormatter
from written_runs import legend_of

from {{cookiecutter.__package_name}}.contracts import names
from {{cookiecutter.__package_name}}.drawing.theme import LIGHT
from {{cookiecutter.__package_name}}.results.curves import _smooth, loss_curves, metric_curves, speed


def test_what_is_not_finite_is_left_out_and_said_in_the_legend() -> None:
    steps = np.arange(3.0)
    curves = {
        names.TRAIN_LOSS: (steps, np.array([1, np.nan, np.inf])),
        names.VAL_LOSS: (steps, steps * np.nan),
        names.LEARNING_RATE: (steps, steps * np.nan),
    }
    (axes,) = loss_curves(LIGHT, curves, {}).axes  # no panel for a rate of which nothing can be drawn
    assert [line.get_xydata().tolist() for line in axes.lines] == [[[0, 1]], []]
    assert legend_of(axes) == ["training (not finite at 2 of 3 points)", "validation (not finite at 3 of 3 points)"]


def test_a_long_training_curve_gets_a_smoothed_line() -> None:
    steps = np.arange(100.0)
    (axes,) = loss_curves(LIGHT, {names.TRAIN_LOSS: (steps, steps + 50)}, {}).axes
    assert legend_of(axes) == ["training", "training, mean of 5 points"]


def test_smoothing_is_centred_and_keeps_a_straight_line() -> None:
    line = np.arange(20.0)
    np.testing.assert_allclose(_smooth(line, 3)[3:-3], line[3:-3])
    np.testing.assert_allclose(_smooth(line, 3)[[0, -1]], [1.5, 17.5])


def test_the_loss_gets_a_log_axis_beyond_one_decade() -> None:
    steps = np.arange(10.0)
    for values, scale in ((steps + 2, "linear"), (steps + 0.5, "log"), (steps, "linear")):
        figure = loss_curves(LIGHT, {names.TRAIN_LOSS: (steps, values)}, {})
        assert figure.axes[0].get_yscale() == scale
        assert ("log scale" in figure.axes[0].get_ylabel()) == (scale == "log")


def test_every_slim_panel_has_three_ticks_and_says_if_it_is_log() -> None:
    steps = np.arange(4.0)
    curves = dict.fromkeys((names.TRAIN_LOSS, names.LEARNING_RATE, names.GRAD_NORM), (steps, 10.0**-steps))
    _, rate, norm = loss_curves(LIGHT, curves, {}).axes
    assert [text.get_text() for text in rate.get_yticklabels()] == ["0", "0.5", "1"]
    assert [text.get_text() for text in norm.get_yticklabels()] == ["0.001", "0.032", "1"]
    assert (rate.get_ylabel(), norm.get_ylabel()) == ("learning\nrate", "gradient\nnorm (log)")


@pytest.mark.parametrize("is_share", [True, False])
def test_only_a_share_is_in_percent(is_share: bool) -> None:
    steps = np.arange(9.0)
    (axes,) = metric_curves(LIGHT, {"val_a_figure": (steps, steps / 10)}, "a_figure", is_share, {}).axes
    assert axes.get_title() == "A figure"
    assert isinstance(axes.yaxis.get_major_formatter(), PercentFormatter) == is_share


def test_a_share_is_shown_from_where_its_steep_rise_ends() -> None:
    steps = np.arange(100.0)
    shapes = {"steep": 1 - 0.9 * np.exp(-steps / 5), "slow": 0.1 + steps / 200, "perfect": np.ones(100)}
    limits = {}
    for name, values in shapes.items():
        (axes,) = metric_curves(LIGHT, {"train_hits": (steps, values)}, "hits", True, {}).axes
        limits[name] = axes.get_ylim()
        assert limits[name][0] < values[25:].min() and values.max() <= limits[name][1] <= 1
    assert limits["steep"][0] > 0.9 and limits["slow"][0] < 0.1


def test_what_other_methods_reach_is_drawn_as_level_lines_with_their_names() -> None:
    steps = np.arange(9.0)
    references = {"a guess": 2.9034, "unknown": np.nan, "a better guess": 9.0}
    (axes,) = loss_curves(LIGHT, {names.VAL_LOSS: (steps, steps / 9)}, references).axes
    assert legend_of(axes) == ["validation", "a guess, 2.903", "a better guess, 9"]
    _, *levels = axes.lines
    assert [line.get_ydata() for line in levels] == [[2.9034, 2.9034], [9, 9]]
    assert len({line.get_linestyle() for line in axes.lines}) == 3
    (axes,) = metric_curves(LIGHT, {"val_hits": (steps, steps / 90)}, "hits", True, {"a guess": 0.5}).axes
    assert legend_of(axes) == ["validation", "a guess, 50.0%"]


def test_a_level_line_above_or_below_all_values_is_in_sight() -> None:
    steps = np.arange(100.0)
    for level in (0.05, 0.95):
        curves = {"train_hits": (steps, 0.5 + steps / 1000)}
        (axes,) = metric_curves(LIGHT, curves, "hits", True, {"a guess": level}).axes
        low, high = axes.get_ylim()
        assert low < level < high


def test_speed_is_told_in_medians_and_memory_at_its_most() -> None:
    def curve(*values: float) -> tuple[np.ndarray, np.ndarray]:
        return np.arange(len(values), dtype=float), np.array(values)

    curves = {
        names.TRAIN_LOSS: curve(1, 2),
        names.ITEMS_PER_SECOND: curve(1, 30, 2),
        "words_per_second": curve(1000, 30000, 2000),
        names.MFU: curve(0.1, 0.9, 0.2),
        names.MEMORY: curve(1, 3, 2),
    }
    assert list(speed(curves)) == [
        ("words per second", "2,000.0", "median of 3 measurements\nitems per second: 2.0"),
        ("MFU", "20.0%", "of what the devices could compute; median"),
        ("memory", "3 GiB", "the most that the first process held"),
    ]
    assert list(speed({names.TRAIN_LOSS: curve(1, 2)})) == []
