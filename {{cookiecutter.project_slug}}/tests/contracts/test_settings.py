"""The settings: every rule refuses what breaks it and lets the rest through, and each setting has a line about it."""

import ast
import inspect
import textwrap
from dataclasses import dataclass, field, fields, replace

import pytest
from conftest import change, run

from {{cookiecutter.__package_name}}.contracts.errors import UserError
from {{cookiecutter.__package_name}}.contracts.settings import (
    ModelSettings,
    ParallelSettings,
    RunSettings,
    TrainingSettings,
)
from {{cookiecutter.__package_name}}.model.settings import Settings


@dataclass(frozen=True)
class Sizes(ModelSettings):
    """Sizes of a network that is not yours."""

    sequence_length: int = 28
    inner_size: int = 128
    is_causal: bool = False
    rate: float = 0.0


@dataclass(frozen=True)
class WithHeads(Sizes):
    """The same with attention."""

    num_attention_heads: int = 4


@dataclass(frozen=True)
class Run(RunSettings):
    """A run of it."""

    model: Sizes = field(default_factory=Sizes)


RUN = Run()
HEADS = Run(model=WithHeads())

# A wrong value for every rule; the problem must start with the named setting and its value.
WRONG = {
    "--run_dir is empty": Run(run_dir=""),
    "--run_dir -x is read as a setting by other commands: write ./-x": Run(run_dir="-x"),
    "--loggers wandb,comet": Run(loggers="wandb,comet"),
    "--seed 0": Run(seed=0),
    "--data.num_workers -1": change(RUN, data={"num_workers": -1}),
    "--model.num_layers 0": change(RUN, model={"num_layers": 0}),
    "--model.hidden_size 0": change(RUN, model={"hidden_size": 0}),
    "--model.inner_size -1": change(RUN, model={"inner_size": -1}),
    "--model.sequence_length 0": change(RUN, model={"sequence_length": 0}),
    "--model.num_attention_heads 0": change(HEADS, model={"num_attention_heads": 0}),
    "--model.num_attention_heads 5 does not divide --model.hidden_size 64": change(
        HEADS, model={"num_attention_heads": 5}
    ),
    "--model.hidden_dropout 1": change(RUN, model={"hidden_dropout": 1.0}),
    "--model.hidden_dropout -0.1": change(RUN, model={"hidden_dropout": -0.1}),
    "--model.hidden_dropout nan": change(RUN, model={"hidden_dropout": float("nan")}),
    "--parallel.devices 0": change(RUN, parallel={"devices": 0}),
    "--parallel.num_nodes 0": change(RUN, parallel={"num_nodes": 0}),
    "--parallel.tensor 0": change(RUN, parallel={"tensor": 0}),
    "--parallel.pipeline 0": change(RUN, parallel={"pipeline": 0}),
    "--parallel.virtual_pipeline 0": change(RUN, parallel={"virtual_pipeline": 0}),
    "--training.global_batch_size 0": change(RUN, training={"global_batch_size": 0}),
    "--training.micro_batch_size 0": change(RUN, training={"micro_batch_size": 0}),
    "--training.val_check_interval 0": change(RUN, training={"val_check_interval": 0}),
    "--training.log_every_n_steps 0": change(RUN, training={"log_every_n_steps": 0}),
    "--training.lr 0.0 ": change(RUN, training={"lr": 0.0, "min_lr": 0.0}),
    "--training.lr 1e-06": change(RUN, training={"lr": 1e-6}),
    "--training.lr nan": change(RUN, training={"lr": float("nan")}),
    "--training.lr inf": change(RUN, training={"lr": float("inf")}),
    "--training.warmup_steps -1": change(RUN, training={"warmup_steps": -1}),
    "--training.warmup_steps 1000": change(RUN, training={"warmup_steps": 1_000}),
    "--training.checkpoint_minutes -1": change(RUN, training={"checkpoint_minutes": -1.0}),
    "--training.keep_checkpoints 0": change(RUN, training={"keep_checkpoints": 0}),
    "--training.clip_grad -1": change(RUN, training={"clip_grad": -1.0}),
    "--training.clip_grad nan": change(RUN, training={"clip_grad": float("nan")}),
    "--training.head_lr_factor 0": change(RUN, training={"head_lr_factor": 0.0}, new_heads=("head",), from_run="run"),
    "--training.head_lr_factor 5": change(RUN, training={"head_lr_factor": 5}, from_run="run"),
    "--training.head_lr_factor 2": change(RUN, training={"head_lr_factor": 2}, new_heads=("head",)),
    "--redraw_heads true": change(RUN, redraw_heads=True, from_run="run"),
    "--redraw_heads true is for": change(RUN, redraw_heads=True, new_heads=("head",)),
    "--training.weight_decay -1": change(RUN, training={"weight_decay": -1.0}),
    "--training.weight_decay nan": change(RUN, training={"weight_decay": float("nan")}),
    "--parallel.tensor 2 x --parallel.pipeline 1 needs a multiple of 2": change(RUN, parallel={"tensor": 2}),
    "--parallel.tensor 2 x --parallel.pipeline 2 needs a multiple of 4": change(
        RUN, parallel={"devices": 6, "tensor": 2, "pipeline": 2}
    ),
    "--parallel.tensor 2 does not divide --model.hidden_size 33": change(
        RUN, parallel={"devices": 2, "tensor": 2}, model={"hidden_size": 33}
    ),
    "--parallel.tensor 2 does not divide --model.inner_size 33": change(
        RUN, parallel={"devices": 2, "tensor": 2}, model={"inner_size": 33}
    ),
    "--parallel.tensor 8 does not divide --model.num_attention_heads 4": change(
        HEADS, parallel={"devices": 8, "tensor": 8}
    ),
    "--parallel.pipeline 2 does not divide --model.num_layers 3": change(
        RUN, parallel={"devices": 2, "pipeline": 2}, model={"num_layers": 3}
    ),
    "--parallel.pipeline 2 x --parallel.virtual_pipeline 4 does not divide --model.num_layers 4": change(
        RUN, parallel={"devices": 2, "pipeline": 2, "virtual_pipeline": 4}, training={"micro_batch_size": 32}
    ),
    "--parallel.virtual_pipeline cuts": change(RUN, parallel={"virtual_pipeline": 2}),
    "--parallel.virtual_pipeline needs a multiple of --parallel.pipeline 2 micro batches": change(
        RUN, parallel={"devices": 2, "pipeline": 2, "virtual_pipeline": 2}
    ),
    "--parallel.sequence splits": change(RUN, parallel={"sequence": True}),
    "--parallel.sequence: --parallel.tensor 8 does not divide the sequence length 28": change(
        RUN, parallel={"devices": 8, "tensor": 8, "sequence": True}
    ),
    "--training.global_batch_size 127": change(RUN, parallel={"devices": 2}, training={"global_batch_size": 127}),
    "--training.global_batch_size 128": change(RUN, training={"micro_batch_size": 48}),
}

