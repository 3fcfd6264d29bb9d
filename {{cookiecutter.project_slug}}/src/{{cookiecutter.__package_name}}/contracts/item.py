"""What an item is, and what a dataset answers.

An item is a dict of tensors with the same keys, dtypes and shapes throughout a run; a batch of B items is the same dict
with B in front of every shape. Shapes are fixed because pipeline stages, CUDA graphs and ranks must know them in
advance: a sequence is padded or packed to a set length, and masks, positions and targets are keys like any other. A
label is not required. Every pipeline stage is given the whole batch.

`model/item.py` writes this down as a class, and each batch is held against it: in the network a wrong one is far harder
to understand.

    class ProteinItem(Item):
        tokens: Annotated["Tensor", Key("int64", ("sequence_length",), below=33)]
        is_target: Annotated["Tensor", Key("bool", ("sequence_length",))]

A dataset has `__len__` and `__getitem__(index) -> item`, and for speed `__getitems__(indices) -> batch`, many times
faster than B items stacked afterwards. Every rank asks for itself, and a resumed run asks again: what an item holds
may depend on nothing but its position and, for a random part such as masking, on `index.random()`. Order, validation,
padding and the position for resuming are made around the dataset, and `idx` is added to what it gives.

Items may have names: a method `name(position) -> str`, asked for what is evaluated and predicted. A dataset may have a
`fingerprint() -> str`, which tells it from one with other items, wherever both lie: a resume then notices any change.
Else it notices another number of items, another first one, or another last one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, Protocol, TypedDict, get_type_hints

from .errors import UserError

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

PADDING_IDX = -1
"""The `idx` of an item that only fills up a batch: losses, results and predictions pass over every idx below 0."""


class DataError(UserError):
    """The data cannot be used. The text is one line for a person: which file, what is wrong, how to mend it."""


@dataclass(frozen=True)
class Key:
    """What a key of an item holds."""

    dtype: str
    """name of a torch dtype: float32, int64, bool"""
    shape: tuple[int | str, ...] = ()
    """of one item; a word stands for the setting of that name, in `ModelSettings` or `DataSettings`"""
    below: int | str | None = None
    """whole numbers run from 0 to one less than this"""
    about: str = ""
    """scale or unit, for those who use an exported network"""


class Item(TypedDict):
    """What every item has; a model's own item adds its keys."""

    idx: Annotated[Tensor, Key("int64")]
    """The item's position in its dataset, or PADDING_IDX; added around the dataset."""


class Index(int):
    """A position in a dataset, which also knows what a random part of the item may depend on."""

    seed: int
    epoch: int

    def __new__(cls, position: int, epoch: int = 0, seed: int = 0) -> Index:
        """Make the index of an item in an epoch of a run with a seed; evaluations are epoch 0."""
        index = super().__new__(cls, position)
        index.epoch, index.seed = epoch, seed
        return index

    def random(self) -> np.random.Generator:
        """Return new random numbers, a pure function of (seed, epoch, position): the same on every rank and again."""
        import numpy as np

        return np.random.Generator(np.random.PCG64([self.seed, self.epoch, self]))


class Indices(list[int]):
    """The positions of a batch; `indices.at(n).random()` for the random part of the n-th."""

    def __init__(self, positions: list[int], epochs: list[int], seed: int) -> None:
        """Keep the positions as a plain list, each with its epoch."""
        super().__init__(positions)
        self.epochs, self.seed = epochs, seed

    def at(self, n: int) -> Index:
        """Return the n-th of them."""
        return Index(self[n], self.epochs[n], self.seed)


class Dataset(Protocol):
    """What is asked of a dataset. It may have `__getitems__(Indices)`, `name(position)` and `fingerprint()` too."""

    def __len__(self) -> int:
        """Return the number of items."""

    def __getitem__(self, index: Index, /) -> Any:
        """Return the item at a position, without `idx`: always the same one for the same seed and epoch."""


def keys_of(item: type, sizes: Callable[[str], int | None]) -> dict[str, Key]:
    """Return the keys of an item, words in them replaced by sizes.

    Args:
        item: a subclass of `Item`.
        sizes: gives the value of a setting, None if there is none of that name.

    Raises:
        DataError: a key is not described, or names a setting that there is not.
    """
    try:
        hints = get_type_hints(item, localns={"Tensor": object}, include_extras=True)
    except NameError as error:
        raise DataError(f'model/item.py: {error}; say Annotated["Tensor", Key(dtype, shape)]') from error
    keys = {}
    for name, hint in hints.items():
        key = next((note for note in getattr(hint, "__metadata__", ()) if isinstance(note, Key)), None)
        if key is None:
            raise DataError(f'model/item.py: {item.__name__}.{name} must be Annotated["Tensor", Key(dtype, shape)]')
        words = {word: sizes(word) for word in (*key.shape, key.below) if isinstance(word, str)}
        if unknown := [word for word, value in words.items() if value is None]:
            raise DataError(f"model/item.py: {item.__name__}.{name} names {unknown[0]}, and no setting is called so")
        shape = tuple(words[size] if isinstance(size, str) else size for size in key.shape)
        below = words[key.below] if isinstance(key.below, str) else key.below
        keys[name] = replace(key, shape=shape, below=below)  # type: ignore[arg-type]
    return keys


def keys_for(item: type, settings: Any) -> dict[str, Key]:
    """Return the keys of an item in a run, words in them looked up in its settings; DataError as of `keys_of`."""

    def size(name: str) -> int | None:
        groups = (settings, settings.model, settings.data)
        return next((getattr(group, name) for group in groups if hasattr(group, name)), None)

    return keys_of(item, size)


def checked(batch: Any, keys: dict[str, Key]) -> Any:
    """Return a batch that is what its item promises.

    Raises:
        DataError: a key is missing or too many, a tensor has another dtype or shape, or a number is out of range.
    """
    if batch.keys() != keys.keys():
        raise DataError(f"items have the keys {', '.join(batch)}; model/item.py says {', '.join(keys)}")
    size = len(batch["idx"])
    for name, key in keys.items():
        tensor = batch[name]
        expected, found = f"{key.dtype} {(size, *key.shape)}", type(tensor).__name__
        if hasattr(tensor, "dtype") and hasattr(tensor, "numel"):
            found = f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"
        if found != expected:
            raise DataError(f"{name} of {size} items is {found}; model/item.py says {expected}")
        if key.below is not None and ((outside := (tensor < 0) | (tensor >= key.below)).any()):
            item, value = int(outside.nonzero()[0, 0]), int(tensor[outside][0])
            raise DataError(
                f"item {int(batch['idx'][item])} has {name} {value}; model/item.py says 0 to {int(key.below) - 1}"
            )
    return batch
