"""What `model/figures.py` gives the report and is no picture: one line says which, and why."""

from functools import partial
from typing import Any

import pytest
from matplotlib.figure import Figure

from {{cookiecutter.__package_name}}.contracts.errors import UserError
from {{cookiecutter.__package_name}}.drawing.theme import LIGHT, Drawing, Theme
from {{cookiecutter.__package_name}}.results.drawings import check_shares, drawings, figure


def draw(theme: Theme, size: float = 1.0) -> Figure:
    return Figure(figsize=(size, size))


def test_drawings_go_through_as_they_are_and_one_after_another() -> None:
    given = [Drawing("a curve", "", draw), Drawing("cloud-2", "Points.", partial(draw, size=2.0))]
    assert list(drawings(iter(given), ["loss"])) == given
    assert figure(given[1], LIGHT).get_size_inches().tolist() == [2.0, 2.0]
    assert list(drawings((), ["loss"])) == []


A: Any = Drawing("a", "", draw)
WRONG: dict[str, tuple[Any, str]] = {
    "nothing": (None, "pictures gives NoneType: yield a Drawing for each picture"),
    "one drawing": (A, "pictures gives Drawing: yield a Drawing for each picture"),
    "figures": ([A, Figure()], "pictures gives Figure, not a Drawing"),
    "pairs": ([("a", draw)], "pictures gives tuple, not a Drawing"),
    "a name twice": ([A, A], "pictures gives a Drawing the name a, which another picture of the report has"),
    "the name of a curve": ([Drawing("loss", "", draw)], "the name loss, which another picture"),
    "a folder": ([Drawing("a/b", "", draw)], "pictures gives a Drawing the name 'a/b': use letters, numbers, spaces"),
    "an empty name": ([Drawing("", "", draw)], "pictures gives a Drawing the name '': use"),
    "no name": ([Drawing(None, "", draw)], "pictures gives a Drawing the name None: use"),  # type: ignore[arg-type]
    "no caption": ([Drawing("cloud", None, draw)], "pictures gives cloud a caption of NoneType"),  # type: ignore[arg-type]
    "no theme": ([Drawing("a", "", lambda: Figure())], "that cannot be called with a Theme alone"),  # type: ignore[misc, arg-type]
    "more than a theme": ([Drawing("a", "", lambda theme, size: Figure())], "a Theme alone"),  # type: ignore[misc, arg-type]
    "a figure": ([Drawing("a", "", Figure())], "that cannot be called with a Theme alone"),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_no_drawing_is_one_line(case: str) -> None:
    given, answer = WRONG[case]
    with pytest.raises(UserError) as caught:
        list(drawings(given, ["loss"]))
    assert str(caught.value).startswith("model/figures.py: ") and answer in str(caught.value)


@pytest.mark.parametrize("drawn", [None, Figure().subplots()], ids=["nothing", "axes"])
def test_what_is_drawn_is_a_figure(drawn: Any) -> None:
    kind = type(drawn).__name__
    with pytest.raises(UserError, match=rf"^model/figures\.py: what draws a returns {kind}, not a Figure$"):
        figure(Drawing("a", "", lambda theme: drawn), LIGHT)


@pytest.mark.parametrize("shares", ["hits", None, 3, [3]], ids=str)
def test_shares_that_are_no_names_are_one_line(shares: Any) -> None:
    with pytest.raises(UserError, match=r"^model/figures\.py: SHARES is .*, not names of figures"):
        check_shares(shares)


@pytest.mark.parametrize("shares", [(), ("unheard",), ["hits"], {"hits"}], ids=str)
def test_shares_may_be_those_of_other_networks(shares: Any) -> None:
    check_shares(shares)
