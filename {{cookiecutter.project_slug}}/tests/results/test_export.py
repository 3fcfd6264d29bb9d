"""Exports: every weight, what describes it, and plain PyTorch beside it only if that is the same network."""

import json
import os
import shutil
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from best_network import best_network
from conftest import TINY, change, run
from safetensors.torch import load_file

from {{cookiecutter.__package_name}}.contracts import names
from {{cookiecutter.__package_name}}.contracts.config import NetworkConfig
from {{cookiecutter.__package_name}}.contracts.errors import HOUSE, UserError
from {{cookiecutter.__package_name}}.contracts.item import DataError
from {{cookiecutter.__package_name}}.contracts.settings import ParallelSettings
from {{cookiecutter.__package_name}}.model.config import NETWORKS
from {{cookiecutter.__package_name}}.model.settings import LAYOUTS, ModelSettings, Settings
from {{cookiecutter.__package_name}}.proof.layouts import train_in_ranks
from {{cookiecutter.__package_name}}.results import export
from {{cookiecutter.__package_name}}.results.export import MODEL_FILE, PLAIN_FILE, TOLERANCES, export_run
from {{cookiecutter.__package_name}}.runtime.checkpoint import best_checkpoint
from {{cookiecutter.__package_name}}.training.train import DTYPES, make_data

CONFIG = NETWORKS[TINY.network]
SPLIT = ParallelSettings(devices=4, tensor=2, pipeline=2)
CASES: dict[str, dict[str, Any]] = {
    "pretrained": {},
    "finetuned": {},
    "bf16": {"training": {"max_steps": 10, "precision": "bf16"}},
    "split": {"network": LAYOUTS.network, "parallel": SPLIT, "training": {"max_steps": 10, "micro_batch_size": 16}},
}


@pytest.fixture(scope="module", autouse=True)
def generally():
    """Export as the house does, whatever your networks do instead."""
    with pytest.MonkeyPatch.context() as patch:
        for config in NETWORKS.values():
            patch.setattr(config, "export", NetworkConfig.export)
            patch.setattr(config, "export_files", NetworkConfig.export_files)
        yield


@pytest.fixture(scope="module", params=CASES)
def settings(request, train, tmp_path_factory) -> Settings:
    """Settings of a run: of the networks that commands train, in another precision, and in four processes."""
    if not CASES[request.param]:
        return request.getfixturevalue(request.param).settings
    folder = tmp_path_factory.mktemp(request.param) / "run"
    settings = change(TINY, run_dir=str(folder), **CASES[request.param])
    if settings.parallel.devices > 1:
        train_in_ranks(settings)
    else:
        train(settings)
    return settings


@pytest.fixture(scope="module")
def exported(settings, tmp_path_factory) -> Path:
    """Where that run is exported to. Read only."""
    return export_run(settings, tmp_path_factory.mktemp("exported") / "export")


@pytest.mark.slow
def test_the_weights_are_all_there_as_they_were_trained(settings, exported, megatron):
    weights, expected = load_file(exported / names.WEIGHTS_FILE), dict(best_network(settings).named_parameters())
    assert weights.keys() == expected.keys()
    for name, weight in weights.items():
        assert weight.dtype == DTYPES[settings.training.precision]
        assert torch.equal(weight, expected[name]), name


@pytest.mark.slow
def test_the_description_says_what_goes_in_and_out(settings, exported, megatron):
    model = json.loads((exported / MODEL_FILE).read_text())
    assert (model["network"], ModelSettings(**model["sizes"])) == (settings.network, settings.model)
    data = make_data(settings)
    data.setup("test")
    assert model["inputs"] and set(model["inputs"]) <= set(data.keys)
    for name, described in model["inputs"].items():
        key = data.keys[name]
        assert described == {"shape": list(key.shape), "dtype": key.dtype, "range": key.about or None}
    items = data.test_dataloader().dataset
    outputs = best_network(settings)(items.__getitems__([0, 1]))
    assert model["outputs"] == {name: list(value.shape[1:]) for name, value in outputs.items()}
    assert f"torch.{model['dtype']}" == str(DTYPES[settings.training.precision])
    best = best_checkpoint(Path(settings.run_dir) / names.CHECKPOINTS_FOLDER).name
    assert best == f"step={model['step']}-{names.VAL_LOSS}={model[names.VAL_LOSS]:.6f}"
    assert model["versions"]["torch"] == metadata.version("torch")


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def plain(monkeypatch, tmp_path) -> Any:
    """Put something in the place of `model/plain.py` that answers what the network does, passed through `change`."""
    answer: dict[str, torch.Tensor] = {}
    forward = CONFIG.stage_class.forward

    def remembered(stage: Any, batch: Any) -> Any:
        answer.update(forward(stage, batch))
        return dict(answer)

    monkeypatch.setattr(CONFIG.stage_class, "forward", remembered)
    file = tmp_path / "plain.py"
    file.write_text("what loads it\n")

    def answers(change: Any) -> None:
        def network(**inputs: torch.Tensor) -> Any:
            asked.append(set(inputs))
            return change(dict(answer))

        module = SimpleNamespace(__file__=str(file), load=lambda folder: network)
        monkeypatch.setattr(export, "_plain", lambda: module)

    asked: list[set[str]] = []
    return SimpleNamespace(answers=answers, asked=asked, file=file)


