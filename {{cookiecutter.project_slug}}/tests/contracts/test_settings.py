"""The settings: every rule refuses what breaks it and lets the rest through, and files give back what was saved."""

import ast
import dataclasses
import inspect

import pytest
import yaml

from {{cookiecutter.__package_name}} import settings as room
from {{cookiecutter.__package_name}}.errors import UserError
from {{cookiecutter.__package_name}}.names import SETTINGS_FILE
from {{cookiecutter.__package_name}}.run_settings import check_same_run, load_settings, save_settings
from {{cookiecutter.__package_name}}.settings import (
    DataSettings,
    ModelSettings,
    ParallelSettings,
    Settings,
    TrainingSettings,
)

GROUPS = {"data": DataSettings, "model": ModelSettings, "parallel": ParallelSettings, "training": TrainingSettings}

# A wrong value for every rule; the problem must start with the named setting and its value.
WRONG = {
    "--seed 0": Settings(seed=0),
    "--data.num_workers -1": Settings(data=DataSettings(num_workers=-1)),
    "--data.validation_size 0": Settings(data=DataSettings(validation_size=0)),
    "--model.num_layers 0": Settings(model=ModelSettings(num_layers=0)),
    "--model.hidden_size 0": Settings(model=ModelSettings(hidden_size=0)),
    "--model.ffn_hidden_size -1": Settings(model=ModelSettings(ffn_hidden_size=-1)),
    "--model.latent_size 0": Settings(model=ModelSettings(latent_size=0)),
    "--model.hidden_dropout 1": Settings(model=ModelSettings(hidden_dropout=1.0)),
    "--model.hidden_dropout -0.1": Settings(model=ModelSettings(hidden_dropout=-0.1)),
    "--model.hidden_dropout nan": Settings(model=ModelSettings(hidden_dropout=float("nan"))),
    "--parallel.devices 0": Settings(parallel=ParallelSettings(devices=0)),
    "--parallel.num_nodes 0": Settings(parallel=ParallelSettings(num_nodes=0)),
    "--parallel.tensor 0": Settings(parallel=ParallelSettings(tensor=0)),
    "--parallel.pipeline 0": Settings(parallel=ParallelSettings(pipeline=0)),
    "--training.global_batch_size 0": Settings(training=TrainingSettings(global_batch_size=0)),
    "--training.micro_batch_size 0": Settings(training=TrainingSettings(micro_batch_size=0)),
    "--training.val_check_interval 0": Settings(training=TrainingSettings(val_check_interval=0)),
    "--training.log_every_n_steps 0": Settings(training=TrainingSettings(log_every_n_steps=0)),
    "--training.lr 0.0 ": Settings(training=TrainingSettings(lr=0.0, min_lr=0.0)),
    "--training.lr 1e-06": Settings(training=TrainingSettings(lr=1e-6)),
    "--training.lr nan": Settings(training=TrainingSettings(lr=float("nan"))),
    "--training.warmup_steps -1": Settings(training=TrainingSettings(warmup_steps=-1)),
    "--training.warmup_steps 1000": Settings(training=TrainingSettings(warmup_steps=1_000)),
    "--training.clip_grad -1": Settings(training=TrainingSettings(clip_grad=-1.0)),
    "--training.clip_grad nan": Settings(training=TrainingSettings(clip_grad=float("nan"))),
    "--training.weight_decay -1": Settings(training=TrainingSettings(weight_decay=-1.0)),
    "--training.weight_decay nan": Settings(training=TrainingSettings(weight_decay=float("nan"))),
    "--parallel.tensor 2 x --parallel.pipeline 1": Settings(parallel=ParallelSettings(tensor=2)),
    "--parallel.tensor 2 x --parallel.pipeline 2": Settings(parallel=ParallelSettings(devices=6, tensor=2, pipeline=2)),
    "--parallel.tensor 2 does not divide --model.hidden_size 33": Settings(
        parallel=ParallelSettings(devices=2, tensor=2), model=ModelSettings(hidden_size=33)
    ),
    "--parallel.tensor 2 does not divide --model.ffn_hidden_size 33": Settings(
        parallel=ParallelSettings(devices=2, tensor=2), model=ModelSettings(ffn_hidden_size=33)
    ),
    "--parallel.tensor 2 does not divide --model.latent_size 33": Settings(
        parallel=ParallelSettings(devices=2, tensor=2), model=ModelSettings(latent_size=33)
    ),
    "--parallel.pipeline 2 does not divide --model.num_layers 3": Settings(
        parallel=ParallelSettings(devices=2, pipeline=2), model=ModelSettings(num_layers=3)
    ),
    "--parallel.sequence splits": Settings(parallel=ParallelSettings(sequence=True)),
    "--training.global_batch_size 127": Settings(
        parallel=ParallelSettings(devices=2), training=TrainingSettings(global_batch_size=127)
    ),
    "--training.global_batch_size 128": Settings(training=TrainingSettings(micro_batch_size=48)),
}

