"""What a digit is: keys, shapes, dtypes. No torch at run time: settings and figures read these constants without it."""

from typing import TYPE_CHECKING, Annotated

from ..contracts.item import Item, Key

if TYPE_CHECKING:
    from torch import Tensor

IMAGE_SIDE = 28
"""Height and width of an image, in pixels. The network reads an image row by row."""

NUM_CLASSES = 10
"""Labels run from 0 to NUM_CLASSES - 1."""


class MnistItem(Item):
    """One digit: `data`, `label`, and `idx`, which every item has."""

    data: Annotated["Tensor", Key("float32", (1, IMAGE_SIDE, IMAGE_SIDE), about="0 (paper) to 1 (ink): grey / 255")]
    """Channels, rows, pixels of a row; the scale of torchvision's ToTensor."""

    label: Annotated["Tensor", Key("int64", below=NUM_CLASSES)]
    """The digit that it shows."""
