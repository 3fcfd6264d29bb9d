"""The table of a run's figures, metrics.csv."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from ..contracts.errors import UserError
from ..contracts.files import write_whole
from ..contracts.names import STEP, is_measured
from ..contracts.reading import read_metrics


def check_figures(table: Path, figures: tuple[str, ...]) -> None:
    """Hold what a run is going to log against the table that it goes on with; what is measured may differ.

    Raises:
        UserError: the loss has got other names meanwhile, or the table cannot be read.
    """
    columns, _ = read_metrics(table)
    logged = {name for name in columns if name != STEP and not is_measured(name)}
    if logged and logged != set(figures):
        raise UserError(
            f"{table} and the loss of now differ in {', '.join(sorted(logged ^ set(figures)))}: "
            "restore model/losses.py, or begin a new run in another --run_dir"
        )


class CsvLog(Logger):
    """One row for each time something is logged, appended and flushed at once; a resumed run goes on in the same file.

    Lightning's own CSVLogger deletes the file of the run that it goes on with.
    """

    def __init__(self, path: Path, columns: tuple[str, ...]) -> None:
        """Write to `path`; metrics outside `columns` are left out."""
        super().__init__()
        self.path = path
        self.columns = columns
        self.beside: dict[str, float] = {}
        """more figures of the next row"""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Append a row; `step` counts finished optimizer steps. FileNotFoundError if the folder has vanished."""
        figures = {name: value for name, value in metrics.items() if name in self.columns}
        if figures:
            self._append({STEP: int(step or 0), **figures, **self.beside})
            self.beside = {}

    @rank_zero_only
    def cut(self, step: int) -> None:
        """Drop the rows after `step`, which a resumed run writes anew, and a last one that was cut off by a crash.

        What another device has measured, where the run was before, keeps its columns.
        """
        columns, rows = read_metrics(self.path) if step else ((), [])
        if not columns:
            self.path.unlink(missing_ok=True)  # of what is left of it nothing counts
            return
        self.columns = tuple(dict.fromkeys((*self.columns, *filter(is_measured, columns))))
        with write_whole(self.path) as file:
            writer = csv.DictWriter(file, (STEP, *self.columns), extrasaction="ignore", lineterminator="\n")
            writer.writeheader()
            writer.writerows(row for row in rows if int(row[STEP]) <= step)

    def _append(self, row: dict[str, Any]) -> None:
        is_new = not self.path.exists()
        with self.path.open("a", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=(STEP, *self.columns), lineterminator="\n")
            if is_new:
                writer.writeheader()
            writer.writerow(row)

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Do nothing: settings.yaml holds them."""

    @property
    @rank_zero_experiment
    def experiment(self) -> None:
        """There is no experiment object behind this logger."""

    @property
    def name(self) -> str:
        """Lightning's name for the log."""
        return "csv"

    @property
    def version(self) -> str:
        """There is one version, the run's."""
        return ""
