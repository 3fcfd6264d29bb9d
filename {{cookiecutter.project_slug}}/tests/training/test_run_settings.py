"""The settings of a run that exists: a file gives back what was saved, and a resume keeps what makes the run."""

import pytest
from conftest import PACKAGE, change

from {{cookiecutter.__package_name}}.cli import PROG
from {{cookiecutter.__package_name}}.contracts.errors import UserError
from {{cookiecutter.__package_name}}.contracts.names import SETTINGS_FILE
from {{cookiecutter.__package_name}}.model.settings import FINETUNE, Settings
from {{cookiecutter.__package_name}}.training.run_settings import (
    check_command,
    check_same_run,
    check_same_sizes,
    load_settings,
    other_heads,
    save_settings,
)


def test_saved_settings_come_back_equal(tmp_path):
    settings = change(
        Settings(),
        run_dir="elsewhere",
        from_run="start",
        new_heads=("one", "two.three"),
        data={"num_workers": 2},
        model={"hidden_dropout": 0.1},
        training={"lr": 3e-7, "min_lr": 1e-7, "micro_batch_size": 64, "precision": "bf16"},
        parallel={"devices": 4, "tensor": 2, "sequence": True},
    )
    save_settings(settings, tmp_path)
    assert load_settings(tmp_path) == settings


def test_the_command_that_began_a_run_stays(tmp_path, monkeypatch):
    for words in (["pretrain", "--seed", "7"], ["pretrain", "--resume", "true"]):
        monkeypatch.setattr("sys.argv", [f"/bin/{PROG}", *words])
        save_settings(Settings(), tmp_path)
        assert (tmp_path / SETTINGS_FILE).read_text().startswith(f"# {PROG} pretrain --seed 7\n")


@pytest.mark.parametrize(
    ("program", "run", "head"),
    [
        (f"/bin/{PROG}", "a b", f"# {PROG} pretrain --run_dir 'a b'\n"),
        (f"/src/{PACKAGE}/__main__.py", "a", f"# {PROG} pretrain --run_dir a\n"),
        (f"/bin/{PROG}", "a\nb", "run_dir: "),
        ("sweep.py", "a", "run_dir: "),
    ],
)
def test_the_command_stands_above_the_settings_if_it_is_ours_and_fits_a_line(program, run, head, tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", [program, "pretrain", "--run_dir", run])
    save_settings(Settings(), tmp_path)
    assert (tmp_path / SETTINGS_FILE).read_text().startswith(head)
    assert load_settings(tmp_path) == Settings()


def test_a_folder_without_a_run_is_named(tmp_path):
    with pytest.raises(UserError, match="holds no run") as caught:
        load_settings(tmp_path / "nowhere")
    assert str(tmp_path / "nowhere") in str(caught.value)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("sede: 3\n", "there is no setting sede"),
        ("data:\n  num_wokers: 2\n", "there is no setting num_wokers"),
        ("a: [1\n", "while parsing"),
        ("", "got None"),
        ("seed: 3\ntraining:\n  max_steps: 1", "its last line has no end"),
        ("just words\n", "got 'just words'"),
        ("data: all\n", "got 'all'"),
    ],
)
def test_settings_that_cannot_be_read_are_one_line_with_file_and_reason(tmp_path, text, reason):
    (tmp_path / SETTINGS_FILE).write_text(text)
    with pytest.raises(UserError, match=reason) as caught:
        load_settings(tmp_path)
    assert str(tmp_path / SETTINGS_FILE) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_number_that_yaml_takes_for_a_word_is_one(tmp_path):
    (tmp_path / SETTINGS_FILE).write_text("training:\n  lr: 1e-3\n")
    assert load_settings(tmp_path).training.lr == 0.001


def test_what_is_no_file_is_one_line(tmp_path):
    (tmp_path / SETTINGS_FILE).mkdir()
    with pytest.raises(UserError, match=r"settings\.yaml cannot be read"):
        load_settings(tmp_path)


SAVED = change(
    Settings(), seed=1234, data={"resampling": "epochs"}, model={"num_layers": 4}, training={"lr": 0.002, "min_lr": 0.0}
)


@pytest.mark.parametrize(
    ("told", "other"),
    [
        ("--model.num_layers 4, not 5, and keeps", {"model": {"num_layers": 5}}),
        (f"--network {SAVED.network}, not another", {"network": "another"}),
        ("--seed 1234, not 7", {"seed": 7}),
        ("--from_run None, not elsewhere", {"from_run": "elsewhere"}),
        ("--redraw_heads False, not True", {"redraw_heads": True}),
        ("--training.lr 0.002, not 0.5", {"training": {"lr": 0.5}}),
        ("--data.resampling epochs, not prng", {"data": {"resampling": "prng"}}),
        ("--seed 1234, not 7; --training.lr 0.002, not 0.5, and keeps", {"seed": 7, "training": {"lr": 0.5}}),
    ],
)
def test_a_run_is_not_resumed_with_what_would_make_it_another_or_be_ignored(told, other):
    with pytest.raises(UserError) as caught:
        check_same_run(change(SAVED, **other), SAVED)
    assert told in str(caught.value)


def test_a_run_is_resumed_with_other_steps_and_layout():
    other = {"parallel": {"devices": 2}, "training": {"max_steps": 2_000}, "data": {"num_workers": 2}}
    check_same_run(change(SAVED, resume=True, **other), SAVED)


@pytest.mark.parametrize(
    ("command", "begun", "other"),
    [
        ("pretrain", {"from_run": "start", "new_heads": ("head",)}, "finetune"),
        ("pretrain", {"from_run": "start"}, None),
        ("pretrain", {}, None),
        ("finetune", {"from_run": "start", "new_heads": ("head",)}, None),
        ("finetune", {}, "pretrain"),
    ],
)
def test_a_run_is_resumed_by_the_command_that_began_it(command, begun, other, refused, tmp_path):
    saved = change(FINETUNE if "new_heads" in begun else Settings(), **{"from_run": None, "new_heads": (), **begun})
    if other is None:
        check_command(command, saved)
        return
    save_settings(saved, tmp_path)
    told = f"{tmp_path} holds a run of {other}: go on with `{other} --resume true`, or choose another --run_dir"
    assert told in refused(command, "--run_dir", tmp_path, "--resume", "true")


def test_a_trained_network_keeps_its_sizes():
    check_same_sizes(change(SAVED, data={"num_workers": 2}), SAVED)
    with pytest.raises(UserError, match=f"the network in {SAVED.run_dir} has the sizes .*: leave out --model"):
        check_same_sizes(change(SAVED, model={"num_layers": 5}), SAVED)


@pytest.mark.parametrize("network", ["one", "two"])
def test_a_head_that_answered_something_else_is_new_or_refused(network, monkeypatch):
    monkeypatch.setattr(type(SAVED.model), "OF_HEADS", ("num_layers",))
    other = change(SAVED, model={"num_layers": 8}, network=network, new_heads=("head",))
    start = change(SAVED, network="one")
    assert not other_heads(change(SAVED, network=network), start)
    assert other_heads(other, start)
    if network == "one":
        with pytest.raises(UserError, match=r"--model\.num_layers is not that of .*, whose head is kept"):
            other_heads(change(other, new_heads=()), start)