def scaled(output: dict[str, torch.Tensor], by: float) -> dict[str, torch.Tensor]:
    """Move the largest number of the last output, relative to it if it is above 1."""
    name = list(output)[-1]
    wrong = output[name].double().flatten().clone()
    largest = wrong.abs().argmax()
    wrong[largest] += by * wrong[largest].abs().clamp(min=1)
    return {**output, name: wrong.view_as(output[name])}


@pytest.mark.slow
def test_plain_pytorch_that_answers_the_same_goes_with_it(plain, pretrained, tmp_path, capsys):
    plain.answers(lambda output: scaled(output, TOLERANCES["fp32"] / 2))
    folder = export_run(pretrained.settings, tmp_path / "export")
    assert files_of(folder).keys() == {names.WEIGHTS_FILE, MODEL_FILE, PLAIN_FILE}
    assert (folder / PLAIN_FILE).read_bytes() == plain.file.read_bytes()
    [asked] = plain.asked
    assert asked == set(json.loads((folder / MODEL_FILE).read_text())["inputs"])
    assert PLAIN_FILE not in capsys.readouterr().err


def fails(output: Any) -> Any:
    raise RuntimeError("no weight\nof that name")


OTHERS = {
    "another answer": (lambda output: scaled(output, 2 * TOLERANCES["fp32"]), "its {last} differs by 2.0e-04"),
    "no number": (lambda output: scaled(output, float("nan")), "its {last} differs by nan"),
    "an output less": (lambda output: dict(list(output.items())[:-1]), "it gives "),
    "a failure": (fails, "RuntimeError: no weight of that name"),
}


@pytest.mark.slow
@pytest.mark.parametrize("other", OTHERS)
def test_plain_pytorch_that_is_another_network_is_left_out_in_words(other, plain, pretrained, tmp_path, capsys):
    change, words = OTHERS[other]
    plain.answers(change)
    folder = export_run(pretrained.settings, tmp_path / "export")
    assert files_of(folder).keys() == {names.WEIGHTS_FILE, MODEL_FILE}
    model = json.loads((folder / MODEL_FILE).read_text())
    problem = words.format(last=list(model["outputs"])[-1])
    told = capsys.readouterr().err
    assert f"no load.py: model/plain.py is not the network of model/network.py ({problem}" in told
    assert "change it likewise" in told


@pytest.mark.slow
def test_an_example_that_cannot_be_imported_is_told_and_the_weights_are_written(
    pretrained, tmp_path, monkeypatch, capsys
):
    broken = compile("import no_such_package", str(HOUSE / "model" / "plain.py"), "exec")
    monkeypatch.setattr(export, "import_module", lambda *name: exec(broken, {"__name__": "plain"}))
    folder = export_run(pretrained.settings, tmp_path / "export")
    assert files_of(folder).keys() == {names.WEIGHTS_FILE, MODEL_FILE}
    told = "no load.py: model/plain.py, line 1, cannot be imported: ModuleNotFoundError: No module named"
    assert told in capsys.readouterr().err


@pytest.mark.slow
def test_whatever_the_network_reads_of_an_item_is_an_input(plain, pretrained, tmp_path, monkeypatch):
    forward = CONFIG.stage_class.forward
    monkeypatch.setattr(CONFIG.stage_class, "forward", lambda stage, batch: forward(stage, dict(batch.items())))
    plain.answers(lambda output: output)
    model = json.loads((export_run(pretrained.settings, tmp_path / "export") / MODEL_FILE).read_text())
    data = make_data(pretrained.settings)
    data.setup("test")
    assert model["inputs"].keys() == data.keys.keys()
    assert model["inputs"][names.IDX] == {"shape": [], "dtype": "int64", "range": None}
    assert plain.asked == [set(data.keys)]


