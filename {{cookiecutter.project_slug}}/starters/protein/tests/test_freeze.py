"""A frozen trunk: only the head learns, in every layout, also where a pipeline stage has nothing to learn."""

import shutil
from pathlib import Path

import in_ranks
import kills
import pytest
import torch
from conftest import TINY, change
from nemo.utils.model_utils import unwrap_model

from {{cookiecutter.__package_name}}.contracts.names import GRAD_NORM
from {{cookiecutter.__package_name}}.model.settings import FINETUNE
from {{cookiecutter.__package_name}}.proof.differences import BOUNDS, WEIGHTS, compare, saved_tensors
from {{cookiecutter.__package_name}}.proof.ranks import run_ranks
from {{cookiecutter.__package_name}}.training import train as training

pytestmark = pytest.mark.slow

LAYOUTS = {
    "data 2": {"devices": 2},
    "tensor 2, sequence": {"devices": 2, "tensor": 2, "sequence": True},
    "pipeline 2": {"devices": 2, "pipeline": 2},
    "pipeline 2 x 2": {"devices": 2, "pipeline": 2, "virtual_pipeline": 2},
}


@pytest.fixture(scope="module")
def trunk(train, tmp_path_factory):
    """A pretrained run with as many layers as the layouts want. Read only."""
    run = str(tmp_path_factory.mktemp("trunk") / "run")
    steps = {"max_steps": 2, "val_check_interval": 2, "warmup_steps": 1}
    return train(change(TINY, run_dir=run, model={"num_layers": 4}, training=steps))


@pytest.fixture(scope="module")
def frozen_in(trunk, tmp_path_factory):
    """Make settings of a finetuning of four steps with a frozen trunk, in a folder of this module."""
    folder = tmp_path_factory.mktemp("frozen")
    steps = {"max_steps": 4, "val_check_interval": 2, "warmup_steps": 1, "micro_batch_size": 8}
    start = {"network": FINETUNE.network, "new_heads": FINETUNE.new_heads, "from_run": str(trunk.folder)}
    model = {"num_layers": 4, "freeze": "trunk"}
    return lambda run: change(TINY, run_dir=str(folder / run), resume=True, model=model, training=steps, **start)


@pytest.fixture
def frozen(frozen_in, tmp_path):
    """Make such settings with changes, in a folder of this test."""

    def make(run, **changes):
        groups = {name: changes.pop(name) for name in ("model", "training", "resume") if name in changes}
        return change(frozen_in(run), run_dir=str(tmp_path / run), parallel=changes, **groups)

    return make


def in_layout(target, settings, *arguments):
    logs = Path(f"{settings.run_dir}-logs")
    return run_ranks(target, settings, *arguments, processes=settings.parallel.devices, logs=logs)


@pytest.fixture(scope="module")
def start(trunk):
    """The weights that it starts from, by name."""
    return saved_tensors(trunk.folder, f"{WEIGHTS}trunk.")


def assert_only_the_head_has_learned(run, start):
    """Each weight of the trunk is that of the start to the last bit, and the optimizer knows of the head alone."""
    saved = saved_tensors(run)
    assert len(start) > 10 and all(torch.equal(saved[name], weight) for name, weight in start.items())
    moments = {name: value for name, value in saved.items() if "exp_avg." in name}
    assert moments and all(".head." in name and value.any() for name, value in moments.items())


@pytest.fixture(scope="module")
def alone(frozen_in, start):
    """A run of one process, to its last step."""
    run = frozen_in("alone").run_dir
    in_layout(in_ranks.train, frozen_in("alone"))
    return Path(run)


def test_one_process_trains_the_head_only(alone, start):
    assert_only_the_head_has_learned(alone, start)


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_trains_the_head_only_and_to_the_same_end(name, frozen, alone, start, tmp_path):
    in_layout(in_ranks.train, frozen("run", **LAYOUTS[name]))
    assert_only_the_head_has_learned(tmp_path / "run", start)
    found = compare(tmp_path / "run", alone)
    assert found.within(BOUNDS["fp32"]), found


def test_a_run_stopped_with_an_idle_stage_ends_as_the_whole_one_there_and_in_one_process(frozen, alone, tmp_path):
    split = LAYOUTS["pipeline 2"]
    in_layout(in_ranks.train, frozen("whole", **split))
    assert in_layout(in_ranks.stop, frozen("stopped", **split), 3)[0] == (3, True)
    shutil.copytree(tmp_path / "stopped", tmp_path / "moved")
    in_layout(in_ranks.train, frozen("stopped", **split))
    assert kills.equal(tmp_path / "stopped", tmp_path / "whole")
    in_layout(in_ranks.train, frozen("moved"))
    found = compare(tmp_path / "moved", alone)
    assert found.within(BOUNDS["fp32"]), found


@pytest.mark.parametrize("recompute", ["none", "full"])
def test_the_gradient_norm_is_that_of_the_head(recompute, frozen, train, monkeypatch):
    norms = []
    original = training.Progress.on_train_batch_end

    def watched(self, trainer, pl_module, *arguments):
        weights = dict(unwrap_model(pl_module).named_parameters())
        learning = {name for name, weight in weights.items() if weight.requires_grad}
        assert learning == {name for name, weight in weights.items() if hasattr(weight, "main_grad")}
        assert learning == {name for name in weights if name.startswith("head.")}
        assert all(weight.grad is None for weight in weights.values())
        norms.append(float(torch.stack([weights[name].main_grad.norm() for name in learning]).norm()))
        original(self, trainer, pl_module, *arguments)

    monkeypatch.setattr(training.Progress, "on_train_batch_end", watched)
    settings = frozen("run", resume=False, model={"recompute": recompute}, training={"clip_grad": 0.0})
    trained = train(settings)
    logged = [float(row[GRAD_NORM]) for row in trained.rows if row[GRAD_NORM]]
    assert len(norms) == 4 and logged == pytest.approx(norms, rel=1e-5)


def test_pretraining_has_nothing_to_freeze(refused, run_dir):
    line = refused("pretrain", *run_dir, "--model.freeze", "trunk")
    assert "--model.freeze trunk is for finetuning: masked trains the whole network, set it to none" in line
