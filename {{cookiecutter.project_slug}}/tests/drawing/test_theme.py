"""What a picture is: the same bytes from the same numbers, once for light pages and once for dark ones."""

import io

import numpy as np
import pytest
from matplotlib import rcParams
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.pyplot import imread

from {{cookiecutter.__package_name}}.drawing.theme import (
    DARK,
    DOTS_PER_INCH,
    LIGHT,
    SIZE,
    Picture,
    Theme,
    render,
)


def line(theme: Theme) -> Figure:
    """Draw a line with text, in a colour of the theme."""
    figure = Figure(figsize=SIZE, layout="constrained")
    figure.subplots().plot([1, 2, 4], color=theme.train, label="a line")
    figure.axes[0].legend()
    return figure


@pytest.fixture(scope="module")
def picture() -> Picture:
    return render(line)


def test_equal_numbers_give_equal_bytes(picture: Picture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(rcParams, "font.size", 20)  # a user's own style must not matter
    assert render(line) == picture
    for png in (picture.light, picture.dark):
        assert b"Software" not in png and b"tEXt" not in png


def test_pictures_are_opaque_and_in_the_colours_of_their_page(picture: Picture) -> None:
    for png, theme in ((picture.light, LIGHT), (picture.dark, DARK)):
        corner = imread(io.BytesIO(png))[0, 0]
        assert to_hex(corner, keep_alpha=True) == theme.paper + "ff"


def test_pictures_are_as_large_as_they_say(picture: Picture) -> None:
    for png in (picture.light, picture.dark):
        assert np.abs(np.divide(imread(io.BytesIO(png)).shape[1::-1], DOTS_PER_INCH) - SIZE).max() < 0.01


def test_drawing_leaves_no_trace_in_matplotlib() -> None:
    before = dict(rcParams)
    render(line)
    assert dict(rcParams) == before
