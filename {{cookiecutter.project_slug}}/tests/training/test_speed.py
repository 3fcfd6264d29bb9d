"""speed.py: rates are what the clock says of training steps alone, and stand where every figure stands."""

import csv
import re
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from stand_ins import NumberConfig, NumberLoss
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from {{cookiecutter.__package_name}}.contracts import names
from {{cookiecutter.__package_name}}.contracts.errors import UserError
from {{cookiecutter.__package_name}}.model.config import NETWORKS
from {{cookiecutter.__package_name}}.training import speed as module
from {{cookiecutter.__package_name}}.training.speed import Speed, peak_memory, peak_of
from {{cookiecutter.__package_name}}.training.table import CsvLog, check_figures

BATCH, WORDS, FLOPS, PEAK = 16, 50, 1e6, 1e9


class FilledLoss(NumberLoss):
    names = ("loss", "fill")


@dataclass
class WordConfig(NumberConfig):
    """Items of words, of which a share is padding."""

    sequence_length: int = WORDS
    loss_reduction_class = FilledLoss
    pieces = "words"
    useful = "fill"

    def flops_per_item(self):
        return FLOPS


class Loop:
    """Stands in for a trainer, its module and a logger: steps of so many seconds, figures every other step."""

    def __init__(self, speed, monkeypatch, first=0):
        self.speed, self.now, self.logged = speed, 100.0, {}
        self.trainer = SimpleNamespace(
            global_step=first,
            log_every_n_steps=2,
            val_check_interval=5,
            max_steps=100,
            should_stop=False,
            loggers=[self],
        )
        self.module = SimpleNamespace(loss_reduction=speed.config.loss_reduction_class())
        monkeypatch.setattr(module.time, "perf_counter", lambda: self.now)
        speed.on_train_start(self.trainer, self.module)

    def log_metrics(self, figures, step):
        self.logged[step] = figures

    def steps(self, *seconds, fill=0.75):
        for duration in seconds:
            self.speed.on_train_batch_start(self.trainer, self.module, None, 0)
            self.now += duration
            self.trainer.global_step += 1
            totals = torch.tensor([[1.0, 1.0], [fill * 8, 8.0]])[: len(self.module.loss_reduction.names)]
            self.speed.on_train_batch_end(self.trainer, self.module, {"totals": totals}, None, 0)

    def rate(self, step, name=names.ITEMS_PER_SECOND):
        return self.logged[step][name]


def test_items_are_counted_over_the_time_since_the_last_figures(monkeypatch):
    loop = Loop(Speed(NumberConfig(), BATCH, None), monkeypatch)
    loop.steps(9.0, 9.0, 0.5, 1.5)
    assert list(loop.logged) == [4]  # 2 would be of the first two steps alone
    assert loop.rate(4) == 2 * BATCH / 2.0
    loop.steps(1.0)
    assert loop.speed.figures[names.ITEMS_PER_SECOND] == BATCH / 1.0  # for the line of the validation
    loop.steps(4.0)
    assert list(loop.logged) == [4, 6] and loop.rate(6) == BATCH / 4.0


def test_validations_and_checkpoints_are_left_out_and_everything_between_two_steps_is_not(monkeypatch):
    loop = Loop(Speed(NumberConfig(), BATCH, None), monkeypatch)
    loop.steps(1.0, 1.0, 1.0, 1.0, 1.0)
    loop.speed.on_validation_start(loop.trainer, loop.module)
    loop.now += 1000.0
    loop.steps(2.0)
    assert loop.rate(6) == BATCH / 2.0
    loop.now += 10.0
    loop.steps(1.0, 1.0)
    assert loop.rate(8) == 2 * BATCH / 12.0
    loop.speed.on_save_checkpoint(loop.trainer, loop.module, {})
    loop.now += 1000.0
    loop.steps(1.0, 1.0)
    assert loop.rate(10) == 2 * BATCH / 2.0


def test_a_resumed_run_leaves_out_its_own_first_steps(monkeypatch):
    loop = Loop(Speed(NumberConfig(), BATCH, None), monkeypatch, first=20)
    loop.steps(9.0, 9.0, 1.0, 1.0)
    assert list(loop.logged) == [24] and loop.rate(24) == BATCH


def test_pieces_and_those_that_are_no_padding_are_counted_too(monkeypatch):
    loop = Loop(Speed(WordConfig(), BATCH, None), monkeypatch)
    loop.steps(1.0, 1.0, 1.0, 1.0, fill=0.25)
    assert loop.rate(4, "words_per_second") == BATCH * WORDS
    assert loop.rate(4, "useful_words_per_second") == BATCH * WORDS / 4
    assert loop.speed.words.startswith(f"1.0 steps/s  {BATCH * WORDS / 4:,.1f} useful words/s  ")


