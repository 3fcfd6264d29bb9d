"""What a protein is: ESM-2's 33 tokens, in rows of a set length, and what is to be learned of them.

A row holds one protein, padded (`--data.pack 0`), or as many as fit: `sequence` says which of them a position belongs
to, so that attention stays within a protein and positions are counted from its start.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from ..contracts.item import Item, Key

if TYPE_CHECKING:
    from torch import Tensor

TOKENS = (
    *("<cls>", "<pad>", "<eos>", "<unk>"),
    *"LAGVSERTIDPKQNFYMHWCXBUZO.-",
    *("<null_1>", "<mask>"),
)
"""The alphabet, in the order of ESM-2's vocab.txt (Lin et al., 2023)."""

CLS, PAD, EOS, UNK, MASK = map(TOKENS.index, ("<cls>", "<pad>", "<eos>", "<unk>", "<mask>"))
AMINO_ACIDS = "LAGVSERTIDPKQNFYMHWC"
"""The twenty of the genetic code: TOKENS 4 to 23."""
FIRST_AMINO_ACID = TOKENS.index(AMINO_ACIDS[0])

TOKENS_PER_PROTEIN = 128
"""A packed row holds at most one protein for so many of its tokens. Attention is laid out for that number of them, and
each costs time even where there is none: 32 here make a step of 650M parameters 15% slower. Lower it for peptides."""


def most_proteins(row: int) -> int:
    """Return how many proteins a packed row of so many tokens may hold."""
    return max(row // TOKENS_PER_PROTEIN, 4)


class ProteinItem(Item):
    """What the network reads. Every protein begins with <cls> and ends with <eos>."""

    tokens: Annotated[Tensor, Key("int64", ("sequence_length",), below=len(TOKENS), about="ESM-2's tokens")]
    sequence: Annotated[Tensor, Key("int64", ("sequence_length",), about="1, 2, ... by protein; 0 where there is none")]
    left_out: Annotated[Tensor, Key("int64")]
    """Residues between both ends that are not there, as the protein is too long; 0 if it is another part of it."""


class MaskedItem(ProteinItem):
    """For pretraining: some of `tokens` are masked, or other ones than they should be."""

    targets: Annotated[Tensor, Key("int64", ("sequence_length",), below=len(TOKENS))]
    """The tokens as they are."""
    is_masked: Annotated[Tensor, Key("bool", ("sequence_length",))]
    """Is to be guessed: counts in the loss."""


class ClassItem(ProteinItem):
    """A protein of a class."""

    label: Annotated[Tensor, Key("int64", below="num_labels")]
    is_labelled: Annotated[Tensor, Key("bool")]
    """Else the class is not known, and `label` is 0: such a protein can be predicted only."""


class ValueItem(ProteinItem):
    """A protein with a measured value."""

    label: Annotated[Tensor, Key("float32")]
    is_labelled: Annotated[Tensor, Key("bool")]
    """Else the value is not known, and `label` is 0: such a protein can be predicted only."""


class ResidueClassItem(ProteinItem):
    """A protein with a class for each residue."""

    label: Annotated[Tensor, Key("int64", ("sequence_length",), below="num_labels")]
    is_labelled: Annotated[Tensor, Key("bool", ("sequence_length",))]
    """Counts in the loss: a residue, and not left out by the mask."""


class ResidueValueItem(ProteinItem):
    """A protein with a measured value for each residue."""

    label: Annotated[Tensor, Key("float32", ("sequence_length",))]
    is_labelled: Annotated[Tensor, Key("bool", ("sequence_length",))]
    """Counts in the loss: a residue, and not left out by the mask."""
