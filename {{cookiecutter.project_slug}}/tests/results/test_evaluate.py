"""Scores and predictions: what the files hold, and that what does not fit together is told in one line."""

import csv
import json
import re
import shutil
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from best_network import best_network
from conftest import TINY, Trained, run

from {{cookiecutter.__package_name}}.contracts import names
from {{cookiecutter.__package_name}}.contracts.loss import Counted, LossReduction
from {{cookiecutter.__package_name}}.contracts.view import Section
from {{cookiecutter.__package_name}}.model.config import NETWORKS
from {{cookiecutter.__package_name}}.training.resampling import PaddedToMultiple

pytestmark = pytest.mark.slow

MOST_ITEMS = 2 * TINY.training.global_batch_size + 7  # so that the last batch is not full


@pytest.fixture(autouse=True)
def few_items(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave only the first items of every test set."""
    for config in NETWORKS.values():
        monkeypatch.setattr(config, "read_test", shortened(config.read_test))


def shortened(read: Any) -> Any:
    def read_first(settings: Any) -> Section:
        items = read(settings)
        return Section(items, 0, min(MOST_ITEMS, len(items)))

    return staticmethod(read_first)


@pytest.fixture
def folder(pretrained: Trained, tmp_path: Path) -> Path:
    """A copy of a trained run."""
    return Path(shutil.copytree(pretrained.folder, tmp_path / "run"))


@pytest.fixture
def pair(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Give the network of that run other parts: keep=, predictions=, or a loss."""

    def change(**parts: Any) -> None:
        for name, part in parts.items():
            is_loss = isinstance(part, type)
            monkeypatch.setattr(NETWORKS[TINY.network], name, part if is_loss else staticmethod(part))

    return change


def arrays_of(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as arrays:
        return dict(arrays)


class Thirds(LossReduction):
    """Two values an item, made of its idx: every third item's count, or all of them."""

    names = ("loss", "other")
    unit = "pairs"
    derived: ClassVar[Any] = {"double": lambda means: 2 * means["loss"]}

    def counted(self, output: Any, batch: Any) -> tuple[Counted, ...]:
        idx = batch["idx"][:, None].expand(-1, 2)
        return Counted(idx.float(), idx % 3 == 0), Counted(idx + 0.5, idx >= -1)


def test_evaluation_holds_sums_over_counts_and_what_they_count(folder: Path, pair: Any, capsys: Any) -> None:
    pair(loss_reduction_class=Thirds, keep=lambda output, batch: {})
    assert run("evaluate", "--from", folder) == 0
    printed = capsys.readouterr().out.splitlines()
    idx = arrays_of(folder / names.OUTPUTS_FILE)[names.IDX]
    thirds = idx[idx % 3 == 0]
    assert json.loads((folder / names.EVALUATION_FILE).read_text()) == {
        "test_loss": thirds.mean(),
        "test_other": idx.mean() + 0.5,
        "test_double": 2 * thirds.mean(),
        "num_items": len(idx),
        "counted": "pairs",
        "counts": {"test_loss": 2 * len(thirds), "test_other": 2 * len(idx)},
    }
    assert f"test_loss {thirds.mean():.4f}  test_other {idx.mean() + 0.5:.4f}" in printed[-3]
    assert printed[-2] == f"over {len(idx)} test items with {2 * len(idx)} pairs; written to {folder}"


def test_scores_and_outputs_are_those_of_the_network_item_by_item(
    folder: Path, pair: Any, request: pytest.FixtureRequest, pretrained: Trained
) -> None:
    pair(keep=lambda output, batch: dict(output))
    assert run("evaluate", "--from", folder, "--training.global_batch_size", 20) == 0
    found, scores = arrays_of(folder / names.OUTPUTS_FILE), json.loads((folder / names.EVALUATION_FILE).read_text())
    request.getfixturevalue("megatron")
    network = best_network(pretrained.settings)
    loss = network.config.loss_reduction_class()
    items = PaddedToMultiple(network.config.read_test(pretrained.settings), 1, pretrained.settings.seed)
    batch = items.__getitems__(list(range(len(items))))
    with torch.no_grad():
        output = network(batch)
        expected = loss.figures(loss.forward(batch, output)[2]["totals"])
    assert found.keys() == {names.IDX, *output}
    assert np.array_equal(found[names.IDX], np.arange(len(items)))
    for name, value in output.items():
        scale = max(float(value.abs().max()), 1.0)
        np.testing.assert_allclose(found[name] / scale, value.float().numpy() / scale, rtol=0, atol=1e-5)
    assert scores[names.NUM_ITEMS] == len(items) and scores[names.COUNTED] == loss.unit
    assert scores[names.COUNTS].keys() == {f"test_{name}" for name in loss.names}
    figures = {name.removeprefix("test_"): score for name, score in scores.items() if name.startswith("test_")}
    assert figures == pytest.approx({name: float(value) for name, value in expected.items()}, rel=1e-5, abs=1e-6)


def test_outputs_keep_their_kind_but_for_bfloat16_and_padding_is_gone(folder: Path, pair: Any) -> None:
    def keep(output: Any, batch: Any) -> dict[str, torch.Tensor]:
        idx = batch["idx"]
        pairs = torch.stack([idx, -idx], dim=1)
        return {"half": idx.bfloat16(), "byte": idx.to(torch.uint8), "is_even": idx % 2 == 0, "pair": pairs}

    pair(keep=keep)
    assert run("evaluate", "--from", folder) == 0
    found = arrays_of(folder / names.OUTPUTS_FILE)
    idx = np.arange(len(found[names.IDX]))
    assert {name: str(array.dtype) for name, array in found.items()} == {
        **{"idx": "int64", "half": "float32", "byte": "uint8", "is_even": "bool", "pair": "int64"}
    }
    assert np.array_equal(found["pair"], np.stack([idx, -idx], axis=1))
    assert np.array_equal(found["half"], torch.from_numpy(idx).bfloat16().float().numpy())


def keep_idx(output: Any, batch: Any) -> dict[str, torch.Tensor]:
    return {"seen": batch["idx"]}


def test_predictions_are_columns_and_arrays_with_a_row_an_item(folder: Path, pair: Any, capsys: Any) -> None:
    def predictions(kept: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        seen = kept["seen"]
        pairs = np.stack([seen, seen], axis=1)
        text = np.array([f"item, {n}" for n in seen])
        return {"number": (seen / 7).astype(np.float32), "pairs": pairs, "text": text, "whole": seen * 10**6}

    pair(keep=keep_idx, predictions=predictions)
    assert run("predict", "--from", folder) == 0
    table, others = folder / names.PREDICTIONS_FILE, folder / names.PREDICTED_ARRAYS_FILE
    assert capsys.readouterr().out.splitlines()[-1] == f"wrote {table} and {others}"
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows == [
        {"idx": f"{n}", "number": f"{np.float32(n / 7):.6f}", "text": f"item, {n}", "whole": f"{n * 10**6}"}
        for n in range(len(rows))
    ]
    arrays = arrays_of(others)
    assert arrays.keys() == {"idx", "pairs"}
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


class Nothing(LossReduction):
    """Counts nothing."""

    def counted(self, output: Any, batch: Any) -> tuple[Counted, ...]:
        return (Counted(batch["idx"].float(), batch["idx"] < -1),)


BATCH = TINY.training.global_batch_size
WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "too few rows kept": (
        {"keep": lambda output, batch: {"row": batch["idx"][1:]}},
        rf"model/results.py: keep gives .'row': \({BATCH - 1},\)., not a row for each of {BATCH} items",
    ),
    "a mean kept": (
        {"keep": lambda output, batch: {"mean": batch["idx"].float().mean()}},
        rf"model/results.py: keep gives .'mean': \(\)., not a row for each of {BATCH} items",
    ),
    "too few predictions": (
        {"keep": keep_idx, "predictions": lambda kept: {"half": kept["seen"][1:]}},
        r"model/results.py: predictions gives half of \(\d+,\), not an array of \d+ rows",
    ),
    "a list": (
        {"keep": keep_idx, "predictions": lambda kept: {"half": kept["seen"].tolist()}},
        r"model/results.py: predictions gives half of list, not an array of \d+ rows",
    ),
    "nothing": ({"predictions": lambda kept: {}}, f", {TINY.network}, predicts nothing for an item: give another run"),
    "nothing counted": ({"loss_reduction_class": Nothing}, "test_loss is a mean over no items: none of the items has"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_does_not_fit_is_one_line_and_leaves_nothing(case: str, folder: Path, pair: Any, refused: Any) -> None:
    parts, answer = WRONG[case]
    pair(**parts)
    command = "predict" if "predictions" in parts else "evaluate"
    assert re.search(answer, refused(command, "--from", folder))


@pytest.mark.parametrize("trained", ["pretrained", "finetuned"])
def test_what_the_model_itself_keeps_is_drawn_and_what_it_predicts_is_written(
    trained: str, request: pytest.FixtureRequest, tmp_path: Path, capfd: Any
) -> None:
    folder = Path(shutil.copytree(request.getfixturevalue(trained).folder, tmp_path / "run"))
    assert run("evaluate", "--from", folder) == 0
    items = json.loads((folder / names.EVALUATION_FILE).read_text())[names.NUM_ITEMS]
    assert {len(array) for array in arrays_of(folder / names.OUTPUTS_FILE).values()} == {items}
    assert run("report", "--from", folder) == 0
    assert (folder / names.REPORT_FOLDER / names.REPORT_PAGE).is_file()
    capfd.readouterr()
    if run("predict", "--from", folder):
        assert "predicts nothing for an item" in capfd.readouterr().err
    else:
        rows = (folder / names.PREDICTIONS_FILE).read_text().splitlines()
        assert rows[0].startswith(names.IDX) and len(rows) == 1 + items
