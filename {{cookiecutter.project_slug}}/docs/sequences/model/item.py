"""What a protein is to each network: letters of a set length, and which of them are what."""

from typing import Annotated

from torch import Tensor

from ..contracts.item import Item, Key

TOKENS = "ACDEFGHIKLMNPQRSTVWY?-"
"""The twenty letters, a mask, and what fills a shorter protein up."""
MASK, PAD = TOKENS.index("?"), TOKENS.index("-")
FAMILIES = 8
"""Families are numbered from 0 to FAMILIES - 1."""


class MaskedItem(Item):
    """One protein as the network sees it, and as it is. Cut or padded to `sequence_length`."""

    tokens: Annotated[Tensor, Key("int64", ("sequence_length",), below=len(TOKENS))]
    """With masks."""
    letters: Annotated[Tensor, Key("int64", ("sequence_length",), below=len(TOKENS))]
    """Without: what is to be guessed."""
    is_letter: Annotated[Tensor, Key("bool", ("sequence_length",))]
    """Not padding: may be attended to."""
    is_masked: Annotated[Tensor, Key("bool", ("sequence_length",))]
    """Counts in the loss."""


class FamilyItem(Item):
    """One protein without masks, and its label."""

    letters: Annotated[Tensor, Key("int64", ("sequence_length",), below=len(TOKENS))]
    is_letter: Annotated[Tensor, Key("bool", ("sequence_length",))]
    family: Annotated[Tensor, Key("int64", below=FAMILIES)]
