"""The command line: what is wrong is one line and exit code 2 before any work; what is right reaches the training."""

import os
import re
import subprocess
import sys
from dataclasses import asdict, replace

import pytest
import yaml
from conftest import ENVIRONMENT, PACKAGE, TINY, change, run

from {{cookiecutter.__package_name}}.cli import COMMANDS, PROG
from {{cookiecutter.__package_name}}.contracts.names import SETTINGS_FILE
from {{cookiecutter.__package_name}}.contracts.settings import ParallelSettings
from {{cookiecutter.__package_name}}.model import settings
from {{cookiecutter.__package_name}}.model.settings import FINETUNE, Settings
from {{cookiecutter.__package_name}}.runtime import launch
from {{cookiecutter.__package_name}}.training.run_settings import save_settings

LAYERS = Settings().model.num_layers


def test_help_lists_every_command_with_what_it_does(capsys):
    assert run("--help") == 0
    text = capsys.readouterr().out
    for name, function in COMMANDS.items():
        assert f"  {name} " in text
        assert function.__doc__.splitlines()[0] in text


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_its_own_help(command, capsys):
    assert run(command, "--help") == 0
    assert f"usage: {PROG} {command}" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["finetune", "evaluate", "predict", "report", "export"])
def test_the_help_lists_the_run_that_a_command_is_given(command, capsys):
    assert run(command, "--help") == 0
    assert re.search(r"^  --from RUN  +\S", capsys.readouterr().out, flags=re.MULTILINE)


def test_no_command_shows_the_help_and_fails(capsys):
    assert run() == 2
    assert "commands:" in capsys.readouterr().out


@pytest.mark.parametrize(
    "argv",
    [["--help"], ["pretrain", "--help"], ["pretrain", "--sede", "3"], ["pretrain", "--seed", "0"], ["predict"]],
    ids=" ".join,
)
def test_help_and_wrong_settings_are_answered_without_torch(argv):
    heavy = {"torch", "numpy", "nemo", "matplotlib"}
    code = f"import sys; sys.argv[1:] = {argv}\nfrom {PACKAGE}.cli import main\n"
    code += f"try: main()\nexcept SystemExit: pass\nprint(sorted({heavy} & set(sys.modules)))"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=ENVIRONMENT, timeout=900)
    assert answer.stdout.splitlines()[-1] == "[]", answer.stderr


def test_an_unknown_command_is_answered_with_the_nearest(refused):
    assert "there is no command pretrian (did you mean pretrain?)" in refused("pretrian")
    assert all(name in refused("xyz") for name in COMMANDS)


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["--training.max_stesp", "3"], "no setting --training.max_stesp (did you mean --training.max_steps?)"),
        (["--max_step=3"], "there is no setting --max_step"),
        (["--training.max_step", "3"], "no setting --training.max_step (did you mean --training.max_steps?)"),
        (["--max_steps", "3"], "no setting --max_steps (did you mean --training.max_steps?)"),
        (["--new_heads", "head"], "--new_heads: expected a list, such as '[head]'"),
        (["--trainig.lr", "1"], "there is no setting --trainig.lr (did you mean --training.lr?)"),
        (["--training.max_steps", "many"], "--training.max_steps: "),
        (["--training.lr", "fast"], "--training.lr: "),
        (["--training.precision", "fp8"], "--training.precision: expected one of 'fp32', 'bf16', got"),
        (["--network", "no_such_network"], "no_such_network"),
        (["--resume", "maybe"], "--resume: "),
        (["--training.max_steps", "3.5"], "--training.max_steps: "),
        (["--training.max_steps"], f"--training.max_steps needs a value: {Settings().training.max_steps}, say"),
        (["--resume"], "--resume needs a value: true or false"),
        (["--config"], "--config needs a value: a YAML file"),
        (["--run_dir", ""], "--run_dir is empty: name a folder"),
        (["--run_dir", os.devnull], f"{os.devnull} cannot be written: {os.devnull}: Not a directory"),
        (["--run_dir", f"{os.devnull}/run"], f"{os.devnull}/run cannot be written"),
        (["--run_dir", "x" * 300], f"{'x' * 300} cannot be read (File name too long)"),
        (["--run_dir", "one\ntwo"], "--run_dir 'one\\ntwo' has a character that cannot be printed"),
        (["--run_dir", "$HOME/run"], "--run_dir $HOME/run has a $, and variables are not looked up here"),
        (["--from_run", ""], "--from_run is empty: give it a value, or leave it out"),
        (["--config", ""], "--config '' is empty"),
        (["--config="], "--config '' is empty"),
        (["--training", "3"], "--training"),
        (["stray"], "stray"),
        (["--training.global_batch_size", "100", "--training.micro_batch_size", "33"], "is not a multiple of 33"),
        (["--parallel.devices", "2", "--training.global_batch_size", "127"], "is not a multiple of"),
        (
            ["--parallel.devices", "2", "--parallel.pipeline", "2", "--model.num_layers", "3"],
            "--parallel.pipeline 2 does not divide --model.num_layers 3",
        ),
        (
            ["--parallel.pipeline", "2", "--model.num_layers", "2"],
            "--parallel.tensor 1 x --parallel.pipeline 2 needs a multiple of 2 processes",
        ),
        (["--config", "nowhere.yaml"], "nowhere.yaml"),
    ],
    ids=lambda words: " ".join(words) if isinstance(words, list) else "",
)
def test_a_wrong_setting_is_one_line(words, answer, refused, run_dir):
    assert answer in refused("pretrain", *run_dir, *words)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("sede: 3", "there is no setting --sede (did you mean --seed?)"),
        ("training: {max_stesp: 3}", "there is no setting --training.max_stesp (did you mean --training.max_steps?)"),
        ("training: {max_steps: many}", "--training.max_steps: "),
        ("training: 3", "--training is a group of settings, and cannot be 3"),
        ("training: [", "wrong.yaml cannot be read: while parsing a flow node did not find"),
        ("", "wrong.yaml is empty"),
        ("[seed]", "wrong.yaml has no settings by name: "),
    ],
)
def test_a_wrong_config_file_is_one_line(text, answer, refused, run_dir, tmp_path):
    file = tmp_path / "wrong.yaml"
    file.write_text(text)
    assert answer in refused("pretrain", *run_dir, "--config", file)


