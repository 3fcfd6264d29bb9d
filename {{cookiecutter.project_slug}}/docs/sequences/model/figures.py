"""What the report shows besides the curves: nothing. Which figures are shares, it has to know."""

from collections.abc import Iterator

from ..drawing.theme import Array, Drawing

SHARES = ("accuracy",)


def pictures(outputs: dict[str, Array]) -> Iterator[Drawing]:
    """Draw nothing."""
    return iter(())
