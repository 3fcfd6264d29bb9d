"""Quiets what the libraries log while they are imported and start; errors still come through, without detours.

Standard library only: it must run before the first of them is imported.
"""

from __future__ import annotations

import logging
import os
import sys
import sysconfig
import traceback
import warnings
from pathlib import Path
from types import TracebackType

# Loggers that write to the screen during a normal run, each seen to do so.
_LOGGERS = (
    "lightning.pytorch.accelerators.cuda",
    "lightning.pytorch.loggers.mlflow",
    "lightning.pytorch.utilities.rank_zero",
    "megatron.core",
    "nemo_logger",
    "nv_one_logger",
    "torch.utils.cpp_extension",
)


_HERE = str(Path(__file__).parents[1])
_DETOURS = ("__main__.py", "cli.py", "training", "results", "contracts", "runtime", "planning")
_WAY_THERE = tuple(str(Path(_HERE, name)) for name in _DETOURS)
_LIBRARIES = (sysconfig.get_paths()["stdlib"], sysconfig.get_paths()["purelib"], sysconfig.get_paths()["platlib"], "<")


def quiet() -> None:
    """Keep the libraries' logs to errors, tracebacks to what leads there, and Python's warnings off the screen.

    Who asks for warnings with `python -W` or PYTHONWARNINGS gets them.
    """
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    for name in _LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)  # also for the loggers below it
        logging.getLogger(name).addFilter(_is_error)  # NeMo and Lightning set their levels anew when imported
    if not sys.warnoptions:  # python -W and PYTHONWARNINGS have the last word
        warnings.simplefilter("ignore")
    sys.excepthook = print_short


def print_short(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print a traceback without what leads from the command to the user's own frames: fifty of others' in a step."""
    told = traceback.TracebackException(kind, error, trace)
    part: traceback.TracebackException | None = told
    is_shorter = False
    while part:
        ours = [number for number, frame in enumerate(part.stack) if not _leads_there(frame.filename)]
        last = ours[-1] if ours else 0
        is_shorter |= last > len(ours[:-1])
        part.stack[:last] = [part.stack[number] for number in ours[:-1]]
        part = part.__cause__ or part.__context__
    note = "(frames that lead there are left out; --verbose true shows them)\n"
    print(*told.format(), note if is_shorter else "", sep="", end="", file=sys.stderr)


def _leads_there(path: str) -> bool:
    return path.startswith(_WAY_THERE if path.startswith(_HERE) else _LIBRARIES)


def _is_error(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.ERROR
