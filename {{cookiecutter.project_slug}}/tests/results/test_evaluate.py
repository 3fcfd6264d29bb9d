"""Scores: what the files of an evaluation hold, and that what does not fit together is told in one line."""

import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from best_network import best_network
from conftest import TINY, Trained, arrays_of, run
from written_runs import text_of

from {{cookiecutter.__package_name}}.contracts import names
from {{cookiecutter.__package_name}}.contracts.errors import UserError
from {{cookiecutter.__package_name}}.contracts.loss import Counted, LossReduction
from {{cookiecutter.__package_name}}.contracts.reading import read_evaluation
from {{cookiecutter.__package_name}}.model.config import NETWORKS
from {{cookiecutter.__package_name}}.results import evaluate
from {{cookiecutter.__package_name}}.runtime.checkpoint import best_checkpoint
from {{cookiecutter.__package_name}}.runtime.seal import step_of
from {{cookiecutter.__package_name}}.training.resampling import PaddedToMultiple

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("few_items")]


class Thirds(LossReduction):
    """Two values an item, made of its idx: every third item's count, or all of them."""

    names = ("loss", "other")
    unit = "pairs"
    derived: ClassVar[Any] = {"double": lambda means: 2 * means["loss"]}

    def counted(self, output: Any, batch: Any) -> tuple[Counted, ...]:
        idx = batch["idx"][:, None].expand(-1, 2)
        return Counted(idx.float(), idx % 3 == 0), Counted(idx + 0.5, idx >= -1)


def test_evaluation_holds_sums_over_counts_and_what_they_count(
    folder: Path, pair: Any, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    logged: list[Any] = []
    monkeypatch.setattr(evaluate, "log_to_run", lambda *given: logged.append(given))
    references = {"a guess": {"loss": 2.5, "other": 7.0}, "a rule": {"loss": 1.5}}
    pair(loss_reduction_class=Thirds, keep=lambda output, batch: {}, references=lambda settings: references)
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
        "step": step_of(best_checkpoint(folder / names.CHECKPOINTS_FOLDER)),
        "changed": {},
        "references": references,
    }
    means = {"test_loss": thirds.mean(), "test_other": idx.mean() + 0.5, "test_double": 2 * thirds.mean()}
    assert logged == [(("tensorboard",), folder, means, step_of(best_checkpoint(folder / names.CHECKPOINTS_FOLDER)))]
    assert f"test_loss {thirds.mean():.4f}  test_other {idx.mean() + 0.5:.4f}" in printed[-5]
    assert printed[-4:-2] == ["a guess: loss 2.5000  other 7.0000", "a rule: loss 1.5000"]
    assert printed[-2] == f"over {len(idx)} test items with {2 * len(thirds)} pairs; written to {folder}"


def test_what_was_scored_otherwise_than_the_run_has_it_is_said(folder: Path, pair: Any, capsys: Any) -> None:
    pair()
    assert run("evaluate", "--from", folder, "--seed", 8, "--parallel.devices", 1, "--data.num_workers", 0) == 0
    assert read_evaluation(folder / names.EVALUATION_FILE)[names.CHANGED] == {"seed": 8}
    flags = "--seed 8"
    assert run("report", "--from", folder) == 0
    assert f"made with other settings than the run's own: {flags}" in text_of(folder / "report" / "index.html")
    assert run("status", folder) == 0
    assert f"with {flags}\n" in capsys.readouterr().out


def test_what_figures_are_held_against_may_be_out_of_reach(folder: Path, pair: Any, capfd: Any) -> None:
    def references(settings: Any) -> dict[str, dict[str, float]]:
        assert settings.run_dir == str(folder)
        raise UserError("there is no such file")

    pair(references=references)
    assert run("evaluate", "--from", folder) == 0
    assert "warning: the figures are not held against anything: there is no such file\n" in capfd.readouterr().err
    assert json.loads((folder / names.EVALUATION_FILE).read_text())[names.REFERENCES] == {}


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
    assert found.keys() - {names.NAME} == {names.IDX, *output}
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
    found.pop(names.NAME, None)
    idx = np.arange(len(found[names.IDX]))
    assert {name: str(array.dtype) for name, array in found.items()} == {
        **{"idx": "int64", "half": "float32", "byte": "uint8", "is_even": "bool", "pair": "int64"}
    }
    assert np.array_equal(found["pair"], np.stack([idx, -idx], axis=1))
    assert np.array_equal(found["half"], torch.from_numpy(idx).bfloat16().float().numpy())


