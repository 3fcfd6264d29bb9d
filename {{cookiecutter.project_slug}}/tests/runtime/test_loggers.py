"""loggers.py: what wandb and MLflow are given and keep, and that nothing of theirs ends a training."""

import inspect
import json
import os
import re
import shutil
import sys
import threading
from dataclasses import replace
from importlib.util import find_spec
from types import SimpleNamespace
from unittest.mock import patch

import pytest
from canaries import mended

from {{cookiecutter.__package_name}}.contracts import names
from {{cookiecutter.__package_name}}.contracts.errors import UserError
from {{cookiecutter.__package_name}}.runtime import loggers

OURS = ("WANDB_", "MLFLOW_")


class Recorded:
    """Stands in for one of Lightning's loggers; a method of a name in `broken` fails."""

    def __init__(self, *broken, **given):
        self.broken, self.given, self.calls = broken, given, []
        self.run_id = given.get("run_id") or "its-own"
        self.experiment = SimpleNamespace(id="its-own")

    def _call(self, name, *arguments):
        self.calls.append((name, *arguments))
        if name in self.broken:
            raise OSError("the network\nis gone")

    log_metrics = lambda self, *arguments: self._call("log_metrics", *arguments)  # noqa: E731
    log_hyperparams = lambda self, *arguments: self._call("log_hyperparams", *arguments)  # noqa: E731
    finalize = lambda self, *arguments: self._call("finalize", *arguments)  # noqa: E731


@pytest.fixture
def alone(monkeypatch, tmp_path):
    """One rank, with a home of its own, that no variable of these tools is set for; all that is set goes again."""
    monkeypatch.setattr(loggers.torch.distributed, "get_rank", lambda *group, **named: 0)
    with patch.dict(os.environ, {"HOME": str(tmp_path / "home")}):
        for name in [name for name in os.environ if name.startswith(OURS)]:
            del os.environ[name]
        yield tmp_path / "run"


@pytest.fixture
def wandb(monkeypatch):
    """A wandb whose `init` answers what was put into `answers`, and keeps what it was asked."""
    errors = SimpleNamespace(**{name: type(name, (Exception,), {}) for name in ("UsageError", "CommError")})
    fake = SimpleNamespace(errors=errors, asked=[], answers=[], closed=[])

    def init(**given):
        fake.asked.append(given)
        sys.excepthook = sys.exit = print  # as it does
        if fake.answers:
            raise fake.answers.pop()
        kept = {"offline": given.get("mode") == "offline", "sync_dir": "/somewhere/offline-run-1"}
        return SimpleNamespace(id=given["id"] or "its-own", define_metric=lambda *names, **how: None, **kept)

    fake.init, fake.finish, fake.teardown = init, fake.closed.append, lambda: fake.closed.append("ended")
    monkeypatch.setitem(sys.modules, "wandb", fake)
    monkeypatch.setattr(loggers, "WandbLogger", Recorded)
    return fake


def test_a_tool_that_fails_is_given_up_and_told_once(capsys, tmp_path):
    broken, closed = Recorded("log_metrics"), []
    logger = loggers.Guarded("wandb", tmp_path, broken, closed.append)
    logger.log_hyperparams({"a": 1})
    for step in (1, 2):
        logger.log_metrics({"loss": 0.5}, step)
    logger.finalize("success")
    assert [name for name, *_ in broken.calls] == ["log_hyperparams", "log_metrics"] and closed == [False]
    [line] = capsys.readouterr().err.splitlines()
    assert line == "warning: wandb takes no more figures (the network is gone); metrics.csv has all of them"


def test_tensorboard_is_given_up_like_the_others(alone, monkeypatch, capsys):
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)  # is put back
    for is_there in (True, False):
        [logger] = loggers.open_loggers(("tensorboard",), alone, {}, 0)
        logger.log_metrics({"loss": 0.5}, 1)
        gone = alone / names.TENSORBOARD_FOLDER if is_there else alone
        gone.rename(alone.with_name(f"gone, {is_there=}"))  # at once, while a thread may write into it
        for thread in threading.enumerate():
            logger.log_metrics({"loss": 0.5}, 2)
            if type(thread).__module__.startswith("tensorboard."):
                thread.join(60)
        logger.finalize("failed")
        told = capsys.readouterr().err.splitlines()
        assert told == [line for line in told if is_there and "no more figures ([Errno 2] No such file" in line]
        assert len(told) == is_there


