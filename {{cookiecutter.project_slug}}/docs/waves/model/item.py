"""What a wave is."""

from typing import Annotated

from torch import Tensor

from ..contracts.item import Item, Key


class WaveItem(Item):
    """One noisy wave of three channels."""

    wave: Annotated[Tensor, Key("float32", ("sequence_length", 3), about="volts, about -3 to 3")]
    """Steps, channels."""

    frequency: Annotated[Tensor, Key("int64", below=8)]
    """k has k + 1 periods."""

    amplitude: Annotated[Tensor, Key("float32")]
    """In volts."""