def test_the_share_of_the_peak_is_there_where_both_are_known(monkeypatch):
    loop = Loop(Speed(WordConfig(), BATCH, PEAK), monkeypatch)
    loop.steps(1.0, 1.0, 1.0, 1.0)
    assert loop.rate(4, names.MFU) == pytest.approx(BATCH * FLOPS / PEAK)
    assert "MFU 1.6%" in loop.speed.words
    for speed in (Speed(WordConfig(), BATCH, None), Speed(NumberConfig(), BATCH, PEAK)):
        assert names.MFU not in speed.metric_names


def test_what_is_logged_is_what_the_columns_say(monkeypatch):
    for config in (NumberConfig(), WordConfig()):
        loop = Loop(Speed(config, BATCH, PEAK), monkeypatch)
        assert loop.speed.words == ""
        loop.steps(1.0, 1.0, 1.0, 1.0)
        assert tuple(loop.logged[4]) == loop.speed.metric_names
        assert all(map(names.is_measured, loop.logged[4]))


@pytest.mark.parametrize(
    ("device", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA H100 NVL", 835e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA H200", 989e12),
        ("NVIDIA GB200", 2500e12),
        ("NVIDIA B200", 2250e12),
        ("NVIDIA A100-SXM4-40GB MIG 3g.20gb", None),
        ("AMD Instinct MI300X", None),
    ],
)
def test_the_peak_is_that_of_the_device_without_sparsity(device, peak, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: device)
    assert peak_of("gpu", "bf16") == peak
    assert peak is None or peak_of("gpu", "fp32") < peak / 3
    assert peak_of("cpu", "bf16") is None


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux says it in another way too")
def test_memory_is_the_most_that_the_process_has_held():
    status = Path("/proc/self/status").read_text()
    kilobytes = int(re.search(r"VmHWM:\s+(\d+) kB", status)[1])
    assert peak_memory() == pytest.approx(kilobytes / 2**20, rel=0.01)


def test_a_run_that_goes_on_on_another_device_keeps_its_rows_and_what_was_measured(tmp_path):
    path = tmp_path / names.METRICS_FILE
    first = CsvLog(path, ("loss", "mfu"))
    for step in (1, 2, 3):
        first.log_metrics({"loss": 0.1 * step, "mfu": 0.5}, step)
    with path.open("a") as file:
        file.write("4,0.")  # cut off by a crash
    second = CsvLog(path, ("loss", "items_per_second"))
    second.cut(2)
    second.log_metrics({"loss": 0.25, "items_per_second": 7.0}, 3)
    rows = "1,0.1,,0.5\n2,0.2,,0.5\n3,0.25,7.0,\n"
    assert path.read_text() == f"step,loss,items_per_second,mfu\n{rows}"
    check_figures(path, ("loss",))


@pytest.mark.parametrize(
    ("figures", "differ"),
    [(("loss", "accuracy"), "accuracy, small"), (("other",), "loss, other, small"), ((), "loss, small")],
)
def test_a_run_does_not_go_on_with_a_loss_of_other_figures(figures, differ, tmp_path):
    path = tmp_path / names.METRICS_FILE
    check_figures(path, figures)
    CsvLog(path, ("loss", "small", "mfu")).log_metrics({"loss": 0.1}, 1)
    with pytest.raises(UserError, match=rf"metrics.csv and .* differ in {differ}: restore model/losses\.py, or begin"):
        check_figures(path, figures)


@pytest.mark.slow
def test_speeds_stand_in_the_table_and_on_the_board_from_the_third_step_on(pretrained):
    with (pretrained.folder / names.METRICS_FILE).open(newline="") as file:
        rows = list(csv.DictReader(file))
    config = NETWORKS[pretrained.settings.network]
    measured = [name for name in rows[0] if names.is_measured(name)]
    pieces = [f"{config.pieces}_per_second"] if config.pieces else []
    assert set(measured) >= {names.ITEMS_PER_SECOND, names.MEMORY, *pieces} and names.MFU not in measured
    board = EventAccumulator(str(pretrained.folder / names.TENSORBOARD_FOLDER)).Reload()
    for name in measured:
        logged = {int(row[names.STEP]): float(row[name]) for row in rows if row[name]}
        assert list(logged) == list(range(3, 21)) and min(logged.values()) > 0
        assert {event.step: pytest.approx(event.value) for event in board.Scalars(name)} == logged


@pytest.mark.slow
def test_a_line_of_a_validation_ends_with_them(tiny, train, capfd):
    train(tiny(training={"max_steps": 4, "val_check_interval": 2}))
    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("step ")]
    assert len(lines) == 2 and "/s" not in lines[0]
    assert lines[1].endswith(" GiB") and lines[1].count("/s  ") == 2
