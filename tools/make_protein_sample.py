"""Makes the protein starter's sample again, bit for bit, from the sdist of p_scldata 2026.2.0.

    pip download --no-deps --no-binary :all: p_scldata==2026.2.0
    python tools/make_protein_sample.py p_scldata-2026.2.0.tar.gz

Of several proteins with one sequence the first is kept. The test proteins come first in the sdist, then those for
validation: so none of them is trained with, whatever its name or label there.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import json
import lzma
import tarfile
from collections import Counter
from pathlib import Path
from typing import NamedTuple

SAMPLE = "{{cookiecutter.project_slug}}/starters/protein/model/sample/proteins.csv.xz"
LOCATIONS = {
    "0": "cytoplasm",
    "4": "nucleus",
    "7": "secreted",
    "2": "membrane",
    "3": "mitochondrion",
    "6": "plastid",
}
"""The places that are one compartment and have enough proteins, by their number in the sdist."""
SPLITS = {"trn": "train", "vld": "validation", "tst": "test"}
LONGEST = 512  # residues


class Protein(NamedTuple):
    """A row of the sample."""

    name: str
    sequence: str
    label: str
    split: str


def read_sdist(sdist: Path) -> tuple[list[list[str]], dict[str, list[int]]]:
    """Returns the rows (entry, sequence, number of the location), and the positions of the rows in each split."""
    with tarfile.open(sdist) as archive:
        data = archive.getnames()[0].split("/")[0] + "/scldata/data"
        table, splits = (archive.extractfile(f"{data}/{name}") for name in ("scl2205.csv", "splits.json"))
        assert table and splits, f"{sdist} holds no data"
        _, *rows = csv.reader(io.TextIOWrapper(table, "utf-8", newline=""))
        return rows, json.load(splits)


def select(rows: list[list[str]], splits: dict[str, list[int]]) -> list[Protein]:
    """Returns the proteins of the sample, in the order of the sdist."""
    split_of = {position: name for key, name in SPLITS.items() for position in splits[key]}
    first = {sequence: position for position, (_, sequence, _) in reversed(list(enumerate(rows)))}
    return [
        Protein(name, sequence, LOCATIONS[location], split_of[position])
        for position, (name, sequence, location) in enumerate(rows)
        if first[sequence] == position and location in LOCATIONS and len(sequence) <= LONGEST
    ]


def as_csv(proteins: list[Protein]) -> bytes:
    """Returns the bytes of the sample, which its checksum is of."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([Protein._fields, *proteins])
    return text.getvalue().encode()


def main() -> None:
    """Writes the sample, and prints what is in it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sdist", type=Path, help="p_scldata-2026.2.0.tar.gz")
    parser.add_argument("--output", type=Path, default=Path(__file__).parents[1] / SAMPLE, help="default: %(default)s")
    arguments = parser.parse_args()
    proteins = select(*read_sdist(arguments.sdist))
    content = as_csv(proteins)
    # preset 6 looks back 8 MB, further than the sample is long, and needs an eighth of the memory of 9 to unpack
    arguments.output.write_bytes(lzma.compress(content, preset=6 | lzma.PRESET_EXTREME))
    print(f"{arguments.output}: {len(proteins):,} proteins, {arguments.output.stat().st_size:,} bytes")
    print(f"sha256 of the {len(content):,} bytes in it: {hashlib.sha256(content).hexdigest()}")
    for (split, label), count in sorted(Counter((protein.split, protein.label) for protein in proteins).items()):
        print(f"{split:10} {label:13} {count:5,}")


if __name__ == "__main__":
    main()
