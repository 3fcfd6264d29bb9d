"""CSV and TSV files: proteins and labels by the names of columns, and what is wrong with them in one line."""

import csv
import gzip

import numpy as np
import pytest
from conftest import change

from {{cookiecutter.__package_name}}.contracts.item import DataError
from {{cookiecutter.__package_name}}.model.dataset import read_proteins
from {{cookiecutter.__package_name}}.model.item import TOKENS
from {{cookiecutter.__package_name}}.model.settings import Settings

LABELS = {"sequence_classifier": "int64", "sequence_regressor": "float32"}
LABELS |= {"residue_classifier": "int64", "residue_regressor": "float32"}


@pytest.fixture
def read(tmp_path):
    """Return the proteins of a table with this content."""

    def read_file(content, network="masked", classes=("a", "b"), name="table.csv", **data):
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        settings = change(Settings(), network=network, data=data, model={"classes": list(classes)})
        return read_proteins(str(tmp_path / name), settings)

    return read_file


def rows(proteins):
    return [
        (proteins.name(n), "".join(TOKENS[token] for token in proteins.get("tokens", n))) for n in range(len(proteins))
    ]


def labels(proteins, network):
    return [proteins.get("label", n).view(LABELS[network]).tolist() for n in range(len(proteins))]


def counted(proteins):
    return [proteins.get("is_labelled", n).tolist() for n in range(len(proteins))]


@pytest.mark.parametrize(
    ("content", "name"),
    [
        ("name,sequence\nx,ACD\ny,EF\n", "table.csv"),
        ("name,sequence\r\nx,ACD\r\ny,EF", "table.csv"),
        ("\ufeffname,sequence\n\nx,acd*\n\ny,E F\n", "table.csv"),
        ('"sequence","other","name"\n"ACD","a, ""b""\nc","x"\nEF,,y\n', "table.csv"),
        ("name\tsequence\nx\tACD\ny\tEF\n", "table.tsv"),
        (gzip.compress(b"name,sequence\nx,ACD\ny,EF\n", mtime=0), "table.csv.gz"),
        (gzip.compress(b"name\tsequence\nx\tACD\ny\tEF\n", mtime=0), "table.TSV.GZ"),
    ],
    ids=["plain", "CRLF", "BOM", "quoted", "tsv", "csv.gz", "tsv.gz"],
)
def test_proteins_are_the_same_however_the_table_is_written(read, content, name):
    assert rows(read(content, name=name)) == [("x", "ACD"), ("y", "EF")]


def test_columns_are_chosen_by_name(read):
    found = read("id,seq,sequence\nx,ACD,EF\n", sequence_column="seq", name_column="id")
    assert rows(found) == [("x", "ACD")]


def test_proteins_without_a_name_are_called_by_their_number(read):
    assert rows(read("sequence\nACD\nEF\n")) == [("1", "ACD"), ("2", "EF")]
    assert rows(read("sequence,name\nACD,x\nEF,\n")) == [("x", "ACD"), ("2", "EF")]


def test_a_field_may_be_longer_than_the_csv_module_takes_by_itself(read):
    csv.field_size_limit(100)
    assert len(read(f"sequence\n{'A' * 101}\n").get("tokens", 0)) == 101


# Labels


@pytest.mark.parametrize(
    ("network", "written", "expected"),
    [
        ("sequence_classifier", ["b", " a "], [[1], [0]]),
        ("sequence_regressor", ["-1.5", "2e3"], [[-1.5], [2000]]),
        ("residue_classifier", ["abb", "ba"], [[0, 1, 1], [1, 0]]),
        ("residue_classifier", ["a b b", '"b, a"'], [[0, 1, 1], [1, 0]]),
        ("residue_regressor", ["0.5 1 -2", '"1,.25"'], [[0.5, 1, -2], [1, 0.25]]),
    ],
)
def test_labels_are_what_is_written(read, network, written, expected):
    found = read(f"sequence,label\nACD,{written[0]}\nEF,{written[1]}\n", network)
    assert labels(found, network) == expected
    if network.startswith("residue"):
        assert counted(found) == [[1, 1, 1], [1, 1]]


def test_names_of_classes_may_have_blanks_and_several_characters(read):
    found = read("sequence,label\nACD,cell wall\n", "sequence_classifier", classes=["nucleus", "cell wall"])
    assert labels(found, "sequence_classifier") == [[1]]
    found = read("sequence,label\nACD,helix coil helix\nA,coil\n", "residue_classifier", classes=["coil", "helix"])
    assert labels(found, "residue_classifier") == [[1, 0, 1], [0]]


@pytest.mark.parametrize("mask", ["011", "0 1 1", '"0,1,1"'])
@pytest.mark.parametrize(
    ("network", "label", "expected"),
    [("residue_classifier", "?ba", [0, 1, 0]), ("residue_regressor", "nan 1 2", [0, 1, 2])],
)
def test_what_the_mask_leaves_out_may_have_any_label(read, network, label, expected, mask):
    found = read(f"sequence,label,seen\nACD,{label},{mask}\n", network, mask_column="seen")
    assert (labels(found, network), counted(found)) == ([expected], [[0, 1, 1]])


def test_labels_are_read_only_for_networks_that_need_them(read, tmp_path):
    assert set(read("sequence,label\nACD,no class\n").columns) == {"name", "tokens"}
    settings = change(Settings(), network="sequence_classifier")
    found = read_proteins(str(tmp_path / "table.csv"), settings, labelled=False)
    assert set(found.columns) == {"name", "tokens"}