def test_all_problems_are_shown_at_once(capfd, run_dir):
    assert run("pretrain", *run_dir, "--model.num_layers", "0", "--training.max_steps", "0") == 2
    lines = capfd.readouterr().err.splitlines()
    assert all(line.startswith(f"{PROG}: error: --") for line in lines)
    for problem in ("--model.num_layers 0", "--training.max_steps 0", "--training.warmup_steps"):
        assert len([line for line in lines if f"error: {problem}" in line]) == 1


def test_flags_files_and_defaults_are_laid_over_each_other_in_order(asked, tmp_path, run_dir):
    file = tmp_path / "some.yaml"
    file.write_text("seed: 7\ntraining:\n  lr: 0.5\n  max_steps: 70\nnew_heads: [a, b]\n")
    assert run("pretrain", *run_dir, "--seed", 3, "--config", file, "--training.max_steps", 80) == 0
    [given] = asked
    assert given == change(
        Settings(), run_dir=run_dir[1], seed=7, new_heads=("a", "b"), training={"lr": 0.5, "max_steps": 80}
    )


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("seed: 7\ntraining:\n  lr: 0.5\n  max_steps: 70\n  lr: 0.5\n", "training.lr"),
        ("training: {lr: 0.5}\nseed: 7\ntraining: {max_steps: 70}\n", "training"),
    ],
)
def test_a_setting_that_a_file_gives_twice_is_refused(text, name, refused, tmp_path, run_dir):
    (file := tmp_path / "some.yaml").write_text(text)
    assert refused("pretrain", *run_dir, "--config", file).endswith(f"error: {file} gives {name} twice: leave one out")


def test_a_file_may_bring_values_along_and_give_one_of_them_again(asked, tmp_path, run_dir):
    (file := tmp_path / "some.yaml").write_text("training:\n  <<: {lr: 0.5, max_steps: 70}\n  lr: 0.25\n")
    assert run("pretrain", *run_dir, "--config", file) == 0
    assert asked == [change(Settings(), run_dir=run_dir[1], training={"lr": 0.25, "max_steps": 70})]


def test_a_setting_that_the_file_of_a_run_has_lost_is_told(asked, tmp_path, capfd):
    save_settings(change(Settings(), training={"clip_grad": 0.5}), tmp_path)
    path = tmp_path / SETTINGS_FILE
    path.write_text("".join(line for line in path.read_text().splitlines(True) if "clip_grad" not in line))
    assert run("pretrain", "--run_dir", tmp_path, "--resume", "true") == 0
    [line] = capfd.readouterr().err.splitlines()
    assert line == f"warning: {path} does not say training.clip_grad: the defaults are taken"


def printed_config(capsys, *argv):
    assert run(*argv, "--print_config") == 0
    return capsys.readouterr().out


