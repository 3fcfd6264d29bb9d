"""What a run folder holds that no report can be made of: one line says it and how to mend it; nothing is written."""

from pathlib import Path

import numpy as np
import pytest
from written_runs import write_run

from {{cookiecutter.__package_name}}.contracts import names
from {{cookiecutter.__package_name}}.contracts.errors import UserError
from {{cookiecutter.__package_name}}.results.report import COMMAND, ReportError, make_report

BROKEN = {
    "not a folder": (None, None, "is not a folder: check the path"),
    "no metrics": ("x.txt", b"", "has no metrics.csv: is it a run folder?"),
    "empty metrics": ("metrics.csv", b"", r"metrics.csv cannot be used \(no step is logged in it\)"),
    "header only": ("metrics.csv", b"step,val_loss\n", r"metrics.csv cannot be used \(no step is logged in it\)"),
    "metrics no number": ("metrics.csv", b"step,val_loss\n1,abc\n", r"metrics.csv, line 2, cannot be read \(.*'abc'\)"),
    "binary metrics": ("metrics.csv", b"\xff\xfe\n", r"metrics.csv, line 1, cannot be read \(it is no UTF-8 text\)"),
    "half a header": ("metrics.csv", b"step,val_lo", r"metrics.csv cannot be used \(no step is logged in it\)"),
    "settings no yaml": ("settings.yaml", b"a: [", "settings.yaml cannot be used"),
    "settings cut off": ("settings.yaml", b"seed: 1\nnetwork: wo", "settings.yaml cannot be used .*no end"),
    "settings of one": ("settings.yaml", b"training: 5\n", r"settings.yaml cannot be used \(it is not a mapping"),
    "settings of words": ("settings.yaml", b"training: {global_batch_size: x}\n", "settings.yaml cannot be used.*'x'"),
    "settings a list": ("settings.yaml", b"- 1\n", r"settings.yaml cannot be used \(it is not a mapping"),
    "evaluation no json": ("evaluation.json", b"{", "evaluation.json cannot be used.*`evaluate --from"),
    "evaluation a list": ("evaluation.json", b"[1]", r"evaluation.json cannot be used \(it is not a mapping"),
    "evaluation no number": ("evaluation.json", b'{"test_loss": "x"}', "evaluation.json cannot be used"),
    "evaluation of a list": ("evaluation.json", b'{"test_loss": [null]}', "evaluation.json cannot be used"),
    "count no number": ("evaluation.json", b'{"counts": {"test_loss": "x"}}', "evaluation.json cannot be used"),
    "references a list": ("evaluation.json", b'{"test_loss": 1, "references": [3]}', "evaluation.json cannot be used"),
    "reference no mapping": ("evaluation.json", b'{"references": {"a guess": 3}}', "evaluation.json cannot be used"),
    "reference no number": ("evaluation.json", b'{"references": {"a": {"b": "x"}}}', "evaluation.json cannot be used"),
    "counts no mapping": ("evaluation.json", b'{"test_loss": 1, "counts": 3}', "evaluation.json cannot be used"),
    "outputs no archive": ("outputs.npz", b"junk", "outputs.npz cannot be used"),
    "outputs cut off": ("outputs.npz", b"PK\x03\x04junk", f"outputs.npz cannot be used.*`{COMMAND} evaluate --from"),
    "outputs empty": ("outputs.npz", b"", "outputs.npz cannot be used"),
}


@pytest.mark.parametrize(("file", "content", "message"), BROKEN.values(), ids=BROKEN.keys())
def test_what_is_wrong_is_said_in_one_line(tmp_path: Path, file: str | None, content: bytes, message: str) -> None:
    run = tmp_path / "run"
    if file:
        run.mkdir()
        if file != "x.txt":
            write_run(run)
        (run / file).write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        make_report(run)
    assert "\n" not in str(caught.value)
    assert not (run / names.REPORT_FOLDER).exists()


def test_arrays_of_different_lengths_are_refused(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    np.savez(run / names.OUTPUTS_FILE, kind=np.zeros(3, int), vector=np.zeros((2, 4)))
    with pytest.raises(ReportError, match="one row an item"):
        make_report(run)