# The same rules at the edge of what is allowed.
RIGHT = {
    "defaults": RUN,
    "smallest": Run(
        seed=1,
        model=WithHeads(num_layers=1, hidden_size=1, inner_size=1, sequence_length=1, num_attention_heads=1),
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
    "most dropout": change(RUN, model={"hidden_dropout": 0.99}),
    "longest warm-up": change(RUN, training={"warmup_steps": 999}),
    "data parallel": change(RUN, parallel={"devices": 4, "num_nodes": 2}),
    "tensor, sequence and pipeline parallel": change(
        HEADS, parallel={"devices": 8, "tensor": 4, "pipeline": 2, "sequence": True}
    ),
    "a length that ranks do not share": change(RUN, parallel={"devices": 8, "tensor": 8}),
    "virtual pipeline parallel": change(
        RUN, parallel={"devices": 2, "pipeline": 2, "virtual_pipeline": 2}, training={"micro_batch_size": 32}
    ),
    "all loggers": Run(loggers="tensorboard, wandb,mlflow"),
    "no loggers": Run(loggers="none"),
    "micro batches": change(RUN, parallel={"devices": 2}, training={"micro_batch_size": 16}),
}


@pytest.mark.parametrize("start", WRONG)
def test_a_wrong_value_is_one_problem_that_names_setting_and_value(start):
    [problem] = WRONG[start].problems()
    assert problem.startswith(start)
    assert "\n" not in problem


@pytest.mark.parametrize("name", RIGHT)
def test_a_right_value_is_no_problem(name):
    assert RIGHT[name].problems() == []


def test_a_size_that_is_not_split_need_not_be_divided(monkeypatch):
    odd = change(RUN, parallel={"devices": 2, "tensor": 2}, model={"inner_size": 33})
    assert len(odd.problems()) == 1
    monkeypatch.setattr(Sizes, "NOT_SPLIT", (*Sizes.NOT_SPLIT, "inner_size"))
    assert odd.problems() == []


def test_a_model_without_a_length_is_told_where_to_say_it():
    with pytest.raises(UserError, match=r"^model/settings\.py: ModelSettings has no sequence_length: make it a field"):
        ModelSettings().sequence_length  # noqa: B018


def test_no_steps_at_all_leave_no_room_for_the_warm_up_either():
    problems = change(RUN, training={"max_steps": 0, "warmup_steps": 0}).problems()
    assert problems[0] == "--training.max_steps 0 must be at least 1"
    assert problems[1:] == ["--training.warmup_steps 0 must be below --training.max_steps 0: lower it"]


def test_all_wrong_numbers_are_told_at_once():
    wrong = change(RUN, seed=0, model={"num_layers": 0}, data={"num_workers": -1}, training={"clip_grad": -1})
    named = {problem.split()[0] for problem in wrong.problems()}
    assert named == {"--seed", "--model.num_layers", "--data.num_workers", "--training.clip_grad"}


def test_all_wrong_layouts_are_told_at_once():
    split = {"devices": 3, "tensor": 2, "pipeline": 3}
    problems = change(RUN, parallel=split, model={"hidden_size": 33, "inner_size": 33}).problems()
    assert len(problems) == 4
    for part in ("needs a multiple of 6", "hidden_size 33", "inner_size 33", "num_layers 4"):
        assert sum(part in problem for problem in problems) == 1


def test_the_default_micro_batch_is_a_ranks_share_of_the_global_batch():
    assert RUN.micro_batch_size == 128
    assert change(RUN, parallel={"devices": 4, "tensor": 2}).micro_batch_size == 64
    assert change(RUN, training={"micro_batch_size": 16}).micro_batch_size == 16


# The lines about them, and yours


def test_what_your_commands_run_with_is_right():
    from {{cookiecutter.__package_name}}.model.settings import FINETUNE, LAYOUTS

    for settings in (Settings(), FINETUNE, replace(LAYOUTS, parallel=ParallelSettings())):
        assert settings.problems() == []
        assert settings.model.sequence_length >= 1


def lines_of(group):
    """Return the line under each setting of a group by its name, from whichever class names it."""
    found = {}
    for cls in reversed(group.__mro__[:-1]):
        [body] = (node.body for node in ast.parse(textwrap.dedent(inspect.getsource(cls))).body)
        for item, following in zip(body, [*body[1:], None], strict=True):
            if isinstance(item, ast.AnnAssign) and item.target.id in {each.name for each in fields(group)}:
                is_line = isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant)
                found[item.target.id] = following.value.value if is_line else None
    return found