def test_outputs_of_all_ranks_are_joined_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, place in (("is_pipeline_last_stage", True), ("get_tensor_model_parallel_rank", 0)):
        monkeypatch.setattr(evaluate.parallel_state, name, lambda place=place: place)
    shares = [{names.IDX: torch.tensor(idx), "tens": 10 * torch.tensor(idx)} for idx in ([3, 1], [2, 0, -1])]
    strategy = SimpleNamespace(of_all_ranks=lambda mine: [None, mine, shares[1]])
    trainer: Any = SimpleNamespace(predict=lambda module, datamodule: shares[:1], strategy=strategy)
    found = evaluate.gather_outputs(trainer, module=Any, data=SimpleNamespace(test=[]))  # type: ignore[arg-type]
    assert {name: array.tolist() for name, array in found.items()} == {"idx": [0, 1, 2, 3], "tens": [0, 10, 20, 30]}


def keep_idx(output: Any, batch: Any) -> dict[str, torch.Tensor]:
    return {"seen": batch["idx"]}


def test_scores_of_the_whole_test_set_stand_beside_the_means(folder: Path, pair: Any, capfd: Any) -> None:
    pair(keep=keep_idx, scores=lambda kept: {"middle": float(np.median(kept["seen"])), "none": float("nan")})
    assert run("evaluate", "--from", folder) == 0
    text = (folder / names.EVALUATION_FILE).read_text()
    assert json.loads(text, parse_constant=pytest.fail)["test_none"] is None, "JSON has no NaN"
    found = read_evaluation(folder / names.EVALUATION_FILE)
    middle = np.median(arrays_of(folder / names.OUTPUTS_FILE)["seen"])
    assert found["test_middle"] == middle and np.isnan(found["test_none"])
    assert set(found[names.COUNTS]).isdisjoint({"test_middle", "test_none"})
    out, err = capfd.readouterr()
    assert f"test_middle {middle:.4f}  test_none nan" in out
    assert "warning: test_none is nan\n" in err


def test_hooks_may_be_methods_that_read_the_config(folder: Path, monkeypatch: pytest.MonkeyPatch, pair: Any) -> None:
    config, layers = NETWORKS[TINY.network], TINY.model.num_layers
    monkeypatch.setattr(config, "keep", lambda self, output, batch: {"a": batch["idx"] * self.num_layers})
    monkeypatch.setattr(config, "scores", lambda self, kept: {"size": float(self.num_layers)})
    monkeypatch.setattr(config, "predictions", lambda self, kept: {"b": kept["a"] + self.num_layers})
    assert run("evaluate", "--from", folder) == 0
    assert json.loads((folder / names.EVALUATION_FILE).read_text())["test_size"] == layers
    assert run("predict", "--from", folder) == 0
    row = (folder / names.PREDICTIONS_FILE).read_text().splitlines()[3].split(",")
    assert (row[0], row[-1]) == ("2", f"{3 * layers}")


class Nothing(LossReduction):
    """Counts nothing."""

    def counted(self, output: Any, batch: Any) -> tuple[Counted, ...]:
        return (Counted(batch["idx"].float(), batch["idx"] < -1),)


BATCH = TINY.training.global_batch_size
WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "too few rows kept": (
        {"keep": lambda output, batch: {"row": batch["idx"][1:]}},
        rf"keep gives .'row': \({BATCH - 1},\)., not a dict of tensors with a row for each of {BATCH} items",
    ),
    "a mean kept": (
        {"keep": lambda output, batch: {"mean": batch["idx"].float().mean()}},
        rf"keep gives .'mean': \(\)., not a dict of tensors with a row for each of {BATCH} items",
    ),
    "scores of what is not kept": (
        {"keep": keep_idx, "scores": lambda kept: kept["unseen"]},
        r"model/results.py: scores wants 'unseen'; keep gives seen, idx",
    ),
    "no dict of scores": ({"scores": lambda kept: 3.0}, "model/results.py: scores gives float, not a dict"),
    "a score that is no float": (
        {"scores": lambda kept: {"whole": 3}},
        "model/results.py: scores gives whole as 3: give a float, under a name that the loss does not have",
    ),
    "a score of the loss's name": (
        {"scores": lambda kept: {"loss": 3.0}},
        "model/results.py: scores gives loss as 3.0: give a float, under a name that the loss does not have",
    ),
    "nothing counted": ({"loss_reduction_class": Nothing}, "test_loss is a mean over no items: none of the items has"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_does_not_fit_is_one_line_and_leaves_nothing(case: str, folder: Path, pair: Any, refused: Any) -> None:
    parts, answer = WRONG[case]
    pair(**parts)
    assert re.search(answer, refused("evaluate", "--from", folder))


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
