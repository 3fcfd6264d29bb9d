"""Proteins of a FASTA file: `>name ...`, and below it the residues, on as many lines as may be."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import IO

from ...contracts.item import DataError
from .encoding import BLANKS, IllegalResidueError, SequenceError, encode
from .store import Record

_BLOCK = 1 << 24  # bytes that are read at once
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def read_fasta(file: IO[bytes], path: Path) -> Iterator[Record]:
    """Give protein after protein. A name is the first word after `>`, or the protein's number if there is none.

    Args:
        file: the text, unpacked.
        path: for error messages.

    Raises:
        DataError: there are no proteins, one has no residues or an illegal one, or this is no FASTA file.
    """
    pieces = _pieces(file, path)
    line = 1 + next(pieces).count(b"\n")
    for number, piece in enumerate(pieces, 1):
        header, _, body = piece.partition(b"\n")
        name = (header.split(None, 1) or [b"%d" % number])[0]
        try:
            yield Record(name, encode(body))
        except IllegalResidueError as error:
            raise DataError(f"{path}, line {line + _line_in(body, error.position)}: {error}") from None
        except SequenceError as error:
            raise DataError(f"{path}, line {line}, protein {_shown(name)}: {error}") from None
        line += piece.count(b"\n") + 1


def _pieces(file: IO[bytes], path: Path) -> Iterator[bytes]:
    """Give the text between every `>` that begins a line and the next; the first is blank."""
    rest = b"\n" + file.read(_BLOCK).removeprefix(_BYTE_ORDER_MARK)
    _check_beginning(rest, path)
    while block := file.read(_BLOCK):
        *whole, rest = rest.split(b"\n>")
        yield from whole
        rest += block
    yield from rest.split(b"\n>")


def _check_beginning(text: bytes, path: Path) -> None:
    content = text.lstrip()
    line = text[: len(text) - len(content)].count(b"\n")
    if not content:
        raise DataError(f"{path} holds no proteins: each begins with a line `>name`")
    if not (begins := text[: len(text) - len(content)].endswith(b"\n")) or not content.startswith(b">"):
        content = content if begins else b" " + content
        shown = _shown(content.splitlines()[0])
        raise DataError(
            f"{path}, line {line}: a FASTA file begins with `>name`, and not with {shown}: call a table .csv or .tsv"
        )


def _line_in(body: bytes, position: int) -> int:
    """Return on which line below the header, from 1, the residue at a position stands."""
    lines = body.split(b"\n")
    for n, line in enumerate(lines, 1):
        position -= len(line.translate(None, BLANKS))
        if position < 0:
            return n
    return len(lines)


def _shown(text: bytes) -> str:
    return repr(text[:40].decode(errors="replace"))
