"""FASTA files: what is read of them, however they are written, and what is wrong with them in one line."""

import gzip

import pytest

from {{cookiecutter.__package_name}}.contracts.item import DataError
from {{cookiecutter.__package_name}}.model.dataset import read_proteins
from {{cookiecutter.__package_name}}.model.item import TOKENS
from {{cookiecutter.__package_name}}.model.settings import FINETUNE, Settings

SETTINGS = Settings()
WHOLE = gzip.compress(b">a\n" + b"ACDEFGHIKL\n" * 2_000, mtime=0)
FLIPPED = WHOLE[:30] + bytes([WHOLE[30] ^ 0xFF]) + WHOLE[31:]


@pytest.fixture
def read(tmp_path):
    """Return the (name, residues) of a file with this content."""

    def read_file(content, name="proteins.fasta", settings=SETTINGS):
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        proteins = read_proteins(str(tmp_path / name), settings)
        return [(proteins.name(n), text(proteins.get("tokens", n))) for n in range(len(proteins))]

    return read_file


def text(tokens):
    return "".join(TOKENS[token] for token in tokens)


@pytest.mark.parametrize(
    "content",
    [
        ">a\nACDE\n>b\nFG\n",
        ">a\nACDE\n>b\nFG",
        ">a what it does\nACDE\n>b\tof whom\nFG\n",
        ">a\nAC\nD\nE\n>b\nF\nG\n",
        ">a\nacde\n>b\nfG\n",
        ">a\nACDE*\n>b\nFG\n*\n",
        "\n\n>a\n\nAC\n\nDE\n\n>b\nFG\n\n",
        ">a\r\nAC\r\nDE\r\n>b\r\nFG\r\n",
        ">a\nAC DE\n>b\n\tF G \n",
        "\ufeff>a\nACDE\n>b\nFG\n",
    ],
    ids=["plain", "no last newline", "words", "wrapped", "lower", "stop", "blank lines", "CRLF", "blanks", "BOM"],
)
def test_proteins_are_the_same_however_the_file_is_written(read, content):
    assert read(content) == [("a", "ACDE"), ("b", "FG")]


def test_packed_files_are_read(read):
    assert read(gzip.compress(b">a\nACDE\n"), "proteins.fa.gz") == [("a", "ACDE")]


def test_every_letter_has_a_token_but_j(read):
    assert read(">a\nABCDEFGHIKLMNOPQRSTUVWXYZ-.\n") == [("a", "ABCDEFGHIKLMNOPQRSTUVWXYZ-.")]
    assert read(">a\nAjJ\n") == [("a", "A<unk><unk>")]


def test_a_protein_without_a_name_is_called_by_its_number(read):
    assert [name for name, _ in read(">a\nA\n>\nC\n> \nD\n")] == ["a", "2", "3"]


def test_a_greater_than_sign_inside_a_name_begins_no_protein(read):
    assert read(">a>b\nAC\n") == [("a>b", "AC")]


def test_blocks_that_are_read_at_once_may_end_anywhere(read, monkeypatch):
    content, expected = ">a b\nAC\nDE\n>c\n\nFG*\r\n>d\nHI", [("a", "ACDE"), ("c", "FG"), ("d", "HI")]
    for size in range(2, len(content) + 1):
        monkeypatch.setattr("{{cookiecutter.__package_name}}.model.reading.fasta._BLOCK", size)
        assert read(content, f"{size}.fasta") == expected


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "proteins.fasta holds no proteins: each begins with a line `>name`"),
        (" \n\n", "proteins.fasta holds no proteins"),
        ("  >a\nAC\n>b\nAC\n", "line 1: a FASTA file begins with `>name`, and not with ' >a'"),
        ("\nACDE\n>a\nAC\n", "line 2: a FASTA file begins with `>name`, and not with 'ACDE'"),
        ("name,sequence\na,AC\n", "line 1: a FASTA file begins with `>name`, and not with 'name,sequence': call a tab"),
        (gzip.compress(b">a\nAC\n", mtime=0), "line 1: a FASTA file begins with `>name`"),
        (">a\nAC\n\nDE1F\n>b\nAC", "line 4: '1' is no residue: write letters, '-' and '.'"),
        (">a\nAC\n>b\r\nA\r\nA*C\r\n", "line 5: '*' is no residue"),
        (">a\nA C D\nA1\n", "line 3: '1' is no residue"),
        (">a\nAC\n; a comment\n", "line 3: ';' is no residue"),
        (">a\nAC\u00e9\n", "line 2: '\u00e9' is no residue"),
        (b">a\nAC\xe9\n", "line 2: '\ufffd' is no residue"),
        (">a\nAC\n>b c\n>d\nAC\n", "line 3, protein 'b': there are no residues: add them, or remove the protein"),
        (">a\nAC\n\n>b\n*\n", "line 4, protein 'b': there are no residues"),
        (">a", "line 1, protein 'a': there are no residues"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(read, content, told):
    with pytest.raises(DataError) as error:
        read(content)
    assert told in str(error.value) and "\n" not in str(error.value)
    assert "proteins.fasta" in str(error.value)


@pytest.mark.parametrize("content", [WHOLE[:-9], WHOLE[:40], FLIPPED, b">a\nAC\n"], ids=["end", "cut", "flip", "plain"])
def test_a_damaged_packed_file_is_told(read, content, tmp_path):
    with pytest.raises(DataError, match=r"proteins\.fasta\.gz is damaged or cut short \(.+\): copy it again") as error:
        read(content, "proteins.fasta.gz")
    assert "\n" not in str(error.value)
    assert not list(tmp_path.glob("*.index/*"))


def test_labels_are_not_looked_for_in_a_fasta_file(read):
    with pytest.raises(DataError, match=r"has no labels, which sequence_classifier needs: give a table, called \.csv"):
        read(">a\nAC\n", settings=FINETUNE)