@pytest.mark.parametrize("content", ["[1,2]", "rubbish", "3"])
def test_what_says_which_run_it_is_there_must_be_readable(content, alone, wandb, capsys):
    alone.mkdir()
    (alone / names.LOGGERS_FILE).write_text(content)
    told = "loggers.json cannot be used (.*): restore it, or remove it to begin new runs"
    with pytest.raises(UserError, match=told.replace("(", r"\(").replace(")", r"\)")):
        loggers.open_loggers(("wandb",), alone, {}, 10)
    loggers.log_to_run(("tensorboard", "wandb"), alone, {"test_loss": 0.5}, 20)
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: wandb is not given the test figures (") and not wandb.asked


def test_a_tool_that_works_is_told_how_the_training_ended(tmp_path):
    works, closed = Recorded(), []
    logger = loggers.Guarded("wandb", tmp_path, works, closed.append)
    logger.finalize("failed")
    logger.finalize("failed")
    assert works.calls == [("finalize", "failed")] and closed == [False]


def test_wandb_begins_a_run_and_later_goes_on_with_it(alone, wandb):
    hooks = sys.excepthook, sys.exit
    for step in (0, 10):
        [logger] = loggers.open_loggers(("wandb",), alone, {"seed": 1}, step)
        assert logger.logger.calls == [("log_hyperparams", {"seed": 1})]
        logger.finalize("success")
    first, second = wandb.asked
    assert first["id"] is None and second["id"] == "its-own" and (alone / names.LOGGERS_FILE).exists()
    assert {first["name"], first["project"], first["dir"]} == {"run", loggers.PROJECT, alone}
    assert wandb.closed == [0, "ended"] * 2 and (sys.excepthook, sys.exit) == hooks


def test_what_the_environment_says_has_the_last_word(alone, wandb):
    os.environ |= {"WANDB_PROJECT": "mine", "WANDB_NAME": "tuesday", "WANDB_RUN_ID": "abc", "WANDB_SILENT": "false"}
    loggers.open_loggers(("wandb",), alone, {}, 0)
    [asked] = wandb.asked
    assert (asked["project"], asked["name"], asked["id"]) == ("mine", "tuesday", "abc")
    assert os.environ["WANDB_SILENT"] == "false" and os.environ["WANDB_CONSOLE"] == "off"


def test_without_a_key_nothing_starts_and_without_a_server_the_figures_stay_here(alone, wandb, capsys):
    wandb.answers.append(wandb.errors.UsageError("No API key configured."))
    with pytest.raises(UserError, match=r"^--loggers wandb: No API key configured\. Or set WANDB_MODE=offline"):
        loggers.open_loggers(("wandb",), alone, {}, 0)
    assert not (alone / names.LOGGERS_FILE).exists()
    wandb.answers.append(wandb.errors.CommError("timed out"))
    [logger] = loggers.open_loggers(("wandb",), alone, {}, 0)
    assert wandb.asked[-1]["mode"] == "offline"
    assert capsys.readouterr().err.startswith("warning: wandb cannot be reached (timed out): `wandb sync` can send ")
    (alone / "wandb" / "offline-run-1").mkdir(parents=True)
    logger.finalize("success")
    sends = f"wandb was offline: wandb sync {alone}/wandb/offline-run-1 sends what it has of this run\n"
    assert capsys.readouterr().err == sends
    wandb.answers.append(OSError("no such thing"))
    assert loggers.open_loggers(("wandb",), alone, {}, 0) == []
    assert capsys.readouterr().err.startswith("warning: wandb is left out (no such thing); ")


def test_only_the_first_rank_talks_to_servers(alone, wandb, monkeypatch):
    monkeypatch.setattr(loggers.torch.distributed, "get_rank", lambda: 1)
    assert loggers.open_loggers(("wandb", "mlflow"), alone, {}, 0) == [] and not wandb.asked


def test_the_figures_of_an_evaluation_go_only_where_the_run_is_known(alone, wandb, monkeypatch, capsys):
    given = []
    monkeypatch.setattr(Recorded, "log_metrics", lambda self, *arguments: given.append(arguments))
    loggers.log_to_run(("tensorboard", "wandb"), alone, {"test_loss": 0.5}, 20)
    assert given == [] and not wandb.asked
    loggers.open_loggers(("wandb",), alone, {}, 0)
    loggers.log_to_run(("tensorboard", "wandb"), alone, {"test_loss": 0.5}, 20)
    assert given == [({"test_loss": 0.5}, 20)] and wandb.closed == [0, "ended"]
    wandb.answers.append(wandb.errors.UsageError("No API key configured."))  # on another machine
    loggers.log_to_run(("wandb",), alone, {"test_loss": 0.5}, 20)
    monkeypatch.setitem(sys.modules, "wandb", None)
    loggers.log_to_run(("wandb",), alone, {"test_loss": 0.5}, 20)
    assert capsys.readouterr().err.count("warning: wandb is not given the test figures (") == 2 and len(given) == 1


def test_mlflow_keeps_a_database_in_the_run_unless_a_server_is_named(alone, monkeypatch):
    monkeypatch.setattr(loggers, "MLFlowLogger", Recorded)
    for is_first in (True, False):
        [logger] = loggers.open_loggers(("mlflow",), alone, {"seed": 1}, 10)
        assert bool(logger.logger.calls) is is_first  # later a setting that has changed would be refused
    given = logger.logger.given
    assert given["tracking_uri"] == f"sqlite:///{alone}/mlflow/mlflow.db" and given["run_id"] == "its-own"
    assert given["artifact_location"] == f"{alone}/mlflow/artifacts"
    os.environ["MLFLOW_TRACKING_URI"] = "http://server"
    [logger] = loggers.open_loggers(("mlflow",), alone, {}, 10)
    assert logger.logger.given["tracking_uri"] == "http://server" and logger.logger.given["artifact_location"] is None


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("tool", ["wandb", "mlflow"])
def test_a_tool_keeps_what_a_run_logs_in_its_folder_and_goes_on_there(tool, alone, tiny, train, pretrained, capfd):
    if find_spec(tool) is None:
        pytest.skip(f"{tool} is not installed")
    os.environ |= {"WANDB_MODE": "offline"}
    hooks, settings = (sys.excepthook, sys.exit), tiny(loggers=f"tensorboard,{tool}")
    assert train(settings).rows == pretrained.rows
    ids = (alone / names.LOGGERS_FILE).read_text()
    assert list(json.loads(ids)) == [tool]
    for path in (alone / names.CHECKPOINTS_FOLDER).glob(f"step={settings.training.max_steps}*"):
        shutil.rmtree(path)  # as if it had been killed on its way there
    assert train(replace(settings, resume=True)).rows == pretrained.rows
    assert (alone / names.LOGGERS_FILE).read_text() == ids
    kept = b"".join(path.read_bytes() for path in (alone / tool).rglob("*") if path.is_file())
    assert names.VAL_LOSS.encode() in kept and b"global_batch_size" in kept and json.loads(ids)[tool].encode() in kept
    assert not (alone.parent / "home").exists() and (sys.excepthook, sys.exit) == hooks
    told = [line for line in capfd.readouterr().err.splitlines() if tool in line.casefold()]
    pieces = [str(path) for path in (alone / "wandb").glob("offline-run-*")]
    sent = [re.fullmatch(r"wandb was offline: wandb sync (\S+) sends .*", line)[1] for line in told]
    assert sorted(sent) == sorted(pieces) and len(pieces) == (2 if tool == "wandb" else 0)


def test_canary_lightning_begins_a_run_of_wandb_with_anonymous():
    if "anonymous" not in inspect.signature(loggers.WandbLogger).parameters:
        mended("loggers._open_wandb")


def test_canary_lightning_keeps_runs_of_mlflow_in_files():
    if "sqlite" in inspect.getsource(inspect.getmodule(loggers.MLFlowLogger)):
        mended("the place in loggers._open_mlflow")
