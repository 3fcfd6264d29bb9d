"""Run folders as training and evaluation leave them, small and made up; and what a report shows of them."""

import json
import re
from collections.abc import Iterator
from functools import partial
from html import unescape
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import yaml

from {{cookiecutter.__package_name}}.contracts import names
from {{cookiecutter.__package_name}}.drawing.pictures import answers, latent_space
from {{cookiecutter.__package_name}}.drawing.theme import Drawing

ITEMS = 60
SETTINGS = {"seed": 7, "parallel": {"tensor": 2}, "training": {"global_batch_size": 8}}


def pictures(outputs: dict[str, np.ndarray], settings: dict[str, Any]) -> Iterator[Drawing]:
    """Show the arrays of `write_run`: a cloud of vectors, and numbers over the true ones where there are some."""
    caption = f"{len(outputs['vector'])} <vectors>."
    kinds = {"label": outputs["kind"], "names": settings.get("kinds", ())}
    yield Drawing("cloud", caption, partial(latent_space, latent=outputs["vector"], **kinds))
    if "volts" in outputs:
        draw = partial(answers, name="volts", answer=outputs["volts"], truth=outputs["true_volts"])
        yield Drawing("volts", "The true numbers and the network's.", draw)


FIGURES = SimpleNamespace(SHARES=("hits",), pictures=pictures)
"""Stands in for `model/figures.py`, whatever yours draws."""


def write_run(folder: Path, finetuned: bool = False, evaluated: bool = True, **settings: Any) -> Path:
    """Make a run folder with sparse metrics; a finetuned one also counts hits, and gives a number for each item."""
    folder.mkdir(parents=True, exist_ok=True)
    header = "grad_norm,lr,reduced_train_loss,step,train_hits,val_hits,val_loss"
    rows = [f"1.5,0.001,{1 / (s + 1)},{s},{s / 100 if finetuned else ''},," for s in range(0, 100, 2)]
    rows += [f",,,{s},,{s / 100 if finetuned else ''},{2 / s}" for s in (49, 99)]
    (folder / names.METRICS_FILE).write_text("\n".join([header, *rows]) + "\n")
    (folder / names.SETTINGS_FILE).write_text(yaml.safe_dump({**SETTINGS, **settings}))
    if evaluated:
        kind = np.arange(ITEMS) % 5
        vector = np.eye(5)[kind] + np.random.default_rng(0).normal(0, 0.1, (ITEMS, 5))
        arrays = {names.IDX: np.arange(ITEMS), "kind": kind, "vector": vector.astype(np.float32)}
        evaluation: dict[str, Any] = {"test_loss": 0.25, names.NUM_ITEMS: ITEMS, names.COUNTED: "items"}
        evaluation[names.COUNTS] = {"test_loss": ITEMS}
        if finetuned:
            arrays |= {"true_volts": kind.astype(np.float32), "volts": kind + np.float32(0.5)}
            evaluation["test_hits"] = 0.95
            evaluation[names.COUNTS]["test_hits"] = ITEMS
        np.savez(folder / names.OUTPUTS_FILE, **arrays)
        (folder / names.EVALUATION_FILE).write_text(json.dumps(evaluation))
    return folder


def text_of(page: Path) -> str:
    """Return what a reader sees, without tags, styles and pictures."""
    body = page.read_text(encoding="utf-8").partition("</head>")[2]
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", body)).split())


def legend_of(axes: Any) -> list[str]:
    """Return the entries of a legend that is there."""
    return [text.get_text() for text in axes.get_legend().get_texts()]
