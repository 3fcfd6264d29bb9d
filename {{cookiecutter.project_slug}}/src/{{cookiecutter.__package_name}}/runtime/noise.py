"""Quiets what the libraries log while they are imported and start; errors still come through.

Standard library only: it must run before the first of them is imported.
"""

from __future__ import annotations

import logging
import os
import sys
import warnings

# Loggers that write to the screen during a normal run, each seen to do so.
_LOGGERS = (
    "lightning.pytorch.accelerators.cuda",
    "lightning.pytorch.utilities.rank_zero",
    "megatron.core",
    "nemo_logger",
    "nv_one_logger",
    "torch.utils.cpp_extension",
)


def quiet() -> None:
    """Keep the libraries' logs to errors, and Python's warnings off the screen unless the user asked for them."""
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    for name in _LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)  # also for the loggers below it
        logging.getLogger(name).addFilter(_is_error)  # NeMo and Lightning set their levels anew when imported
    if not sys.warnoptions:  # python -W and PYTHONWARNINGS have the last word
        warnings.simplefilter("ignore")


def _is_error(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.ERROR
