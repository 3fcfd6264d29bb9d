"""How a network's weights start: drawn from a seed for each part, or loaded from another run.

Both must not depend on the layout. So every part draws from a seed of its own, whichever stage builds it, and loading
takes from a distributed checkpoint of any layout what this stage needs.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from megatron.core import dist_checkpointing
from megatron.core.dist_checkpointing.mapping import ShardedTensor
from torch import nn

from .errors import UserError
from .stage import PipelineStage

_SAVED = "module."  # under which NeMo saves the network


class StartWeightsError(UserError):
    """The network cannot be given its start weights."""


@contextmanager
def start_weights(config: Any, part: str) -> Iterator[None]:
    """Draw the start weights of a part from a seed of its own: the config's `init_seed` and the part's name."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(zlib.crc32(f"{config.init_seed}:{part}".encode()))
        yield


def load_start_weights(stage: PipelineStage, checkpoint: Path, new_heads: tuple[str, ...] | None) -> None:
    """Load every weight of this stage but the new heads' from a distributed checkpoint of any layout.

    Args:
        stage: the freshly built stage; its new heads keep their random start weights.
        checkpoint: the folder with the distributed checkpoint's files.
        new_heads: name prefixes whose weights the checkpoint may lack; a prefix ends at a dot, so that
            "head" does not match "head_norm.weight". None: it is a checkpoint of this same network.

    Raises:
        StartWeightsError: a weight outside the new heads is missing or of another shape, or a prefix names nothing; or
            the checkpoint of this same network has a weight that the network has not. A pipeline stage cannot tell.
    """
    saved = dist_checkpointing.load_tensors_metadata(str(checkpoint))
    old = wanted_weights(stage, new_heads, prefix=_SAVED)
    problems = [
        f"{name} is missing"
        if tensor.key not in saved
        else f"{name} is {saved[tensor.key].global_shape}, not {tensor.global_shape}"
        for name, tensor in old.items()
        if tensor.key not in saved or saved[tensor.key].global_shape != tensor.global_shape
    ]
    if new_heads is None and stage.pre_process and stage.post_process:
        removed = {key for key in saved if key.startswith(_SAVED)} - {tensor.key for tensor in old.values()}
        problems += [f"{key.removeprefix(_SAVED)} has no place in it" for key in sorted(removed)]
    if problems:
        mend = (
            "The network was another when it was trained: restore it, or train anew in another --run_dir"
            if new_heads is None
            else "Use the model sizes of that run, or name the parts that may start anew with --new_heads "
            f"(now: {', '.join(new_heads) or 'none'})"
        )
        raise misfit(checkpoint, problems, mend)
    # Each virtual stage is loaded by itself: the one with the copy of a tied weight has no rank with the original
    # beside it then, and the check of who reads what takes that for a hole.
    found = dist_checkpointing.load(old, str(checkpoint), validate_access_integrity=False)
    stage.load_state_dict(found, strict=False)


def wanted_weights(
    stage: PipelineStage, new_heads: tuple[str, ...] | None, prefix: str = ""
) -> dict[str, ShardedTensor]:
    """Return this rank's part of each weight that a start must have, by name.

    Args:
        stage: the freshly built stage.
        new_heads: name prefixes of the weights to leave out; see `load_start_weights`.
        prefix: put before the key of each, under which it is found.

    Raises:
        StartWeightsError: a prefix of `new_heads` names nothing.
    """
    heads = new_heads or ()
    _check_heads(stage, heads)
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in stage.sharded_state_dict(prefix=prefix).items()
        if isinstance(tensor, ShardedTensor) and not _is_new(tensor.key.removeprefix(prefix), heads)
    }


def new_weights(stage: PipelineStage, new_heads: tuple[str, ...]) -> list[nn.Parameter]:
    """Return the weights of this stage that belong to new heads, by the names they have in a checkpoint.

    The copy of a tied weight has the name of the original there, and new layers the same numbers on every stage.
    """
    saved = stage.sharded_state_dict()
    return [weight for name, weight in stage.named_parameters() if _is_new(saved[name].key, new_heads)]


def misfit(start: Path, problems: list[str], mend: str) -> StartWeightsError:
    """Return the error of a start that does not fit the network: in which weights, and what to do."""
    return StartWeightsError(f"{start} does not fit this network ({_shortened(problems)}). {mend}.")


def _shortened(problems: list[str], most: int = 5) -> str:
    more = f"; and {len(problems) - most} more" if len(problems) > most else ""
    return "; ".join(problems[:most]) + more


def _is_new(name: str, new_heads: tuple[str, ...]) -> bool:
    return any(name == head or name.startswith(f"{head}.") for head in new_heads)


def _check_heads(stage: PipelineStage, new_heads: tuple[str, ...]) -> None:
    if not stage.post_process:
        return  # heads live on the last stage, which checks them
    names = [name for name, _ in stage.named_parameters()]
    for head in new_heads:
        if not any(_is_new(name, (head,)) for name in names):
            parts = ", ".join(sorted({name.split(".")[0] for name in names}))
            raise StartWeightsError(f"--new_heads {head}: the network has no such part; its parts are {parts}.")
