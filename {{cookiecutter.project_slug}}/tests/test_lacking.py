"""What `model/` lacks or pairs wrongly is one line with its file's name, before anything is written."""

from dataclasses import dataclass, replace

import pytest
from conftest import TINY

from {{cookiecutter.__package_name}} import importing
from {{cookiecutter.__package_name}}.contracts import errors
from {{cookiecutter.__package_name}}.contracts.config import NetworkConfig
from {{cookiecutter.__package_name}}.contracts.loss import LossReduction
from {{cookiecutter.__package_name}}.contracts.names import METRICS_FILE, SETTINGS_FILE
from {{cookiecutter.__package_name}}.contracts.settings import ModelSettings as BaseModelSettings
from {{cookiecutter.__package_name}}.model import config, figures, settings
from {{cookiecutter.__package_name}}.model.settings import ModelSettings
from {{cookiecutter.__package_name}}.training import train
from {{cookiecutter.__package_name}}.training.run_settings import save_settings

NETWORK = config.NETWORKS[TINY.network]


class OfNoLoss(LossReduction):
    names = ("error",)

    def counted(self, output, batch):
        return ()


@pytest.fixture
def tiny_run(tmp_path, run_dir):
    """Words that train a tiny run in the folder of this test."""
    save_settings(TINY, tmp_path)
    return ["--config", tmp_path / SETTINGS_FILE, *run_dir]


@pytest.mark.parametrize("command", ["pretrain", "report"])
@pytest.mark.parametrize("name", ["ModelSettings", "Settings", "FINETUNE", "FROM_START", "LAYOUTS"])
def test_what_the_models_settings_lack_is_one_line(command, name, refused, monkeypatch):
    monkeypatch.delattr(settings, name)
    assert f"model/settings.py lacks {name}: contracts/settings.py says what it must give" in refused(command)


def test_a_file_that_the_model_lacks_is_one_line(refused, tmp_path, monkeypatch):
    monkeypatch.setattr(errors, "HOUSE", tmp_path / "house")
    (tmp_path / "house" / "model").mkdir(parents=True)
    for name in ("config.py", "figures.py"):
        (tmp_path / "house" / "model" / name).touch()
    assert "model/ lacks plain.py: results/export.py says what it must give" in refused("pretrain")


def test_no_model_at_all_is_one_line(refused, tmp_path, monkeypatch):
    monkeypatch.setattr(errors, "HOUSE", tmp_path)
    answer = refused("pretrain")
    assert f"there is no model/ in {tmp_path}: if the project was generated without its hooks, delete it" in answer


@pytest.mark.parametrize("name", ["SHARES", "pictures"])
def test_what_the_models_figures_lack_is_one_line(name, refused, tmp_path, monkeypatch):
    monkeypatch.delattr(figures, name)
    (tmp_path / METRICS_FILE).write_text("step,val_loss\n9,0.5\n")
    assert f"model/figures.py lacks {name}: drawing/theme.py says what" in refused("report", "--from", tmp_path)


@pytest.mark.parametrize("networks", [None, {}, {"another": NETWORK}], ids=str)
def test_a_network_that_networks_does_not_have_is_one_line(networks, refused, tiny_run, monkeypatch):
    if networks is None:
        monkeypatch.delattr(config, "NETWORKS")
        assert "model/config.py lacks NETWORKS: contracts/config.py says what" in refused("pretrain", *tiny_run)
    else:
        monkeypatch.setattr(config, "NETWORKS", networks)
        answer = refused("pretrain", *tiny_run)
        assert f"NETWORKS in model/config.py has no {TINY.network}, only {', '.join(networks)}: add it there" in answer


@pytest.mark.parametrize(
    ("part", "value", "answer"),
    [
        ("item_class", list, f"model/config.py: {NETWORK.__name__}.item_class must be a subclass of Item, and is"),
        ("stage_class", None, f"model/config.py: {NETWORK.__name__}.stage_class must be a subclass of PipelineStage"),
        ("read_test", NetworkConfig.read_test, f"model/config.py: {NETWORK.__name__} lacks read_test: say how"),
        ("loss_reduction_class", OfNoLoss, "model/losses.py: OfNoLoss.names is ('error',): begin with loss, which"),
    ],
)
def test_what_a_config_lacks_is_one_line(part, value, answer, refused, tiny_run, monkeypatch):
    monkeypatch.setattr(NETWORK, part, value)
    assert answer in refused("pretrain", *tiny_run)


@dataclass(frozen=True)
class Larger(ModelSettings):
    size_of_mine: int = 1


@pytest.mark.parametrize(
    ("sizes", "answer"),
    [
        (BaseModelSettings(), "model/settings.py: ModelSettings has no sequence_length: make it a field, or a"),
        (Larger(), f"model/config.py: {NETWORK.__name__} has no field size_of_mine: add it there"),
    ],
)
def test_sizes_that_do_not_fit_are_one_line(sizes, answer, refused, tiny_run, monkeypatch):
    real = train.train
    monkeypatch.setattr(train, "train", lambda given: real(replace(given, model=sizes)))
    assert answer in refused("pretrain", *tiny_run)


@pytest.mark.parametrize("tool", ["wandb", "mlflow"])
def test_a_tool_that_is_not_installed_is_one_line(tool, refused, tiny_run, monkeypatch):
    monkeypatch.setattr(importing, "find_spec", lambda name: None)
    answer = refused("pretrain", *tiny_run, "--loggers", f"tensorboard,{tool}")
    assert f"--loggers tensorboard,{tool} needs {tool}, which is not installed: pip install " in answer
