"""Exports: the same network outside, where there is neither Megatron nor NeMo, Lightning or this package."""

import json
import os
import shutil
import subprocess
import venv
from importlib import metadata
from pathlib import Path
from typing import Annotated

import pytest
import torch
import torch.nn.functional as F
from conftest import ENVIRONMENT, PACKAGE, TINY, change
from packaging.requirements import Requirement
from safetensors.torch import load_file, save_file

from {{cookiecutter.__package_name}} import cli, export, export_example, names
from {{cookiecutter.__package_name}}.config import NETWORKS
from {{cookiecutter.__package_name}}.data import datamodule
from {{cookiecutter.__package_name}}.data.dataset import EmbeddedMNIST
from {{cookiecutter.__package_name}}.data.item import INPUT_RANGE, INPUT_SHAPE, MnistItem
from {{cookiecutter.__package_name}}.errors import UserError
from {{cookiecutter.__package_name}}.export import EXAMPLE_FILE, MODEL_FILE, WEIGHTS_FILE, export_run
from {{cookiecutter.__package_name}}.model import Stage
from {{cookiecutter.__package_name}}.proof.layouts import train_in_ranks
from {{cookiecutter.__package_name}}.runtime.checkpoint import best_checkpoint
from {{cookiecutter.__package_name}}.settings import ModelSettings, ParallelSettings, Settings
from {{cookiecutter.__package_name}}.training import DTYPES, make_module

FILES = {WEIGHTS_FILE, MODEL_FILE, EXAMPLE_FILE}
# Of the largest output, if that is above 1. Seen: 0 where the same kernels are used, else up to 1.1e-6; in bf16 0.034,
# since Megatron's layers round before they add the bias and torch's only after it.
TOLERANCE = {"fp32": 1e-5, "bf16": 0.1}
COMPUTE = """
import sys, torch
from load import load
with torch.no_grad():
    torch.save(load()(torch.load(sys.argv[1])), sys.argv[2])
"""
IMPORT = """
import importlib, sys, torch
for name in sys.argv[1:]:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        print(error)
"""


def needed(requirement: Requirement, found: set[str]) -> set[str]:
    """Return the installed distributions that one needs, itself among them."""
    if str(requirement) not in found:
        found.add(str(requirement))
        for child in map(Requirement, metadata.requires(requirement.name) or []):
            extras = ("", *requirement.extras)
            if child.marker is None or any(child.marker.evaluate({"extra": extra}) for extra in extras):
                child.marker = None
                needed(child, found)
    return {Requirement(line).name for line in found}


@pytest.fixture(scope="module")
def outside(tmp_path_factory):
    """Run an export in an environment that has torch, safetensors, what those need, and nothing else."""
    folder = tmp_path_factory.mktemp("outside")
    venv.create(folder, symlinks=True)
    [site] = folder.glob("lib/python3*/site-packages")
    found: set[str] = set()
    for name in needed(Requirement("torch"), found) | needed(Requirement("safetensors"), found):
        distribution = metadata.distribution(name)
        for top in {file.parts[0] for file in distribution.files} - {"..", "__pycache__"}:
            if not (site / top).exists():  # several distributions share the folder `nvidia`
                (site / top).symlink_to(distribution.locate_file(top))

    def run(cwd, *words):
        python = folder / "bin" / "python"
        clean = {name: value for name, value in ENVIRONMENT.items() if not name.startswith("PYTHON")}
        return subprocess.run([python, *words], cwd=cwd, env=clean, capture_output=True, text=True, timeout=120)

    return run