def test_the_printed_config_is_a_config_with_every_setting(capsys, tmp_path):
    first = printed_config(capsys, "pretrain", "--training.lr", "3e-4", "--parallel.tensor", "2", "--from_run", "there")
    values, new = yaml.safe_load(first), {"training": {"lr": 3e-4}, "parallel": {"tensor": 2}, "from_run": "there"}
    assert values == yaml.safe_load(yaml.safe_dump(asdict(change(Settings(), **new))))  # which has no tuples
    (tmp_path / "printed.yaml").write_text(first)
    assert printed_config(capsys, "pretrain", "--config", str(tmp_path / "printed.yaml")) == first


@pytest.mark.parametrize("command", ["pretrain", "finetune"])
def test_a_resume_keeps_what_it_is_not_told_to_change(command, asked, tmp_path):
    begun = change(FINETUNE, from_run="there") if command == "finetune" else Settings()
    saved = change(begun, run_dir=str(tmp_path), seed=7, training={"max_steps": 70})
    save_settings(saved, tmp_path)
    assert run(command, "--run_dir", tmp_path, "--resume", "true", "--training.max_steps", 80) == 0
    assert asked == [change(saved, resume=True, training={"max_steps": 80})]


@pytest.mark.parametrize("words", [["pretrain", "--resume", "true", "--run_dir"], ["evaluate", "--from"]])
@pytest.mark.parametrize(
    ("value", "reason"), [("many", "training.max_steps: .*many"), (0, "training.max_steps 0 must be at least 1")]
)
def test_a_mistake_in_the_settings_of_a_run_is_not_blamed_on_a_flag(words, value, reason, refused, tmp_path):
    save_settings(change(Settings(), training={"max_steps": value}), tmp_path)
    line = refused(*words, tmp_path)
    assert re.search(rf"error: {tmp_path}/settings.yaml cannot be used \({reason}.*\): mend it, or train again$", line)
    assert "--" not in line


def test_a_number_that_yaml_takes_for_a_word_is_the_runs_own(asked, tmp_path):
    save_settings(change(Settings(), training={"lr": "1e-3"}), tmp_path)
    assert run("pretrain", "--run_dir", tmp_path, "--resume", "true") == 0
    assert asked[0].training.lr == 1e-3


def test_the_settings_saved_in_a_run_are_a_config(asked, tmp_path):
    saved = change(FINETUNE, from_run="there", run_dir=str(tmp_path / "run"), training={"precision": "bf16"})
    save_settings(saved, tmp_path)
    assert run("pretrain", "--config", tmp_path / SETTINGS_FILE) == 0
    assert asked == [saved]


@pytest.mark.parametrize("taken", [("model", "data", "seed"), ("data",), ()], ids=str)
def test_finetuning_takes_from_the_run_it_starts_from_what_from_start_names(taken, asked, tmp_path, monkeypatch):
    monkeypatch.setattr(settings, "FROM_START", taken)
    start = change(Settings(), run_dir="x", seed=5, model={"num_layers": 2 * LAYERS}, data={"resampling": "prng"})
    save_settings(start, tmp_path)
    new = tmp_path / "new"
    assert run("finetune", "--from", tmp_path, "--data.num_workers", 6, "--run_dir", new) == 0
    assert run("finetune", f"--from={tmp_path}", "--data.num_workers=6", f"--run_dir={new}") == 0
    source = {name: start if name in taken else FINETUNE for name in ("model", "data", "seed")}
    expected = replace(
        FINETUNE,
        run_dir=str(new),
        from_run=str(tmp_path),
        seed=source["seed"].seed,
        model=source["model"].model,
        data=replace(source["data"].data, num_workers=6),
    )
    assert asked == [expected, expected]


def test_prediction_takes_everything_but_the_layout_from_its_run(asked, tmp_path):
    trained = {"parallel": {"devices": 2, "tensor": 2}, "training": {"micro_batch_size": 64}}
    saved = change(FINETUNE, run_dir="moved since", **trained)
    save_settings(saved, tmp_path)
    assert run("predict", "--from", tmp_path, "--training.global_batch_size", 100) == 0
    layout = {"parallel": ParallelSettings(), "training": {"micro_batch_size": None, "global_batch_size": 100}}
    assert asked == [change(saved, run_dir=str(tmp_path), **layout)]


