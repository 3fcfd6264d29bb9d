"""How files of a run are read that several rooms read: what was written, or one line. Standard library only.

A last line without its end was being written when the process was killed or the disk was full, or lost its end in a
copy: it counts as not there in the table of figures, and is an error where a file is written whole.
"""

from __future__ import annotations

import csv
import json
import math
import shlex
from pathlib import Path
from typing import Any

from .errors import UserError
from .names import CHANGED, COUNTED, COUNTS, REFERENCES, STEP

NO_NUMBERS = (COUNTS, COUNTED, CHANGED, REFERENCES)
"""Names in evaluation.json that are no figures."""


def read_metrics(path: Path) -> tuple[tuple[str, ...], list[dict[str, str]]]:
    """Read the table of a run's figures, metrics.csv: its columns, and its rows as they were written.

    Returns:
        Each row has a step, and numbers or nothing in the other columns. No columns if there is no table: no file, or
        one without a whole first line.

    Raises:
        UserError: a whole line cannot be read.
    """
    try:
        content = path.read_bytes().rpartition(b"\n")[0]
    except FileNotFoundError:
        content = b""
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    columns: tuple[str, ...] = ()
    rows: list[dict[str, str]] = []
    for number, line in enumerate(content.split(b"\n"), start=1):
        try:
            if cells := next(csv.reader([line.decode("utf-8").strip()]), None):
                if columns:
                    rows.append(_row(columns, cells))
                else:
                    columns = _header(cells)
        except (ValueError, csv.Error) as error:
            reason = "it is no UTF-8 text" if isinstance(error, UnicodeDecodeError) else error
            where = f"{path}, line {number}, cannot be read"
            raise UserError(f"{where} ({reason}): mend that line, or remove it") from error
    return columns, rows


def _header(cells: list[str]) -> tuple[str, ...]:
    """Return the names of the columns; ValueError if they are none."""
    if STEP not in cells:
        raise ValueError(f"it names no column {STEP}")
    return tuple(cells)


def _row(columns: tuple[str, ...], cells: list[str]) -> dict[str, str]:
    """Return cells by column; ValueError if there are more or fewer, or what is no number."""
    if len(cells) != len(columns):
        raise ValueError(f"it has {len(cells)} cells, not {len(columns)}")
    row = dict(zip(columns, cells, strict=True))
    int(row[STEP])
    for cell in filter(None, cells):
        float(cell)
    return row


def read_evaluation(path: Path) -> dict[str, Any]:
    """Read evaluation.json, its figures as numbers; what is by name in it may be missing.

    Raises:
        UserError: it is not what `evaluate` writes.
    """
    try:
        evaluation = mapping(json.loads(path.read_text(encoding="utf-8")))
        references = mapping(evaluation.get(REFERENCES, {}))
        return {
            **evaluation,
            **_numbers({name: value for name, value in evaluation.items() if name not in NO_NUMBERS}),
            COUNTS: _numbers(evaluation.get(COUNTS, {})),
            CHANGED: mapping(evaluation.get(CHANGED, {})),
            REFERENCES: {name: _numbers(reached) for name, reached in references.items()},
        }
    except (OSError, TypeError, ValueError) as error:
        reason, again = " ".join(str(error).split()), f"evaluate --from {shlex.quote(str(path.parent))}"
        raise UserError(f"{path} cannot be used ({reason}): write it again with `{again}`") from error


def in_flags(changed: dict[str, Any]) -> str:
    """Return settings by their dotted names as a command line has them."""
    return shlex.join(word for name, value in changed.items() for word in (f"--{name}", in_yaml(value)))


def in_yaml(value: Any) -> str:
    """Return a value as a flag takes it: text as it is, all else as YAML, of which JSON is a part."""
    return value if isinstance(value, str) else json.dumps(value)


def _numbers(values: Any) -> dict[str, float]:
    return {name: math.nan if value is None else float(value) for name, value in mapping(values).items()}


def first_comment(text: str) -> str:
    """Return what the first line of a YAML file says in a comment, nothing if it is none."""
    first = text.partition("\n")[0]
    return first.removeprefix("# ") if first.startswith("# ") else ""


def mapping(values: Any) -> dict[str, Any]:
    """Return values by name; ValueError if they are something else."""
    if not isinstance(values, dict):
        raise ValueError("it is not a mapping of names to values")
    return values


def read_whole(path: Path) -> str:
    """Return the text of a file that ends with a whole line; ValueError if it does not."""
    text = path.read_text(encoding="utf-8")
    if text and not text.endswith("\n"):
        raise ValueError("its last line has no end: a part of the file may be missing")
    return text