def test_all_classes_of_the_file_are_told_ready_for_the_command_line(read):
    with pytest.raises(DataError, match="line 3: 'c' is none") as error:
        read("sequence,label\nACD,b\nEF,c\nGH,it's\nAC,\n", "sequence_classifier")
    assert str(error.value).endswith("""this file has --model.classes '["b", "c", "it'"'"'s"]'""")
    with pytest.raises(DataError, match="line 2: 'H' is none") as error:
        read("sequence,label\nACD,HHE\nEF,C H\n", "residue_classifier")
    assert str(error.value).endswith("""this file has --model.classes '["C", "E", "H"]'""")


def test_numbers_are_not_taken_for_classes(read):
    table = "sequence,label\n" + "".join(f"A,{n}\n" for n in range(101))
    with pytest.raises(DataError, match="column 'label' has 101 different labels, too many for classes"):
        read(table, "sequence_classifier")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "table.csv holds no proteins"),
        ("\n\n", "table.csv holds no proteins"),
        ("sequence,label\n", "table.csv holds no proteins"),
        ("seq,y\nAC,a\n", "line 1: there is no column 'sequence', but 'seq', 'y': set --data.sequence_column"),
        ("sequence,y\nAC,a\n", "line 1: there is no column 'label', but 'sequence', 'y': set --data.label_column"),
        ("sequence,label\nAC,a\n\nA1,a\n", "line 4: '1' is no residue"),
        ("sequence,label\nAC,a\n ,a\n", "line 3: there are no residues: add them, or remove the protein"),
        ("sequence,label\nAC,a\n*,a\n", "line 3: there are no residues"),
        ("\nsequence;label\nAC;0,5\n", "line 2: its columns are separated by semicolons: save it with commas between"),
        ('"sequence";"label"\n"AC";"a"\n', "line 1: its columns are separated by semicolons: save it with commas"),
        ("sequence\tlabel\nAC\ta\n", "line 1: its columns are separated by tabs: call it .tsv"),
        ("sequence,label,label\nAC,a,b\n", "line 1: there are several columns 'label': rename all but one, or set"),
        ("sequence,label\nAC\n", "line 2: 1 fields for 2 columns"),
        ("sequence,label\nAC,a,b\n", "line 2: 3 fields for 2 columns"),
        ('sequence,label\nAC,"a\nAD,a\n', "line 3: unexpected end of data: check the quotation marks"),
        (b"sequence,label\nAC,\xe9\n", "line 2 is not UTF-8: save the file as that"),
        ("sequence,label\nAC, \n", "line 2: there is no label: write one, or remove the line"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(read, content, told):
    with pytest.raises(DataError) as error:
        read(content, "sequence_classifier")
    assert told in str(error.value) and "\n" not in str(error.value)
    assert "table.csv" in str(error.value)


def test_a_tsv_file_with_commas_and_columns_that_nobody_reads_twice(read):
    with pytest.raises(DataError, match=r"its columns are separated by commas: call it \.csv"):
        read("name,sequence\nx,ACD\n", name="table.tsv")
    assert rows(read("sequence,note,note\nACD,1,2\n")) == [("1", "ACD")]


@pytest.mark.parametrize(
    ("network", "row", "told"),
    [
        ("sequence_regressor", "ACD,fast,", "line 2: the label 'fast' is no number"),
        ("sequence_regressor", "ACD,nan,", "line 2: the label 'nan' is not finite"),
        ("sequence_regressor", "ACD,1e39,", "line 2: the label '1e39' is not finite, or too large for float32"),
        ("residue_regressor", "ACD,1 x 2,111", "line 2: the label 'x' is no number"),
        ("residue_regressor", "ACD,123,111", "line 2: 1 labels for 3 residues: write one for each"),
        ("residue_regressor", "ACD*,1 2 3 4,111", "line 2: 4 labels for 3 residues"),
        ("residue_classifier", "ACD,ab,111", "line 2: 2 labels for 3 residues"),
        ("residue_classifier", "ACD,aba,1 1", "line 2: 2 entries in the mask for 3 residues"),
        ("residue_classifier", "ACD,aba,1111", "line 2: 4 entries in the mask for 3 residues"),
        ("residue_classifier", "ACD,aba,121", "line 2: the mask holds '2': write 1 for a residue with a label"),
    ],
)
def test_labels_that_cannot_be_used_are_told(read, network, row, told):
    with pytest.raises(DataError) as error:
        read(f"sequence,label,seen\n{row}\n", network, mask_column="seen" if "residue" in network else None)
    assert told in str(error.value) and "\n" not in str(error.value)


def test_a_mask_that_is_not_there_is_told(read):
    with pytest.raises(DataError, match=r"no column 'seen', but 'sequence', 'label': set --data\.mask_column"):
        read("sequence,label\nACD,aba\n", "residue_classifier", mask_column="seen")


def test_a_packed_table_that_is_cut_short_is_told(read):
    with pytest.raises(DataError, match=r"table\.csv\.gz is damaged or cut short"):
        read(gzip.compress(b"sequence,label\nACD,b\n")[:-9], "sequence_classifier", name="table.csv.gz")


def test_labels_keep_the_precision_of_float32(read):
    found = read("sequence,label\nACD,0.1\n", "sequence_regressor")
    assert labels(found, "sequence_regressor") == [[np.float32(0.1)]]