GROUPS = {name: type(getattr(Settings(), name)) for name in ("data", "model", "training", "parallel")}
FLAGS = {f"--{name}": line for name, line in lines_of(Settings).items() if name not in GROUPS}
FLAGS |= {f"--{group}.{name}": line for group, cls in GROUPS.items() for name, line in lines_of(cls).items()}


def test_every_setting_is_found_here():
    names = [each.name for each in fields(Settings) if each.name not in GROUPS]
    names += [f"{group}.{each.name}" for group, cls in GROUPS.items() for each in fields(cls)]
    assert FLAGS.keys() == {f"--{name}" for name in names}


@pytest.mark.parametrize("flag", FLAGS)
def test_every_setting_has_one_line_about_it(flag):
    assert FLAGS[flag] and "\n" not in FLAGS[flag]


def test_the_line_of_every_setting_is_its_help(capsys):
    assert run("pretrain", "--help") == 0
    text = " ".join(capsys.readouterr().out.split())
    for flag, line in FLAGS.items():
        assert f"{flag} " in text
        assert line in text, flag


@dataclass(frozen=True)
class Texts(Run):
    """A run with more texts."""

    names: tuple[str, ...] = ()
    separator: str = ","
    file: str | None = None


@dataclass(frozen=True)
class Names(ModelSettings):
    """Sizes with names."""

    names: list[str] = field(default_factory=list)


def test_only_what_is_a_path_in_a_home_folder_is_changed(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    kept = ("~", "a~/b", "/~/x", "./~", "~x", "", "$HOME/x")
    assert Texts(names=("~/a", *kept)).names == ("/home/me/a", *kept)
    assert Names(names=["~", "~/a"]).names == ["~", "~/a"]
    assert Texts(separator="~1", file="~/a").separator == "~1"
    assert Texts(file="~/a").file == "/home/me/a"
    assert replace(Texts(), run_dir="~/run").run_dir == "/home/me/run"


def test_an_empty_text_is_refused_where_nothing_is_none():
    assert Texts(separator="").problems() == []
    assert Texts(file="").problems() == ["--file is empty: give it a value, or leave it out"]


def test_a_whole_number_is_refused_that_64_bits_do_not_hold():
    """Steps, batches and sizes are smaller still: their products must fit."""
    training = {"max_steps": 2**31, "warmup_steps": 10**400}
    settings = change(Settings(), training=training, model={"num_layers": 2**63})
    assert settings.problems()[:3] == [
        "--model.num_layers must be at most 2147483647",
        "--training.max_steps must be at most 2147483647",
        "--training.warmup_steps must be at most 9223372036854775807",
    ]
    assert replace(Settings(), seed=2**31 - 1).problems() == []
