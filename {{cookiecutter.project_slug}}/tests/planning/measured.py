"""What the tests of planning let ranks do: plan, and train to measure what was planned."""

from functools import partial
from typing import Any

import torch
from in_ranks import in_step
from nemo.utils.model_utils import unwrap_model

from {{cookiecutter.__package_name}}.model.settings import Settings
from {{cookiecutter.__package_name}}.planning.plan import Plan, make_plan
from {{cookiecutter.__package_name}}.training import train as training

BEGIN, END = "the last step begins", "the last step has ended"


def planned(settings: Settings) -> Plan:
    return make_plan(settings)


def peak(settings: Settings) -> int:
    """Train two steps; return the most bytes that torch has held on the CPU at a time in the second of them."""
    profiler = torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True)
    with profiler:
        in_step(1, partial(mark, BEGIN))
        in_step(2, partial(mark, END))
        training.train(settings)
    events = list(profiler.profiler.kineto_results.events())
    begin, end = (next(event.start_ns() for event in events if event.name() == name) for name in (BEGIN, END))
    held = most = 0
    for event in sorted((event for event in events if event.name() == "[memory]"), key=lambda event: event.start_ns()):
        held += event.nbytes()
        if begin <= event.start_ns() <= end:
            most = max(most, held)
    return most


def mark(name: str, trainer: Any) -> None:
    with torch.profiler.record_function(name):
        pass


def sizes(settings: Settings) -> tuple[int, int, int]:
    """Train; return how many numbers this rank's weights, gradients and optimizer state are."""
    found = (0, 0, 0)

    def count(trainer: Any) -> None:
        nonlocal found
        stages = unwrap_model(list(trainer.strategy.model))
        weights = {id(weight): weight for stage in stages for weight in stage.parameters()}.values()
        gradients = [weight.main_grad for weight in weights if weight.requires_grad]
        states = trainer.strategy.optimizers[0].mcore_optimizer.optimizer.state.values()
        parts = [part for state in states for part in state.values() if isinstance(part, torch.Tensor)]
        found = tuple(sum(tensor.numel() for tensor in tensors) for tensors in (weights, gradients, parts))

    in_step(settings.training.max_steps, count)
    training.train(settings)
    return found