def compute(outside, folder: Path, images: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return what an export computes, outside."""
    torch.save(images, folder.parent / "images.pt")
    answer = outside(folder, "-c", COMPUTE, folder.parent / "images.pt", folder.parent / "outputs.pt")
    assert answer.returncode == 0, answer.stderr
    return torch.load(folder.parent / "outputs.pt")


@pytest.fixture(scope="module")
def digits():
    """Real test digits."""
    return EmbeddedMNIST(train=False).__getitems__(list(range(64)))


OTHER_SIZES = {"num_layers": 4, "hidden_size": 24, "ffn_hidden_size": 40, "latent_size": 12}
SPLIT = ParallelSettings(devices=4, tensor=2, pipeline=2)
CASES = {
    "autoencoder": {},
    "classifier": {},
    "autoencoder_classifier": {"network": "autoencoder_classifier", "model": OTHER_SIZES},
    "bf16": {"network": "autoencoder_classifier", "training": {"precision": "bf16"}},
    "split": {"network": "classifier", "parallel": SPLIT, "training": {"micro_batch_size": 16}},
}


@pytest.fixture(scope="module", params=CASES)
def settings(request, train, pretrained, finetuned, tmp_path_factory) -> Settings:
    """Settings of a run: of each network, in other sizes, another precision, and in four processes."""
    if not CASES[request.param]:
        return {"autoencoder": pretrained, "classifier": finetuned}[request.param].settings
    run = tmp_path_factory.mktemp(request.param) / "run"
    settings = change(change(TINY, run_dir=str(run), training={"max_steps": 10}), **CASES[request.param])
    if settings.parallel.devices > 1:
        train_in_ranks(settings)
    else:
        train(settings)
    return settings


@pytest.fixture(scope="module")
def exported(settings, tmp_path_factory) -> Path:
    """Where that run is exported to. Read only."""
    return export_run(settings, tmp_path_factory.mktemp("exported") / "export")


@pytest.fixture
def stage(settings, exported, megatron):
    """Build the project's own network with the run's best weights, in one process."""
    best = best_checkpoint(Path(settings.run_dir) / names.CHECKPOINTS_FOLDER)
    config = make_module(settings, best, same_network=True).config
    config.params_dtype = DTYPES[settings.training.precision]
    return config.configure_model().eval()


def test_every_network_is_exported_here():
    assert {case.get("network", name) for name, case in CASES.items()} == set(NETWORKS)


@pytest.mark.slow
def test_outside_there_is_nothing_of_ours(outside, tmp_path):
    hidden = ("megatron", "nemo", "lightning", "pytorch_lightning", PACKAGE)
    answer = outside(tmp_path, "-c", IMPORT, *hidden)
    assert answer.stdout.splitlines() == [f"No module named '{name}'" for name in hidden], answer.stderr


@pytest.mark.slow
def test_outside_the_network_computes_what_it_does_inside(settings, exported, stage, outside, digits):
    with torch.no_grad():
        expected = stage(digits)
    found = compute(outside, exported, digits["data"])
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        scale = value.abs().max().clamp(min=1)
        tolerance = TOLERANCE[settings.training.precision]
        torch.testing.assert_close(found[name] / scale, value / scale, rtol=0, atol=tolerance, msg=name)
        assert value.std(dim=0).max() > 0, f"{name} is the same for all digits"


@pytest.mark.slow
def test_the_weights_are_all_there_as_they_were_trained(settings, exported, stage):
    weights, expected = load_file(exported / WEIGHTS_FILE), dict(stage.named_parameters())
    assert weights.keys() == expected.keys()
    for name, weight in weights.items():
        assert weight.dtype == DTYPES[settings.training.precision]
        assert torch.equal(weight, expected[name]), name


@pytest.mark.slow
def test_the_description_says_what_goes_in_and_out(settings, exported, stage, digits):
    model = json.loads((exported / MODEL_FILE).read_text())
    assert (model["network"], ModelSettings(**model["sizes"])) == (settings.network, settings.model)
    shape = list(digits["data"].shape[1:])
    assert model["inputs"] == {"data": {"shape": shape, "dtype": "float32", "range": INPUT_RANGE}}
    assert model["outputs"] == {name: list(value.shape[1:]) for name, value in stage(digits).items()}
    assert f"torch.{model['dtype']}" == str(DTYPES[settings.training.precision])
    best = best_checkpoint(Path(settings.run_dir) / names.CHECKPOINTS_FOLDER).name
    assert best == f"step={model['step']}-{names.VAL_LOSS}={model[names.VAL_LOSS]:.6f}"
    assert model["versions"]["torch"] == metadata.version("torch")


@pytest.fixture
def own(pretrained, tmp_path) -> Path:
    """Export the pretrained run into a folder of this test."""
    return export_run(pretrained.settings, tmp_path / "export")


@pytest.mark.slow
def test_the_example_runs_by_itself(own, outside):
    answer = outside(own.parent, own / EXAMPLE_FILE)
    assert answer.stdout.splitlines() == ["latent (2, 8)", "reconstruction (2, 1, 28, 28)"], answer.stderr


@pytest.mark.slow
def test_an_example_that_is_another_network_would_be_noticed(own, outside, digits):
    right = compute(outside, own, digits["data"])
    example = own / EXAMPLE_FILE
    example.write_text(example.read_text().replace("nn.GELU()", "nn.SiLU()"))
    wrong = compute(outside, own, digits["data"])
    assert (right["latent"] - wrong["latent"]).abs().max() > 100 * TOLERANCE["fp32"]


@pytest.mark.slow
@pytest.mark.parametrize("other", [torch.nn.SiLU, None])
def test_an_example_that_is_another_network_is_left_out_in_words(other, own, pretrained, monkeypatch, capsys):
    monkeypatch.setattr(export_example.nn, "GELU", other)
    export_run(pretrained.settings, own)
    assert {path.name for path in own.iterdir()} == FILES - {EXAMPLE_FILE}
    problem = "its latent differs by" if other else "TypeError: "
    assert f"no load.py: export_example.py is not the network of model.py ({problem}" in capsys.readouterr().err


class OtherItems(EmbeddedMNIST):
    """Digits of another kind: their inks as integers, and how strong each is besides."""

    def __getitems__(self, indices):
        batch = super().__getitems__(indices)
        return {**batch, "data": batch["data"].mul(255).round().long(), "gain": 1 + batch["idx"].float()}


DESCRIBED = {
    "data": {"shape": list(INPUT_SHAPE), "dtype": "int64", "range": INPUT_RANGE},
    "gain": {"shape": [], "dtype": "float32", "range": None},
}


@pytest.fixture(params=[["data"], ["data", "gain"]], ids=["integers", "two inputs"])
def other_inputs(request, monkeypatch) -> list[str]:
    """What the network reads of such digits, as if the run had been trained on them; the example knows nothing."""
    monkeypatch.setitem(MnistItem.__annotations__, "data", Annotated[torch.Tensor, "int64", INPUT_SHAPE])
    monkeypatch.setitem(MnistItem.__annotations__, "gain", Annotated[torch.Tensor, "float32", ()])
    monkeypatch.setattr(datamodule, "read", lambda settings, train: OtherItems(train))
    forward = Stage.forward

    def read_and_forward(stage, batch):
        data = F.one_hot(batch["data"], 256).argmax(-1) / 255
        for key in request.param[1:]:
            data = data * batch[key][:, None, None, None]
        return forward(stage, {"data": data})

    monkeypatch.setattr(Stage, "forward", read_and_forward)
    return request.param


@pytest.mark.slow
def test_a_network_with_other_inputs_is_exported_without_the_example(other_inputs, pretrained, tmp_path, capsys):
    folder = export_run(pretrained.settings, tmp_path / "export")
    assert {path.name for path in folder.iterdir()} == FILES - {EXAMPLE_FILE}
    model = json.loads((folder / MODEL_FILE).read_text())
    assert model["inputs"] == {name: DESCRIBED[name] for name in other_inputs}
    assert model["outputs"] == {"latent": [8], "reconstruction": list(INPUT_SHAPE)}
    told = capsys.readouterr().err
    assert "no load.py: export_example.py is not the network of model.py (" in told
    assert ("argument 'gain'" if "gain" in other_inputs else "its latent differs by") in told


@pytest.mark.slow
def test_an_example_that_takes_the_other_inputs_too_is_exported(other_inputs, pretrained, tmp_path, monkeypatch):
    forward = export_example.Network.forward
    scaled = {
        1: lambda network, data: forward(network, data / 255),
        2: lambda network, gain, data: forward(network, data / 255 * gain[:, None, None, None]),
    }
    monkeypatch.setattr(export_example.Network, "forward", scaled[len(other_inputs)])
    folder = export_run(pretrained.settings, tmp_path / "export")
    assert {path.name for path in folder.iterdir()} == FILES


@pytest.mark.slow
def test_a_network_that_cannot_be_tried_is_exported_in_words(pretrained, own, tmp_path, capsys):
    away = change(pretrained.settings, data={"dataset": "full", "root": str(tmp_path / "nowhere")})
    folder = export_run(away, tmp_path / "away")
    assert {path.name for path in folder.iterdir()} == FILES - {EXAMPLE_FILE}
    assert (folder / WEIGHTS_FILE).read_bytes() == (own / WEIGHTS_FILE).read_bytes()
    known = {**json.loads((own / MODEL_FILE).read_text()), "inputs": None, "outputs": None}
    assert json.loads((folder / MODEL_FILE).read_text()) == known
    told = capsys.readouterr().err
    assert "no load.py: the network cannot be tried on test items (DataError: " in told
    assert "nowhere/MNIST/raw is missing" in told


@pytest.mark.slow
def test_a_weight_with_two_names_is_exported_under_both(pretrained, tmp_path, monkeypatch):
    plain, latent = Stage.state_dict, "trunk.latent.weight"
    monkeypatch.setattr(Stage, "state_dict", lambda stage: {**plain(stage), "tied": plain(stage)[latent]})
    weights = load_file(export_run(pretrained.settings, tmp_path / "export") / WEIGHTS_FILE)
    assert torch.equal(weights["tied"], weights[latent])


@pytest.mark.slow
def test_the_example_takes_exactly_its_weights(own, outside):
    weights = load_file(own / WEIGHTS_FILE)
    weights["trunk.latent.other"] = weights.pop("trunk.latent.bias")
    save_file(weights, own / WEIGHTS_FILE)
    answer = outside(own, EXAMPLE_FILE)
    assert answer.returncode != 0
    assert 'Missing key(s) in state_dict: "trunk.latent.bias"' in answer.stderr
    assert 'Unexpected key(s) in state_dict: "trunk.latent.other"' in answer.stderr


@pytest.mark.slow
def test_the_command_exports_into_the_run_and_again_over_it(pretrained, tmp_path, capsys):
    run = shutil.copytree(pretrained.folder, tmp_path / "run")  # a run may have been moved
    folder = run / names.EXPORT_FOLDER
    assert cli.main(["export", "--from", str(run)]) == 0
    assert capsys.readouterr().out == f"wrote {folder}\n"
    assert {path.name for path in folder.iterdir()} == FILES
    modes = {path.stat().st_mode for path in (*folder.iterdir(), run / names.SETTINGS_FILE)}
    assert len(modes) == 1, "who may read the run may read the export"
    before = {name: (folder / name).read_bytes() for name in FILES}
    (folder / "__pycache__").mkdir()  # as `from load import load` leaves it
    (folder / MODEL_FILE).unlink()
    assert cli.main(["export", "--from", str(run)]) == 0
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.slow
def test_a_crash_leaves_the_old_export_whole(own, pretrained, monkeypatch):
    (own / MODEL_FILE).write_text("old")
    monkeypatch.setattr(export.shutil, "copyfile", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        export_run(pretrained.settings, own)
    assert {path.name for path in own.iterdir()} == FILES
    assert (own / MODEL_FILE).read_text() == "old"
    assert list(own.parent.iterdir()) == [own]


@pytest.mark.parametrize(
    ("output", "answer"),
    [
        ("full", "full holds mine.txt, which is of no export: name a new or an empty folder"),
        ("full/mine.txt", "mine.txt is a file: name a folder"),
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
