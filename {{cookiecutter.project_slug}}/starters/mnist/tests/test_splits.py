"""Splits: the networks' own sizes fit what `make layouts` tries."""

from {{cookiecutter.__package_name}}.model.settings import LAYOUTS
from {{cookiecutter.__package_name}}.proof.layouts import enumerate_layouts


def test_the_networks_can_be_split_in_every_way_of_up_to_four_processes():
    """But for eight parts of four blocks."""
    left_out = {str(layout) for layout in enumerate_layouts(4, "cpu") if layout.problem(LAYOUTS)}
    assert left_out == {"pipeline 4 x 2 virtual"}
