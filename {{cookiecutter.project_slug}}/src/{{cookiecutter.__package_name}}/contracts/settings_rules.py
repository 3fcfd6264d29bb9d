"""The rules that the values of a run's settings must keep (settings.py), whatever is modelled. No torch."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import fields, is_dataclass
from math import inf
from typing import Any

LOGGERS = ("tensorboard", "wandb", "mlflow")
"""What figures can go to beside metrics.csv."""
MOST = 2**31 - 1
"""The largest number of steps, processes, sizes and the like: the product of two of them fits into 64 bits."""


def layout_checks(settings: Any) -> list[tuple[bool, str]]:
    """Return what is wrong with how processes share the work, each with whether it is."""
    layout, sizes = settings.parallel, settings.model
    world, copies = settings.world_size, layout.tensor * layout.pipeline
    virtual = f" x --parallel.virtual_pipeline {layout.virtual_pipeline}" if layout.virtual_pipeline > 1 else ""
    return [
        (
            world % copies != 0,
            f"--parallel.tensor {layout.tensor} x --parallel.pipeline {layout.pipeline} needs a multiple of "
            f"{copies} processes, but there are {world}: set --parallel.devices",
        ),
        *(
            (
                size % layout.tensor != 0,
                f"--parallel.tensor {layout.tensor} does not divide --model.{name} {size}: change one of them, "
                "or name it in NOT_SPLIT of model/settings.py if ranks do not share it",
            )
            for name, size in sizes.counts().items()
            if name not in sizes.NOT_SPLIT
        ),
        (
            sizes.num_layers % (layout.pipeline * layout.virtual_pipeline) != 0,
            f"--parallel.pipeline {layout.pipeline}{virtual} does not divide --model.num_layers "
            f"{sizes.num_layers}: change one of them",
        ),
        (
            layout.virtual_pipeline > 1 and layout.pipeline == 1,
            "--parallel.virtual_pipeline cuts pipeline stages into parts: set --parallel.pipeline above 1",
        ),
        (
            layout.sequence and layout.tensor == 1,
            "--parallel.sequence splits what tensor parallel ranks share: set --parallel.tensor above 1",
        ),
        (
            layout.sequence and settings.sequence_length % layout.tensor != 0,
            f"--parallel.sequence: --parallel.tensor {layout.tensor} does not divide the sequence length "
            f"{settings.sequence_length}: use a divisor",
        ),
    ]


def batch_checks(settings: Any) -> list[tuple[bool, str]]:
    """Return the same of how batches are cut."""
    training, layout, copies = settings.training, settings.parallel, max(settings.data_parallel_size, 1)
    share = copies * settings.micro_batch_size
    given = training.micro_batch_size
    micro = f" x --training.micro_batch_size {given}" if given else ""
    return [
        (
            layout.virtual_pipeline > 1 and (training.global_batch_size // share) % layout.pipeline != 0,
            f"--parallel.virtual_pipeline needs a multiple of --parallel.pipeline {layout.pipeline} micro batches "
            f"a step, and there are {training.global_batch_size // share}: change --training.micro_batch_size",
        ),
        (
            training.global_batch_size % share != 0,
            f"--training.global_batch_size {training.global_batch_size} is not a multiple of "
            f"{share if given else copies} (data parallel size {copies}{micro}): change one of them",
        ),
    ]


def text_checks(settings: Any) -> list[tuple[bool, str]]:
    """Return the same of texts."""
    run_dir = settings.run_dir
    unknown = [name for name in settings.logger_names if name not in LOGGERS]
    return [
        (not run_dir, "--run_dir is empty: name a folder"),
        (run_dir.startswith("-"), f"--run_dir {run_dir} is read as a setting by other commands: write ./{run_dir}"),
        (not run_dir.isprintable(), f"--run_dir {run_dir!r} has a character that cannot be printed: name another"),
        (
            "$" in run_dir,  # which TensorBoard's logger would take for a variable, and nobody else
            f"--run_dir {run_dir} has a $, and variables are not looked up here: write what they stand for",
        ),
        (
            bool(unknown),
            f"--loggers {settings.loggers}: there is no {' and no '.join(map(repr, unknown))}; give some of "
            f"{','.join(LOGGERS)} with commas between, or none",
        ),
        *(
            (value == "" and default is None, f"--{name} is empty: give it a value, or leave it out")
            for name, value, default in _values(settings)
        ),
    ]


def _values(group: Any, prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Give the name on the command line, the value and the default of each setting."""
    for item in fields(group):
        value, name = getattr(group, item.name), f"{prefix}{item.name}"
        if is_dataclass(value):
            yield from _values(value, f"{name}.")
        else:
            yield name, value, item.default


def _size_checks(settings: Any, counted: Collection[str]) -> Iterator[tuple[bool, str]]:
    """Give the same of whole numbers: they, and products of what is counted, must fit into 64 bits."""
    for name, value, _ in _values(settings):
        if isinstance(value, int):
            most = MOST if f"--{name}" in counted or name.startswith("model.") else 2**63 - 1
            yield value > most, f"--{name} must be at most {most}"


def number_checks(settings: Any) -> list[tuple[bool, str]]:
    """Return the same of single values."""
    training, start = settings.training, settings.from_run or settings.foreign_start
    at_least_one = {
        "--parallel.devices": settings.parallel.devices,
        "--parallel.num_nodes": settings.parallel.num_nodes,
        "--parallel.tensor": settings.parallel.tensor,
        "--parallel.pipeline": settings.parallel.pipeline,
        "--parallel.virtual_pipeline": settings.parallel.virtual_pipeline,
        "--training.max_steps": training.max_steps,
        "--training.global_batch_size": training.global_batch_size,
        "--training.micro_batch_size": settings.micro_batch_size,
        "--training.val_check_interval": training.val_check_interval,
        "--training.keep_checkpoints": training.keep_checkpoints,
        "--training.log_every_n_steps": training.log_every_n_steps,
        "--seed": settings.seed,
    }
    minutes = settings.parallel.timeout_minutes
    return [
        *((value < 1, f"{name} {value} must be at least 1") for name, value in at_least_one.items()),
        *_size_checks(settings, at_least_one),
        (not 0 < minutes < 1e6, f"--parallel.timeout_minutes {minutes} must be above 0, and below a million"),
        (
            not 0 <= training.min_lr <= training.lr < inf or training.lr == 0,
            f"--training.lr {training.lr} must be above 0 and not below --training.min_lr {training.min_lr}",
        ),
        (
            not 0 <= training.warmup_steps < training.max_steps,
            f"--training.warmup_steps {training.warmup_steps} must be below --training.max_steps "
            f"{training.max_steps}: lower it",
        ),
        (not training.head_lr_factor > 0, f"--training.head_lr_factor {training.head_lr_factor} must be above 0"),
        (
            training.head_lr_factor != 1 and not (start and settings.new_heads),
            f"--training.head_lr_factor {training.head_lr_factor} is for the new heads of a finetuning, and there "
            "are none: name them with --new_heads, or set it to 1",
        ),
        (
            settings.redraw_heads and not (start and settings.new_heads),
            "--redraw_heads true is for the new heads of a finetuning, and there are none: name them with --new_heads, "
            "or leave it out",
        ),
        (
            not training.checkpoint_minutes >= 0,
            f"--training.checkpoint_minutes {training.checkpoint_minutes} must be at least 0",
        ),
        (not training.clip_grad >= 0, f"--training.clip_grad {training.clip_grad} must be at least 0"),
        (not training.weight_decay >= 0, f"--training.weight_decay {training.weight_decay} must be at least 0"),
    ]