@pytest.mark.parametrize(
    ("trained", "words", "size"),
    [
        ({"training": {"micro_batch_size": 1}}, [], 1),
        ({"parallel": {"devices": 2}}, [], 64),
        ({"training": {"micro_batch_size": 64}}, ["--training.global_batch_size", 96], None),
        ({"training": {"micro_batch_size": 64}}, ["--training.micro_batch_size", 32], 32),
        ({"training": {"micro_batch_size": 64}}, ["--training.micro_batch_size", "null"], None),
    ],
)
def test_a_network_that_fitted_into_memory_does_so_again(trained, words, size, asked, tmp_path):
    trained = {**trained, "training": {"global_batch_size": 128, **trained.get("training", {})}}
    save_settings(change(FINETUNE, run_dir=str(tmp_path), **trained), tmp_path)
    assert run("predict", "--from", tmp_path, *words) == 0
    assert asked[0].training.micro_batch_size == size


def test_what_only_predict_takes_is_refused_elsewhere_and_not_saved(asked, refused, run_dir, tmp_path, monkeypatch):
    save_settings(change(FINETUNE, from_run="there"), tmp_path)
    monkeypatch.setattr(Settings, "ONLY_PREDICT", {"seed": "do without"})
    for words in (["pretrain", *run_dir], ["finetune", "--from", tmp_path], ["evaluate", "--from", tmp_path]):
        assert "--seed is for predict only: do without" in refused(*words, "--seed", 5)
    assert run("predict", "--from", tmp_path, "--seed", 5) == 0
    assert asked[0].seed == 5
    save_settings(asked[0], tmp_path)
    assert "seed:" not in (tmp_path / SETTINGS_FILE).read_text()


@pytest.mark.parametrize("command", ["evaluate", "predict"])
def test_a_trained_network_keeps_its_sizes(command, refused, tmp_path):
    save_settings(FINETUNE, tmp_path)
    answer = refused(command, "--from", tmp_path, "--model.num_layers", FINETUNE.model.num_layers + 1)
    assert f"the network in {tmp_path} has the sizes that it was trained in: leave out --model" in answer


@pytest.mark.parametrize("command", ["finetune", "evaluate", "predict", "export"])
def test_a_command_on_a_run_needs_one(command, refused, tmp_path):
    assert f"{command} needs --from RUN" in refused(command)
    assert "holds no run" in refused(command, "--from", tmp_path / "nowhere")


def test_a_report_needs_a_run(refused, tmp_path):
    assert "report needs --from RUN" in refused("report")
    assert "nowhere" in refused("report", "--from", tmp_path / "nowhere")


def test_a_run_with_damaged_settings_is_refused(refused, tmp_path):
    (tmp_path / SETTINGS_FILE).write_text("seed: banana\n")
    for command in ("evaluate", "predict", "finetune", "export"):
        assert f"{tmp_path}/{SETTINGS_FILE} cannot be used (seed: " in refused(command, "--from", tmp_path)


def test_more_gpus_than_there_are_are_refused(refused, run_dir):
    words = ["--accelerator", "gpu", "--parallel.devices", "999", "--training.global_batch_size", "999"]
    told = "--parallel.devices 999 needs 999 GPUs" if launch._gpus() else "PyTorch sees no GPU"
    assert told in refused("pretrain", *run_dir, *words)


def test_who_reads_may_stop_reading():
    words = [sys.executable, "-m", PACKAGE, "--help"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ENVIRONMENT) as process:
        process.stdout.close()
        assert process.wait(timeout=900) == 0
        assert process.stderr.read() == b""


@pytest.mark.slow
def test_a_run_without_a_checkpoint_is_refused(refused, run_dir, tmp_path):
    save_settings(Settings(run_dir=str(tmp_path), accelerator="cpu", network=FINETUNE.network), tmp_path)
    for command in ("finetune", "evaluate", "predict", "export"):
        where = [] if command != "finetune" else [*run_dir, "--accelerator", "cpu"]
        assert "holds no finished checkpoint" in refused(command, "--from", tmp_path, *where)


@pytest.fixture
def finetune(refused, run_dir, pretrained, tmp_path):
    """Finetune a tiny run from the pretrained one, in vain."""
    save_settings(change(TINY, network=FINETUNE.network, new_heads=FINETUNE.new_heads), tmp_path)
    words = ["--config", tmp_path / SETTINGS_FILE, *run_dir, "--from", pretrained.folder]
    return lambda *changes: refused("finetune", *words, *changes)


@pytest.mark.slow
def test_a_checkpoint_of_other_sizes_is_refused(finetune):
    answer = finetune("--model.hidden_size", 2 * TINY.model.hidden_size)
    assert "does not fit this network" in answer
    assert re.search(r"[\w.]+ is \([\d, ]+\), not \([\d, ]+\)", answer)  # whatever your layers are called


@pytest.mark.slow
def test_a_head_that_the_network_does_not_have_is_refused(finetune):
    answer = finetune("--new_heads", "[no_such_head]")
    assert "--new_heads no_such_head: the network has no such part; its parts are " in answer
