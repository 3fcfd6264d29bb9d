"""Predictions: what the files hold of which items, and that what does not fit together is told in one line."""

import csv
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import TINY, arrays_of, run

from {{cookiecutter.__package_name}}.contracts import names
from {{cookiecutter.__package_name}}.contracts.config import Ragged
from {{cookiecutter.__package_name}}.contracts.view import Section
from {{cookiecutter.__package_name}}.model.config import NETWORKS
from {{cookiecutter.__package_name}}.model.settings import Settings

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("few_items")]


def keep_idx(output: Any, batch: Any) -> dict[str, torch.Tensor]:
    return {"seen": batch["idx"]}


def test_predictions_are_columns_and_arrays_with_a_row_an_item(folder: Path, pair: Any, capsys: Any) -> None:
    def predictions(kept: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        seen = kept["seen"]
        pairs = np.stack([seen, seen], axis=1)
        text = np.array([f"item, {n}" for n in seen])
        return {"number": (seen / 7).astype(np.float32), "pairs": pairs, "a text, written": text, "whole": seen * 10**6}

    pair(keep=keep_idx, predictions=predictions)
    assert run("predict", "--from", folder) == 0
    table, others = folder / names.PREDICTIONS_FILE, folder / names.PREDICTED_ARRAYS_FILE
    assert capsys.readouterr().out.splitlines()[-1] == f"wrote {table} and {others}"
    with table.open(newline="") as file:
        rows = [{name: value for name, value in row.items() if name != names.NAME} for row in csv.DictReader(file)]
    assert rows == [
        {"idx": f"{n}", "number": f"{np.float32(n / 7):.6g}", "a text, written": f"item, {n}", "whole": f"{n * 10**6}"}
        for n in range(len(rows))
    ]
    arrays = arrays_of(others)
    assert arrays.keys() - {names.NAME} == {"idx", "pairs"}
    assert np.array_equal(arrays["pairs"], np.arange(len(rows))[:, None] * [1, 1])
    assert np.array_equal(arrays["idx"], np.arange(len(rows)))


def test_without_arrays_there_is_only_the_table_and_what_is_not_finite_is_told(
    folder: Path, pair: Any, capfd: Any
) -> None:
    def predictions(kept: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {"score": np.where(kept["seen"] == 3, np.nan, 1.0)}

    pair(keep=keep_idx, predictions=predictions)
    assert run("predict", "--from", folder) == 0
    out, err = capfd.readouterr()
    assert out.splitlines()[-1] == f"wrote {folder / names.PREDICTIONS_FILE}"
    assert "warning: some predictions are not finite, first score of item 3\n" in err
    assert not (folder / names.PREDICTED_ARRAYS_FILE).exists()


def test_other_predictions_under_a_name_are_kept_and_the_same_are_not(folder: Path, pair: Any, capfd: Any) -> None:
    pair(keep=keep_idx, predictions=lambda kept: {"pair": np.stack([kept["seen"]] * 2, axis=1)})
    for _ in range(2):
        assert run("predict", "--from", folder) == 0
    assert "other predictions" not in capfd.readouterr().err
    before = {path: (folder / path).read_bytes() for path in (names.PREDICTIONS_FILE, names.PREDICTED_ARRAYS_FILE)}
    pair(predictions=lambda kept: {"single": kept["seen"]})
    assert run("predict", "--from", folder) == 0
    err = capfd.readouterr().err
    for path, content in before.items():
        aside = (folder / path).with_stem(f"{Path(path).stem}.1")
        assert aside.read_bytes() == content
        assert f"other predictions were in {folder / path}: they are in {aside} now\n" in err
    assert {path.name for path in folder.glob("predictions*")} == {
        *(names.PREDICTIONS_FILE, "predictions.1.csv", "predictions.1.npz"),
    }


def test_arrays_of_different_lengths_lie_one_after_the_other(folder: Path, pair: Any, capfd: Any) -> None:
    def predictions(kept: dict[str, np.ndarray]) -> dict[str, Any]:
        values = np.concatenate([np.full((n % 3, 2), n / 2) for n in kept["seen"]])
        values[-1, 0] = np.nan
        return {"parts": Ragged(values, np.cumsum([0, *(kept["seen"] % 3)]))}

    pair(keep=keep_idx, predictions=predictions)
    assert run("predict", "--from", folder) == 0
    arrays = arrays_of(folder / names.PREDICTED_ARRAYS_FILE)
    size, offsets = len(arrays["idx"]), arrays["parts_offsets"]
    assert offsets.shape == (size + 1,)
    for n in range(3):
        assert np.array_equal(arrays["parts"][offsets[n] : offsets[n + 1]], np.full((n % 3, 2), n / 2))
    last = max(n for n in range(size) if n % 3)
    assert f"warning: some predictions are not finite, first parts of item {last}\n" in capfd.readouterr().err
    assert (folder / names.PREDICTIONS_FILE).read_text().splitlines()[1].split(",")[0] == "0"


class Named:
    """A dataset that calls its items by a name."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: Any) -> Any:
        return {key: value for key, value in self.dataset[index].items() if key != names.IDX}

    def name(self, position: int) -> str:
        return f"item, {position}"


class Nameless(Named):
    """The same without names."""

    name = None  # type: ignore[assignment]


def read_as(kind: Any, **shown: int) -> Any:
    """Return what reads the test data of the run's network as a kind of dataset; a part of it, if `shown` says so."""
    read = NETWORKS[TINY.network].read_test

    def read_so(settings: Any) -> Any:
        items = kind(read(settings))
        return Section(items, **shown) if shown else items

    return read_so


def test_names_of_items_stand_beside_their_positions_in_the_whole(folder: Path, pair: Any) -> None:
    pair(read_test=read_as(Named, start=2, stop=5), read_predict=read_as(Named), keep=keep_idx)
    pair(predictions=lambda kept: {"again": kept[names.NAME], "pair": np.stack([kept["seen"]] * 2, axis=1)})
    assert run("evaluate", "--from", folder) == 0
    assert arrays_of(folder / names.OUTPUTS_FILE)[names.NAME].tolist() == ["item, 2", "item, 3", "item, 4"]
    assert run("predict", "--from", folder) == 0
    lines = (folder / names.PREDICTIONS_FILE).read_text().splitlines()
    assert lines[:3] == ["idx,name,again", '0,"item, 0","item, 0"', '1,"item, 1","item, 1"']
    assert arrays_of(folder / names.PREDICTED_ARRAYS_FILE)[names.NAME][1] == "item, 1"


def test_items_without_names_have_none(folder: Path, pair: Any) -> None:
    pair(read_predict=read_as(Nameless), keep=keep_idx, predictions=lambda kept: {"seen": kept["seen"]})
    assert run("predict", "--from", folder) == 0
    assert (folder / names.PREDICTIONS_FILE).read_text().splitlines()[:2] == ["idx,seen", "0,0"]


def test_what_is_no_test_data_is_predicted_beside_and_never_evaluated(
    folder: Path, pair: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(Settings, "predicted", property(lambda settings: "others"))
    pair(read_test=read_as(Named, start=0, stop=5), read_predict=read_as(Named, start=1, stop=4), keep=keep_idx)
    pair(predictions=lambda kept: {"seen": kept["seen"], "pair": np.stack([kept["seen"]] * 2, axis=1)})
    assert run("evaluate", "--from", folder) == 0
    assert arrays_of(folder / names.OUTPUTS_FILE)["seen"].tolist() == [0, 1, 2, 3, 4]
    assert run("predict", "--from", folder) == 0
    files = [folder / f"predictions-others.{kind}" for kind in ("csv", "npz")]
    assert capsys.readouterr().out.splitlines()[-1] == f"wrote {files[0]} and {files[1]}"
    assert files[0].read_text().splitlines()[1:] == [f'{n},"item, {n}",{n}' for n in (1, 2, 3)]
    assert arrays_of(files[1])["idx"].tolist() == [1, 2, 3]
    assert not (folder / names.PREDICTIONS_FILE).exists()


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "too few predictions": (
        {"keep": keep_idx, "predictions": lambda kept: {"half": kept["seen"][1:]}},
        r"model/results.py: predictions gives half as ndarray int64 \(\d+,\), not numbers or texts in a NumPy array of",
    ),
    "too few offsets": (
        {"keep": keep_idx, "predictions": lambda kept: {"parts": Ragged(kept["seen"], kept["seen"])}},
        r"predictions gives parts as ndarray int64 \(\d+,\), ndarray int64 \(\d+,\), not .* of \d+ items",
    ),
    "offsets past the values": (
        {"keep": keep_idx, "predictions": lambda kept: {"parts": Ragged(kept["seen"], np.append(kept["seen"], 999))}},
        r"predictions gives parts as ndarray int64 \(\d+,\), ndarray int64 \(\d+,\), not .* of \d+ items",
    ),
    "ragged tensors": (
        {"keep": keep_idx, "predictions": lambda kept: {"parts": Ragged(torch.ones(3), torch.arange(3))}},
        r"predictions gives parts as Tensor torch.float32 \(3,\), Tensor torch.int64 \(3,\), not ",
    ),
    "a tensor": (
        {"keep": keep_idx, "predictions": lambda kept: {"half": torch.from_numpy(kept["seen"])}},
        r"predictions gives half as Tensor torch.int64 \(\d+,\), not numbers or texts in a NumPy array of \d+ rows",
    ),
    "objects": (
        {"keep": keep_idx, "predictions": lambda kept: {"half": kept["seen"].astype(object)}},
        r"predictions gives half as ndarray object \(\d+,\), not numbers or texts in a NumPy array of \d+ rows",
    ),
    "a name that the file has": (
        {"keep": keep_idx, "predictions": lambda kept: {"file": kept["seen"]}},
        "predictions calls a column 'file': use a text that can be printed, and none of idx, name, file",
    ),
    "no dict": ({"predictions": lambda kept: None}, "model/results.py: predictions gives NoneType, not a dict"),
    "predictions of what is not kept": (
        {"keep": keep_idx, "predictions": lambda kept: kept["unseen"]},
        r"model/results.py: predictions wants 'unseen'; keep gives seen, idx",
    ),
    "a list": (
        {"keep": keep_idx, "predictions": lambda kept: {"half": kept["seen"].tolist()}},
        r"model/results.py: predictions gives half as list, not numbers or texts in a NumPy array of \d+ rows",
    ),
    "nothing": ({"predictions": lambda kept: {}}, f", {TINY.network}, predicts nothing for an item: give another run"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_does_not_fit_is_one_line_and_leaves_nothing(case: str, folder: Path, pair: Any, refused: Any) -> None:
    parts, answer = WRONG[case]
    pair(**parts)
    assert re.search(answer, refused("predict", "--from", folder))
