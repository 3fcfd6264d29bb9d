"""noise.py: a quiet start, and tracebacks that show what is yours; and the canary of that."""

import json
import logging
import re
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from canaries import mended, no_gpu, seen_in_a_fresh_process

from {{cookiecutter.__package_name}}.runtime import noise


@pytest.fixture
def loud(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Loggers, warnings and tracebacks as they were, afterwards."""
    monkeypatch.setattr(sys, "excepthook", sys.__excepthook__)
    before = {name: (logging.getLogger(name).level, [*logging.getLogger(name).filters]) for name in noise._LOGGERS}
    with warnings.catch_warnings():
        yield
    for name, (level, filters) in before.items():
        logging.getLogger(name).setLevel(level)
        logging.getLogger(name).filters[:] = filters


@pytest.mark.usefixtures("loud")
@pytest.mark.parametrize("options", [[], ["default"]])
def test_quiet_lets_errors_through(options: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "warnoptions", options)
    warnings.simplefilter("error")
    noise.quiet()
    log = logging.getLogger("nemo_logger")
    log.setLevel(logging.DEBUG)  # as NeMo does when it is imported
    records = [log.makeRecord("", level, "", 0, "", (), None) for level in (10, 20, 30, 40, 50)]
    assert [record.levelno for record in records if log.filter(record)] == [40, 50]
    assert not logging.getLogger("megatron.core.utils").isEnabledFor(logging.WARNING)
    assert sys.excepthook is noise.print_short
    if options:
        with pytest.raises(UserWarning):
            warnings.warn("the user asked for warnings", stacklevel=1)
    else:
        warnings.warn("nobody asked", stacklevel=1)


def test_a_traceback_keeps_what_is_yours_and_where_a_library_fails(capsys: pytest.CaptureFixture[str]) -> None:
    training: dict[str, Any] = {}
    file = Path(noise.__file__).parents[1] / "training" / "train.py"
    exec(compile("def lead(there): there()", str(file), "exec"), training)
    try:
        try:  # by way of train.py and a library, into another
            training["lead"](lambda: re.sub("a", lambda _: json.loads("{"), "a"))
        except ValueError as error:
            raise RuntimeError("no such luck") from error
    except RuntimeError as error:
        noise.print_short(type(error), error, error.__traceback__)
    shown = capsys.readouterr().err
    first, second = shown.split("The above exception was the direct cause")
    files = re.findall(r'File ".*?(\w+\.py)", line', first)
    assert files == ["test_noise.py"] * 3 + ["__init__.py", "decoder.py", "decoder.py"]
    assert "json.decoder.JSONDecodeError: Expecting property name" in first
    assert "RuntimeError: no such luck\n(frames that lead there are left out" in second


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    ["lightning.pytorch", "megatron.core", "nemo_logger", "nv_one_logger", pytest.param("torch.utils", marks=no_gpu)],
)
def test_canary_library_logs_at_start(name: str) -> None:
    if not any(logger.startswith(name) for logger in seen_in_a_fresh_process()["spoke"]):
        mended(f"{name} in noise._LOGGERS")