# The same rules at the edge of what is allowed.
RIGHT = {
    "defaults": Settings(),
    "smallest": Settings(
        seed=1,
        data=DataSettings(validation_size=1),
        model=ModelSettings(num_layers=1, hidden_size=1, ffn_hidden_size=1, latent_size=1),
        training=TrainingSettings(
            max_steps=1,
            warmup_steps=0,
            global_batch_size=1,
            micro_batch_size=1,
            lr=1e-5,
            min_lr=1e-5,
            clip_grad=0.0,
            weight_decay=0.0,
            val_check_interval=1,
            log_every_n_steps=1,
        ),
    ),
    "largest validation set": Settings(data=DataSettings(validation_size=9_999)),
    "most dropout": Settings(model=ModelSettings(hidden_dropout=0.99)),
    "longest warm-up": Settings(training=TrainingSettings(warmup_steps=999)),
    "data parallel": Settings(parallel=ParallelSettings(devices=4, num_nodes=2)),
    "tensor, sequence and pipeline parallel": Settings(
        parallel=ParallelSettings(devices=8, tensor=4, pipeline=2, sequence=True)
    ),
    "micro batches": Settings(parallel=ParallelSettings(devices=2), training=TrainingSettings(micro_batch_size=16)),
}


@pytest.fixture(autouse=True)
def length(monkeypatch):
    """A sequence that four ranks can share, whatever yours is."""
    monkeypatch.setattr(room, "SEQUENCE_LENGTH", 28)


@pytest.mark.parametrize("start", WRONG)
def test_a_wrong_value_is_one_problem_that_names_setting_and_value(start):
    [problem] = WRONG[start].problems()
    assert problem.startswith(start)
    assert "\n" not in problem


@pytest.mark.parametrize(("length", "is_wrong"), [(28, True), (32, False)])
def test_sequence_parallel_must_divide_the_sequence(length, is_wrong, monkeypatch):
    monkeypatch.setattr(room, "SEQUENCE_LENGTH", length)
    split = ParallelSettings(devices=8, tensor=8, sequence=True)
    start = "--parallel.sequence: --parallel.tensor 8 does not divide the sequence length 28"
    assert [text.startswith(start) for text in Settings(parallel=split).problems()] == [True] * is_wrong
    assert Settings(parallel=dataclasses.replace(split, sequence=False)).problems() == []


def test_a_size_that_is_not_split_need_not_be_divided(monkeypatch):
    odd = Settings(parallel=ParallelSettings(devices=2, tensor=2), model=ModelSettings(latent_size=33))
    assert len(odd.problems()) == 1
    monkeypatch.setattr(ModelSettings, "NOT_SPLIT", (*ModelSettings.NOT_SPLIT, "latent_size"))
    assert odd.problems() == []


def test_no_steps_at_all_leave_no_room_for_the_warm_up_either():
    problems = Settings(training=TrainingSettings(max_steps=0, warmup_steps=0)).problems()
    assert problems[0] == "--training.max_steps 0 must be at least 1"
    assert problems[1:] == ["--training.warmup_steps 0 must be below --training.max_steps 0: lower it"]


@pytest.mark.parametrize("name", RIGHT)
def test_a_right_value_is_no_problem(name):
    assert RIGHT[name].problems() == []


def test_all_wrong_numbers_are_told_at_once():
    wrong = Settings(seed=0, model=ModelSettings(num_layers=0), training=TrainingSettings(clip_grad=-1))
    named = [problem.split()[0] for problem in wrong.problems()]
    assert named == ["--model.num_layers", "--seed", "--training.clip_grad"]


def test_all_wrong_layouts_are_told_at_once():
    wrong = Settings(
        parallel=ParallelSettings(devices=3, tensor=2, pipeline=3),
        model=ModelSettings(hidden_size=33, latent_size=33),
    )
    problems = wrong.problems()
    assert len(problems) == 4
    for part in ("needs a multiple of 6", "hidden_size 33", "latent_size 33", "num_layers 4"):
        assert sum(part in problem for problem in problems) == 1


