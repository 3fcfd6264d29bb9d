"""What the rooms agree on about one piece of data: keys, shapes, dtypes, ranges, and how data fails.

A file of its own because everybody imports it and it imports nobody: no torch at run time, so that the command line
can name a `DataError` without paying for it.
"""

from typing import TYPE_CHECKING, Annotated, TypedDict

from ..errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

IMAGE_SIDE = 28
"""Height and width of an image, in pixels."""

INPUT_SHAPE = (1, IMAGE_SIDE, IMAGE_SIDE)
"""Shape of an item's `data`: channels, rows, pixels of a row."""

INPUT_RANGE = "0 (paper) to 1 (ink): the grey value of a pixel divided by 255"
"""How an item's `data` is scaled, for those who use an exported network."""

SEQUENCE_LENGTH = IMAGE_SIDE
"""Length S of the activations (S, B, H) that pipeline stages exchange: the network reads an image row by row."""

NUM_CLASSES = 10
"""Labels run from 0 to NUM_CLASSES - 1."""

PADDING_IDX = -1
"""The `idx` of an item that only fills up a batch: losses, metrics and predictions pass over every idx below 0."""


class MnistItem(TypedDict):
    """One digit; or a batch of B digits, which is the same dict with a leading dimension B on every tensor.

    Every batch is held against the dtypes and shapes of an item that are written here (`datamodule.checked`).
    """

    data: Annotated["Tensor", "float32", INPUT_SHAPE]
    """From 0 (paper) to 1 (ink), the scale of torchvision's ToTensor."""

    label: Annotated["Tensor", "int64", ()]
    """0 to NUM_CLASSES - 1."""

    idx: Annotated["Tensor", "int64", ()]
    """The item's position in its file, or PADDING_IDX."""


class DataError(UserError):
    """The data cannot be used. The text is one line for a person: which file, what is wrong, how to mend it."""


class SameSizeLossDict(TypedDict):
    """What a loss reduction keeps of one micro batch. The losses of equally large micro batches may be averaged."""

    avg: "Tensor"
    """float32 scalar, the mean loss of the micro batch's real items."""

    totals: "Tensor"
    """float32 [values + 1], the sum of each per-item value over the real items, and last their number."""
