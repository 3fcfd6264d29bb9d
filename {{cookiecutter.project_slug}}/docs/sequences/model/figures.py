"""What the report shows besides the curves: nothing. Which figures are shares, it has to know."""

from collections.abc import Iterator
from typing import Any

from ..drawing.theme import Array, Drawing

SHARES = ("accuracy",)


def pictures(outputs: dict[str, Array], settings: dict[str, Any]) -> Iterator[Drawing]:
    """Draw nothing."""
    return iter(())