@pytest.mark.slow
def test_a_network_whose_data_are_not_here_is_exported_in_words(pretrained, tmp_path, monkeypatch, capsys):
    own = files_of(export_run(pretrained.settings, tmp_path / "own"))
    capsys.readouterr()

    def read_test(settings: Any) -> Any:
        raise DataError("nowhere/items.npz is missing: fetch it")

    monkeypatch.setattr(CONFIG, "read_test", staticmethod(read_test))
    validated = files_of(export_run(pretrained.settings, tmp_path / "validated"))
    assert validated.keys() == own.keys(), "it was tried on items to validate with"
    monkeypatch.setattr(CONFIG, "read_training", staticmethod(read_test))
    away = files_of(export_run(pretrained.settings, tmp_path / "away"))
    assert away.keys() == {names.WEIGHTS_FILE, MODEL_FILE}
    assert away[names.WEIGHTS_FILE] == own[names.WEIGHTS_FILE]
    assert json.loads(away[MODEL_FILE]) == {**json.loads(own[MODEL_FILE]), "inputs": None, "outputs": None}
    problem = "the network cannot be tried on test items (DataError: nowhere/items.npz is missing: fetch it)"
    assert f"no load.py: {problem}; nor does model.json say" in capsys.readouterr().err


@pytest.mark.slow
def test_a_weight_with_two_names_is_exported_under_both(pretrained, tmp_path, monkeypatch):
    state = CONFIG.stage_class.state_dict

    def with_tied(stage: Any) -> dict[str, Any]:
        weights = state(stage)
        return {**weights, "tied": next(iter(weights.values()))}

    monkeypatch.setattr(CONFIG.stage_class, "state_dict", with_tied)
    weights = load_file(export_run(pretrained.settings, tmp_path / "export") / names.WEIGHTS_FILE)
    assert [name for name, weight in weights.items() if torch.equal(weight, weights["tied"])] > ["tied"]


@pytest.mark.slow
def test_a_config_may_write_the_weights_in_its_own_way(pretrained, tmp_path, monkeypatch, capsys):
    def write(config: Any, folder: Path, weights: Any, settings: Settings, description: Any) -> str:
        (folder / "weights.txt").write_text(f"{len(weights)} of {settings.run_dir} in {description['dtype']}")
        return "for those who read text"

    monkeypatch.setattr(CONFIG, "export", write)
    monkeypatch.setattr(CONFIG, "export_files", ("weights.txt", "head.txt"))
    folder = export_run(pretrained.settings, tmp_path / "export")
    assert files_of(folder).keys() == {"weights.txt", MODEL_FILE}
    assert (folder / "weights.txt").read_text() == f"{len(pretrained.end)} of {pretrained.folder} in float32"
    assert "for those who read text" in capsys.readouterr().err.splitlines()
    (folder / "head.txt").touch()
    export_run(pretrained.settings, folder)
    assert files_of(folder).keys() == {"weights.txt", MODEL_FILE}


@pytest.mark.slow
def test_the_command_exports_into_the_run_and_again_over_it(pretrained, tmp_path, capsys):
    moved = shutil.copytree(pretrained.folder, tmp_path / "run")
    folder = moved / names.EXPORT_FOLDER
    assert run("export", "--from", moved) == 0
    assert capsys.readouterr().out == f"wrote {folder}\n"
    before = files_of(folder)
    assert {names.WEIGHTS_FILE, MODEL_FILE} <= before.keys() <= {names.WEIGHTS_FILE, MODEL_FILE, PLAIN_FILE}
    modes = {path.stat().st_mode for path in (*folder.iterdir(), moved / names.SETTINGS_FILE)}
    assert len(modes) == 1, "who may read the run may read the export"
    (folder / "__pycache__").mkdir()  # as `from load import load` leaves it
    (folder / MODEL_FILE).unlink()
    assert run("export", "--from", moved) == 0
    assert files_of(folder) == before


@pytest.mark.slow
def test_a_crash_leaves_the_old_export_whole(pretrained, tmp_path, monkeypatch):
    folder = export_run(pretrained.settings, tmp_path / "export")
    before = files_of(folder)
    (folder / MODEL_FILE).write_text("old")
    monkeypatch.setattr(export, "version", lambda package: 1 / 0)  # of the description, when the weights are written
    with pytest.raises(ZeroDivisionError):
        export_run(pretrained.settings, folder)
    assert files_of(folder) == {**before, MODEL_FILE: b"old"}
    assert list(tmp_path.iterdir()) == [folder]


@pytest.mark.parametrize(
    ("output", "answer"),
    [
        ("full", "full holds mine.txt, which is of no export: name a new or an empty folder"),
        ("full/mine.txt", "mine.txt cannot be written: full/mine.txt: Not a directory"),
        (".", "is where you are, and would be replaced: name another folder"),
    ],
    ids=["folder", "file", "here"],
)
def test_what_is_somebody_elses_is_not_overwritten(output, answer, tmp_path, monkeypatch):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").touch()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here" if output == "." else tmp_path)
    with pytest.raises(UserError, match=answer):
        export_run(TINY, Path(output))
    assert sorted(os.listdir(tmp_path / "full")) == ["mine.txt"]


def test_a_run_without_a_checkpoint_leaves_no_folder(tiny, tmp_path):
    with pytest.raises(UserError, match="holds no finished checkpoint"):
        export_run(tiny(), tmp_path / "export")
    assert list(tmp_path.iterdir()) == []
