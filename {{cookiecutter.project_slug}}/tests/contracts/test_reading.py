"""How a run's files are read: what was written to its end, or one line."""

import re
from pathlib import Path

import pytest

from {{cookiecutter.__package_name}}.contracts.errors import UserError
from {{cookiecutter.__package_name}}.contracts.names import METRICS_FILE, STEP
from {{cookiecutter.__package_name}}.contracts.reading import read_metrics
from {{cookiecutter.__package_name}}.training.table import CsvLog, check_figures

WHOLE = b"step,loss,mfu\n1,0.25,\n2,nan,0.5\n"


@pytest.fixture
def table(tmp_path: Path) -> Path:
    (tmp_path / METRICS_FILE).write_bytes(WHOLE)
    return tmp_path / METRICS_FILE


def test_rows_are_what_was_written(table: Path) -> None:
    columns, rows = read_metrics(table)
    assert columns == (STEP, "loss", "mfu")
    assert rows == [{STEP: "1", "loss": "0.25", "mfu": ""}, {STEP: "2", "loss": "nan", "mfu": "0.5"}]
    with table.open("ab") as file:
        file.write(b"\n \n")
    table.write_bytes(table.read_bytes().replace(b"\n", b"\r\n"))
    assert read_metrics(table) == (columns, rows)


@pytest.mark.parametrize("cut", range(len(WHOLE) + 1))
def test_wherever_a_table_is_cut_off_its_whole_lines_are_there(cut: int, table: Path) -> None:
    columns, rows = read_metrics(table)
    table.write_bytes(WHOLE[:cut])
    lines = WHOLE[:cut].count(b"\n")
    assert read_metrics(table) == ((columns, rows[: lines - 1]) if lines else ((), []))


def test_there_is_no_table_without_a_file(tmp_path: Path) -> None:
    assert read_metrics(tmp_path / METRICS_FILE) == ((), [])


UNREADABLE = {
    "no utf-8": (b"3,\xff,\n", "line 4, cannot be read (it is no UTF-8 text): mend that line, or remove it"),
    "no number": (b"3,0.5,x\n", "line 4, cannot be read (could not convert string to float: 'x')"),
    "no step": (b",0.5,\n", "line 4, cannot be read (invalid literal for int()"),
    "too few": (b"3,0.5\n", "line 4, cannot be read (it has 2 cells, not 3)"),
    "too many": (b"3,0.5,,1\n", "line 4, cannot be read (it has 4 cells, not 3)"),
    "two in one": (b"3,0.4,0,0.5,1\n", "line 4, cannot be read (it has 5 cells, not 3)"),
    "zeros": (b"\0\0\0\n", "line 4, cannot be read ("),
}


@pytest.mark.parametrize("case", UNREADABLE)
def test_a_line_that_cannot_be_read_is_named_to_every_reader(case: str, table: Path) -> None:
    line, message = UNREADABLE[case]
    table.write_bytes(WHOLE + line)
    readers = (lambda: read_metrics(table), lambda: CsvLog(table, ()).cut(1), lambda: check_figures(table, ("loss",)))
    for read in readers:
        with pytest.raises(UserError, match=re.escape(f"{table}, {message}")) as caught:
            read()
        assert "\n" not in str(caught.value)


def test_a_table_without_steps_and_one_that_is_no_file_are_one_line(table: Path) -> None:
    table.write_text("loss,mfu\n1,2\n")
    with pytest.raises(UserError, match=r"line 1, cannot be read \(it names no column step\)"):
        read_metrics(table)
    table.unlink()
    table.mkdir()
    with pytest.raises(UserError, match=r"metrics\.csv cannot be read: "):
        read_metrics(table)


@pytest.mark.parametrize("left", [b"", b"\n", b"step,lo"])
def test_a_run_that_goes_on_after_a_torn_header_begins_a_new_table(left: bytes, table: Path) -> None:
    table.write_bytes(left)
    check_figures(table, ("loss",))
    log = CsvLog(table, ("loss",))
    log.cut(3)
    log.log_metrics({"loss": 0.5}, 4)
    assert table.read_text() == "step,loss\n4,0.5\n"


def test_a_folder_that_has_vanished_is_not_made_anew(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        CsvLog(tmp_path / "gone" / "metrics.csv", ("loss",)).log_metrics({"loss": 0.5}, 1)
    assert not (tmp_path / "gone").exists()


def test_a_run_that_starts_anew_needs_nothing_of_an_old_table(table: Path) -> None:
    table.write_bytes(b"\xff\n")
    CsvLog(table, ("loss",)).cut(0)
    assert not table.exists()
