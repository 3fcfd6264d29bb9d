"""Residues as text, and as the numbers of TOKENS."""

from __future__ import annotations

import string

from ..item import TOKENS, UNK

BLANKS = b" \t\r\n"
"""What may stand between residues."""

_STOP, _ILLEGAL = 254, 255
_NUMBERS = {
    **dict.fromkeys(string.ascii_uppercase, UNK),  # J: ESM-2 has no token for it
    **{token: number for number, token in enumerate(TOKENS) if len(token) == 1},
    "*": _STOP,
}
_TABLE = bytes(_NUMBERS.get(chr(byte).upper(), _ILLEGAL) if byte < 128 else _ILLEGAL for byte in range(256))
_LEGAL = bytes(range(len(TOKENS)))


class SequenceError(ValueError):
    """A sequence that cannot be used; the text says why, for a person."""


class IllegalResidueError(SequenceError):
    """A character that stands for no residue."""

    def __init__(self, character: str, position: int) -> None:
        """Keep the position among the characters that are not blank, from 0."""
        super().__init__(f"{character!r} is no residue: write letters, '-' and '.', and '*' only at the end")
        self.position = position


def encode(text: bytes) -> bytes:
    """Return the tokens of residues, a byte each, without <cls> and <eos>; blanks and the `*` at the end are left out.

    Raises:
        SequenceError: there are no residues.
        IllegalResidueError: a character is neither a letter nor `-` nor `.`.
    """
    tokens = text.translate(_TABLE, BLANKS).rstrip(bytes([_STOP]))
    if illegal := tokens.translate(None, _LEGAL):
        position = tokens.index(illegal[0])
        raise IllegalResidueError(text.translate(None, BLANKS)[position:].decode(errors="replace")[0], position)
    if not tokens:
        raise SequenceError("there are no residues: add them, or remove the protein")
    return tokens
