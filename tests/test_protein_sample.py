"""The tool that makes the protein starter's sample: what it selects, and that the project expects what it made."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import lzma
import re
import sys
import tarfile
from pathlib import Path

import pytest
from conftest import PROJECT_FOLDER, TEMPLATE, run_ok

TOOL = TEMPLATE / "tools" / "make_protein_sample.py"
STARTER = TEMPLATE / PROJECT_FOLDER / "starters" / "protein" / "model"
ROWS = [
    ("T1", "MKV", "4"),
    ("T2", "A" * 512, "0"),
    ("T3", "A" * 513, "0"),  # too long
    ("V1", "MKL", "7"),
    ("V2", "MKI", "9"),  # in two places
    ("N1", "MKV", "4"),  # as T1
    ("N2", "MKL", "0"),  # as V1, with another label
    ("N3", "MKI", "2"),  # as V2, which is not in the sample
    ("N4", "CCC", "3"),
    ("N5", "CCC", "3"),  # as N4
    ("N6", "CCD", "6"),
    ("N7", "CCE", "2"),
    ("N8", "CCF", "5"),  # not one of the six
]
SPLITS = {"tst": [2, 0, 1], "vld": [3, 4], "trn": list(range(12, 4, -1)), "cv": {}}
SAMPLE = [
    ["name", "sequence", "label", "split"],
    ["T1", "MKV", "nucleus", "test"],
    ["T2", "A" * 512, "cytoplasm", "test"],
    ["V1", "MKL", "secreted", "validation"],
    ["N4", "CCC", "mitochondrion", "train"],
    ["N6", "CCD", "plastid", "train"],
    ["N7", "CCE", "membrane", "train"],
]


@pytest.fixture
def sdist(tmp_path: Path) -> Path:
    """An sdist with these rows."""
    text = io.StringIO()
    csv.writer(text).writerows([("entry", "seq", "scl"), *ROWS])
    path = tmp_path / "p_scldata-2026.2.0.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for name, content in (("scl2205.csv", text.getvalue()), ("splits.json", json.dumps(SPLITS))):
            member = tarfile.TarInfo(f"p_scldata-2026.2.0/scldata/data/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content.encode()))
    return path


def test_the_tool_selects_what_its_text_says_and_makes_it_again_bit_for_bit(sdist: Path, tmp_path: Path):
    made = [tmp_path / name for name in ("one.xz", "again.xz")]
    told = [run_ok(sys.executable, TOOL, sdist, "--output", path, cwd=tmp_path, timeout=1800) for path in made]
    content = lzma.decompress(made[0].read_bytes())
    assert list(csv.reader(io.StringIO(content.decode()))) == SAMPLE
    assert made[0].read_bytes() == made[1].read_bytes()
    assert "6 proteins" in told[0] and hashlib.sha256(content).hexdigest() in told[0]


def test_the_sample_is_the_one_that_the_project_expects():
    expected = re.findall(
        r'^SHA256 = "(\w{64})"$', (STARTER / "reading" / "locations.py").read_text(encoding="utf-8"), re.M
    )
    content = lzma.decompress((STARTER / "sample" / "proteins.csv.xz").read_bytes())
    assert expected == [hashlib.sha256(content).hexdigest()]