def test_the_default_micro_batch_is_a_ranks_share_of_the_global_batch():
    assert Settings().micro_batch_size == 128
    assert Settings(parallel=ParallelSettings(devices=4, tensor=2)).micro_batch_size == 64
    assert Settings(training=TrainingSettings(micro_batch_size=16)).micro_batch_size == 16


def test_saved_settings_come_back_equal(tmp_path):
    settings = Settings(
        run_dir="elsewhere",
        from_run="start",
        new_heads=("classifier", "image_decoder"),
        data=DataSettings(root="there", num_workers=2),
        model=ModelSettings(hidden_dropout=0.1),
        training=TrainingSettings(lr=3e-7, min_lr=1e-7, micro_batch_size=64, precision="bf16"),
        parallel=ParallelSettings(devices=4, tensor=2, sequence=True),
    )
    save_settings(settings, tmp_path)
    assert load_settings(tmp_path) == settings


def test_a_folder_without_a_run_is_named(tmp_path):
    with pytest.raises(UserError, match="holds no run") as caught:
        load_settings(tmp_path / "nowhere")
    assert str(tmp_path / "nowhere") in str(caught.value)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("sede: 3", "there is no setting sede"),
        ("data:\n  dateset: full", "dateset"),
        ("a: [1", "while parsing"),
        ("", "got None"),
        ("just words", "got 'just words'"),
        ("data: full", "got 'full'"),
    ],
)
def test_settings_that_cannot_be_read_are_one_line_with_file_and_reason(tmp_path, text, reason):
    (tmp_path / SETTINGS_FILE).write_text(text)
    with pytest.raises(UserError, match=reason) as caught:
        load_settings(tmp_path)
    assert str(tmp_path / SETTINGS_FILE) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("flag", "other"),
    [
        (r"--model\.hidden_size \d+, not 1, and keeps", {"model": ModelSettings(hidden_size=1)}),
        (f"--network {Settings().network}, not another", {"network": "another"}),
        ("--seed 1234, not 7", {"seed": 7}),
        ("--from_run None, not elsewhere", {"from_run": "elsewhere"}),
        ("--training.lr 0.002, not 0.5", {"training": TrainingSettings(lr=0.5)}),
        ("--data.resampling epochs, not prng", {"data": DataSettings(resampling="prng")}),
    ],
)
def test_a_run_is_not_resumed_with_what_would_make_it_another_or_be_ignored(flag, other):
    with pytest.raises(UserError, match=flag):
        check_same_run(dataclasses.replace(Settings(), **other), Settings())


def test_everything_that_a_resume_may_not_change_is_told_at_once():
    with pytest.raises(UserError, match=r"--seed 1234, not 7; --training\.lr 0\.002, not 0\.5, and keeps"):
        check_same_run(Settings(seed=7, training=TrainingSettings(lr=0.5)), Settings())


def test_a_run_is_resumed_with_other_steps_and_layout():
    other = {"parallel": ParallelSettings(devices=2), "training": TrainingSettings(max_steps=2_000)}
    other["data"] = DataSettings(root="moved", num_workers=2)
    check_same_run(dataclasses.replace(Settings(), resume=True, **other), Settings())


def field_lines():
    """Yield (flag, line under the field) for every setting."""
    classes = {node.name: node for node in ast.parse(inspect.getsource(room)).body if isinstance(node, ast.ClassDef)}
    for group, cls in {"": Settings, **GROUPS}.items():
        body, names = classes[cls.__name__].body, {field.name for field in dataclasses.fields(cls)}
        for item, following in zip(body, [*body[1:], None], strict=True):
            if isinstance(item, ast.AnnAssign) and item.target.id in names:
                is_line = isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant)
                flag = f"--{group}.{item.target.id}" if group else f"--{item.target.id}"
                yield flag, following.value.value if is_line else None


FLAGS = {flag: line for flag, line in field_lines() if flag.removeprefix("--") not in GROUPS}


@pytest.mark.parametrize("flag", FLAGS)
def test_every_setting_has_one_line_about_it(flag):
    assert FLAGS[flag] and "\n" not in FLAGS[flag]


def test_the_line_of_every_setting_is_its_help(capsys):
    from {{cookiecutter.__package_name}}.cli import main

    with pytest.raises(SystemExit):
        main(["pretrain", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    flags = [f"--{name}" for name in yaml.safe_load(yaml.safe_dump(dataclasses.asdict(Settings(new_heads=[]))))]
    assert {flag for flag in FLAGS if "." not in flag} == set(flags) - {f"--{group}" for group in GROUPS}
    for flag, line in FLAGS.items():
        assert f"{flag} " in text
        assert line in text, flag
