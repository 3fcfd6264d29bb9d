"""Resume: a run that was stopped, killed or damaged ends as the one that was left alone, to the last bit."""

import re
import shutil
from pathlib import Path

import in_ranks
import kills
import pytest
from conftest import TINY, change, needs_sequence_for, read_rows
from stand_ins import grown, renamed, shrunk

from {{cookiecutter.__package_name}}.contracts import names
from {{cookiecutter.__package_name}}.contracts.errors import UserError
from {{cookiecutter.__package_name}}.contracts.view import Section
from {{cookiecutter.__package_name}}.model.config import NETWORKS
from {{cookiecutter.__package_name}}.model.settings import LAYOUTS
from {{cookiecutter.__package_name}}.proof.differences import BOUNDS, compare
from {{cookiecutter.__package_name}}.proof.ranks import RanksFailed, run_ranks
from {{cookiecutter.__package_name}}.runtime.checkpoint import best_checkpoint, last_checkpoint
from {{cookiecutter.__package_name}}.runtime.seal import UNFINISHED
from {{cookiecutter.__package_name}}.training import train as training

pytestmark = pytest.mark.slow

# Dropout, so that random numbers matter; validation and checkpoints every five steps, two micro batches a step.
WITH_DROPOUT = change(
    TINY,
    network=LAYOUTS.network,
    resume=True,
    model={"num_layers": 4, "hidden_dropout": 0.1},
    training={"val_check_interval": 5, "micro_batch_size": 8, "lr": 1e-3},
)
WITHOUT_DROPOUT = change(WITH_DROPOUT, model={"hidden_dropout": 0.0})
SPLITS = {
    "one process": {"devices": 1},
    "data 2": {"devices": 2},
    "sequence 2": {"devices": 2, "tensor": 2, "sequence": True},
    "pipeline 2 x 2": {"devices": 2, "pipeline": 2, "virtual_pipeline": 2},
    "data 3": {"devices": 3},
}


def settings_of(name, run, settings=WITH_DROPOUT, **changes):
    batch = {"global_batch_size": 24 * 2, "micro_batch_size": 8} if name == "data 3" else {}
    settings = change(settings, run_dir=str(run), parallel=SPLITS[name], training=batch, **changes)
    needs_sequence_for(settings)
    return settings


def in_layout(target, settings, *arguments):
    logs = Path(f"{settings.run_dir}-logs")
    return run_ranks(target, settings, *arguments, processes=settings.parallel.devices, logs=logs)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Make the run that was left alone, once for each layout and settings."""
    made = {}

    def make(name, settings=WITH_DROPOUT):
        key = (name, settings.model.hidden_dropout)
        if key not in made:
            made[key] = tmp_path_factory.mktemp("whole") / "run"
            in_layout(in_ranks.train, settings_of(name, made[key], settings))
        return made[key]

    return make


@pytest.mark.parametrize(
    ("name", "step"),
    [*(("one process", step) for step in (1, 5, 13)), ("data 2", 7), ("sequence 2", 7), ("pipeline 2 x 2", 7)],
)
def test_a_run_stopped_at_any_step_and_resumed_ends_bit_for_bit_as_the_whole_one(name, step, whole, tmp_path):
    settings = settings_of(name, tmp_path / "run")
    assert in_layout(in_ranks.stop, settings, step)[0] == (step, True)
    assert read_rows(tmp_path / "run")[-1][names.STEP] == str(step)
    in_layout(in_ranks.train, settings)
    assert kills.equal(tmp_path / "run", whole(name))
    best = {path.name for path in (tmp_path / "run" / names.CHECKPOINTS_FOLDER).glob("*val_loss*")}
    assert best == {path.name for path in (whole(name) / names.CHECKPOINTS_FOLDER).glob("*val_loss*")}


@pytest.mark.parametrize(
    ("broken", "step"),
    [("random numbers forgotten", 7), ("position forgotten", 7), ("optimizer forgotten", 7), ("validated again", 5)],
)
def test_what_a_resume_forgets_is_noticed(broken, step, whole, tmp_path):
    settings = settings_of("one process", tmp_path / "run")
    in_layout(in_ranks.stop, settings, step)
    in_layout(in_ranks.train, settings, broken)
    assert not kills.equal(tmp_path / "run", whole("one process"))


@pytest.mark.parametrize("name", ["data 2", "sequence 2", "pipeline 2 x 2"])
def test_a_run_resumed_in_another_layout_ends_as_the_whole_one_but_for_rounding(name, whole, tmp_path):
    in_layout(in_ranks.stop, settings_of("one process", tmp_path / "run", WITHOUT_DROPOUT), 7)
    in_layout(in_ranks.stop, settings_of(name, tmp_path / "run", WITHOUT_DROPOUT), 12)
    in_layout(in_ranks.train, settings_of("one process", tmp_path / "run", WITHOUT_DROPOUT))
    found = compare(tmp_path / "run", whole("one process", WITHOUT_DROPOUT))
    assert found.within(BOUNDS["fp32"]), found


@pytest.mark.parametrize("batch", [16, 64])
def test_a_run_goes_on_with_another_global_batch_at_the_samples_that_come_next(batch, stopped, tmp_path):
    """Seven steps of 32 samples, then three of another number."""
    [order] = in_layout(in_ranks.samples, settings_of("one process", tmp_path / "whole"))
    settings = change(stopped, training={"global_batch_size": batch, "max_steps": 10, "val_check_interval": 4})
    [resumed] = in_layout(in_ranks.samples, settings)
    assert resumed == order[7 * 32 :][: 3 * batch]
    rows = read_rows(Path(stopped.run_dir))
    assert [row[names.STEP] for row in rows if row[names.TRAIN_LOSS]][-3:] == ["8", "9", "10"]
    assert [row[names.STEP] for row in rows if row[names.VAL_LOSS]] == ["5", "8", "10"]


def test_a_run_that_was_moved_goes_on_as_if_it_had_not_been(stopped, whole, tmp_path):
    """Its best checkpoint, of step 5, is known: it goes when a better one comes."""
    moved = shutil.move(stopped.run_dir, tmp_path / "moved")
    in_layout(in_ranks.train, change(stopped, run_dir=str(moved)))
    assert kills.equal(moved, whole("one process"))
    best = {path.name for path in (moved / names.CHECKPOINTS_FOLDER).glob("*val_loss*")}
    assert best == {path.name for path in (whole("one process") / names.CHECKPOINTS_FOLDER).glob("*val_loss*")}


class Altered:
    """A section of which the first item has other content: that of the second one."""

    def __init__(self, *section):
        self.section = Section(*section)

    def __len__(self):
        return len(self.section)

    def __getitem__(self, index):
        return self.section[index or 1]


@pytest.mark.parametrize(("other", "missing"), [(Section, 1), (Altered, 0)])
def test_a_run_is_not_resumed_with_other_data(other, missing, stopped, monkeypatch):
    before = {path: path.read_bytes() for path in Path(stopped.run_dir).rglob("*") if path.is_file()}
    config = NETWORKS[stopped.network]
    data, validation = config.read_training(stopped)
    others = other(data, 0, len(data) - missing), validation
    monkeypatch.setattr(config, "read_training", lambda settings: others)
    with pytest.raises(UserError, match="the training data are not those that the run began with"):
        training.train(stopped)
    assert {path: path.read_bytes() for path in Path(stopped.run_dir).rglob("*") if path.is_file()} == before


def test_a_checkpoint_of_another_run_is_refused_before_anything_is_written(stopped, tmp_path):
    other = change(stopped, run_dir=str(tmp_path / "other"), seed=5)
    in_layout(in_ranks.stop, other, 7)
    last = Path(stopped.run_dir) / names.CHECKPOINTS_FOLDER / "step=7-last"
    shutil.rmtree(last)
    shutil.copytree(Path(other.run_dir) / names.CHECKPOINTS_FOLDER / last.name, last)
    before = {path: path.read_bytes() for path in Path(stopped.run_dir).rglob("*") if path.is_file()}
    with pytest.raises(UserError, match=rf"not of the run in {stopped.run_dir}, .* has --seed 5, not {stopped.seed};"):
        training.train(stopped)
    assert {path: path.read_bytes() for path in Path(stopped.run_dir).rglob("*") if path.is_file()} == before


def test_a_run_whose_settings_are_lost_is_not_overwritten(stopped):
    (Path(stopped.run_dir) / names.SETTINGS_FILE).unlink()
    with pytest.raises(UserError, match=r"has checkpoints but no settings.yaml: restore it"):
        training.train(stopped)


@pytest.mark.parametrize(
    ("part", "made", "line"),
    [
        ("stage_class", grown, r"step=7.* \(extra is missing\). The network was another when it"),
        ("stage_class", shrunk, r"step=7.*bias has no place in it.*\). The network was another when it"),
        ("loss_reduction_class", renamed, r"val_other: restore model/losses\.py"),
    ],
)
def test_a_model_that_was_changed_meanwhile_is_refused_before_anything_is_written(
    part, made, line, stopped, monkeypatch
):
    config = NETWORKS[stopped.network]
    before = {path: path.read_bytes() for path in Path(stopped.run_dir).rglob("*") if path.is_file()}
    monkeypatch.setattr(config, part, made(getattr(config, part)))
    with pytest.raises(UserError, match=line):
        training.train(stopped)
    assert {path: path.read_bytes() for path in Path(stopped.run_dir).rglob("*") if path.is_file()} == before


def test_another_layout_is_told_to_draw_new_random_numbers(tmp_path):
    in_layout(in_ranks.stop, settings_of("data 2", tmp_path / "run"), 7)
    in_layout(in_ranks.train, settings_of("one process", tmp_path / "run"))
    assert "dropout goes on with new random numbers" in (tmp_path / "run-logs" / "rank0.log").read_text()


# --- damage


def flip_a_bit(path):
    flip_bits(path, 1)


def flip_bits(path, number):
    """Flip a bit in each of some bytes in the middle of a file."""
    content = bytearray(path.read_bytes())
    for place in range(len(content) // 2, len(content) // 2 + number):
        content[place] ^= 1
    path.write_bytes(content)


DAMAGE = {
    "a bit flipped": (flip_a_bit, "weights/__0_0.distcp has another checksum"),
    "cut off": (lambda path: path.write_bytes(path.read_bytes()[:-1]), "weights/__0_0.distcp has "),
    "lost": (Path.unlink, "weights/__0_0.distcp is missing"),
    "seal overwritten": (lambda path: (path.parents[1] / "files.json").write_text("junk"), "files.json cannot be read"),
}


@pytest.fixture
def stopped(whole, tmp_path):
    """A run with checkpoints of the steps 5 and 7."""
    settings = settings_of("one process", tmp_path / "run")
    in_layout(in_ranks.stop, settings, 7)
    return settings


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_checkpoint_is_told_and_the_one_before_is_used(damage, stopped, whole, capfd):
    run = Path(stopped.run_dir)
    do, words = DAMAGE[damage]
    do(run / names.CHECKPOINTS_FOLDER / "step=7-last" / "weights" / "__0_0.distcp")
    assert last_checkpoint(run / names.CHECKPOINTS_FOLDER).name == "step=5-last"
    [line] = capfd.readouterr().err.splitlines()
    assert re.search(rf"step=7-last is damaged \({words}.*\): looking for one before it$", line)
    in_layout(in_ranks.train, stopped)
    assert kills.equal(run, whole("one process"))
    assert {path.name for path in run.glob("checkpoints/*-last")} == {"step=15-last", "step=20-last"}


def test_after_going_back_nothing_of_the_damaged_steps_stays(stopped):
    """The best checkpoint of step 7 is damaged too, and no later validation is as good as it says."""
    folder = Path(stopped.run_dir) / names.CHECKPOINTS_FOLDER
    best = folder / "step=7-val_loss=0.000001"
    shutil.copytree(folder / "step=7-last", best)
    for checkpoint in (best, folder / "step=7-last"):
        flip_a_bit(checkpoint / "weights" / "__0_0.distcp")
    in_layout(in_ranks.train, stopped)
    assert not best.exists()
    assert best_checkpoint(folder).name.startswith("step=20-val_loss=")


def test_a_damaged_checkpoint_would_do_harm_if_it_were_not_noticed(stopped, whole):
    run = Path(stopped.run_dir)
    flip_bits(run / names.CHECKPOINTS_FOLDER / "step=7-last" / "weights" / "__0_0.distcp", 10_000)
    try:
        in_layout(in_ranks.train, stopped, "seal ignored")
    except RanksFailed:
        return  # torch noticed, in its own words
    assert not kills.equal(run, whole("one process"))


def test_if_every_checkpoint_is_damaged_the_run_does_not_silently_start_anew(stopped):
    folder = Path(stopped.run_dir) / names.CHECKPOINTS_FOLDER
    for checkpoint in folder.iterdir():
        flip_a_bit(checkpoint / "weights" / "common.pt")
    with pytest.raises(UserError, match=r"every checkpoint in .* is damaged: restore one, or train anew"):
        last_checkpoint(folder)


def test_a_checkpoint_that_was_never_finished_does_not_count(stopped):
    folder = Path(stopped.run_dir) / names.CHECKPOINTS_FOLDER
    (folder / "step=7-last" / "files.json").unlink()
    (folder / f"step=7-last{UNFINISHED}").touch()
    assert last_checkpoint(folder).name == "step=5-last"


# --- kill -9


def test_killed_at_random_moments_a_run_ends_bit_for_bit_as_the_undisturbed_one(tmp_path, capsys):
    assert kills.try_kills(kills=3, seed=1, folder=tmp_path)
    assert len(re.findall("^kill", capsys.readouterr().out, re.MULTILINE)) == 3


def test_a_run_that_ends_otherwise_would_be_noticed(whole, tmp_path):
    shutil.copytree(whole("one process"), tmp_path / "run")
    assert kills.equal(tmp_path / "run", whole("one process"))
    rows = (tmp_path / "run" / names.METRICS_FILE).read_text()
    loss = read_rows(tmp_path / "run")[-2][names.TRAIN_LOSS]
    (tmp_path / "run" / names.METRICS_FILE).write_text(rows.replace(loss, f"{loss}1"))
    assert not kills.equal(tmp_path / "run", whole("one process"))
    (tmp_path / "run" / names.METRICS_FILE).write_text(rows)
    in_layout(in_ranks.train, change(settings_of("one process", tmp_path / "other"), seed=2))
    shutil.copytree(tmp_path / "other" / "checkpoints", tmp_path / "run" / "checkpoints", dirs_exist_ok=True)
    assert not kills.equal(tmp_path / "run", whole("one process"))


def test_a_last_row_that_a_crash_cut_off_is_written_anew(stopped, whole):
    with (Path(stopped.run_dir) / names.METRICS_FILE).open("a") as file:
        file.write("8,0.1")
    in_layout(in_ranks.train, stopped)
    assert kills.equal(Path(stopped.run_dir), whole("one process"))
