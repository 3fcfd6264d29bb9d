"""How a network's weights start: drawn from a seed for each part, or loaded from another run.

Both must not depend on the layout. So every part draws from a seed of its own, whichever stage builds it, and loading
takes from a distributed checkpoint of any layout what this stage needs.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import torch
from megatron.core import dist_checkpointing
from megatron.core.dist_checkpointing.mapping import ShardedTensor
from torch import nn

from .errors import UserError
from .stage import PipelineStage

_SAVED = "module."  # under which NeMo saves the network

Fits: TypeAlias = Callable[[str, list[ShardedTensor]], bool]
"""Tells whether a start has a head: the prefix of its name -> its weights in the network -> all of them, in these
shapes."""


class StartWeightsError(UserError):
    """The network cannot be given its start weights."""


@contextmanager
def start_weights(config: Any, part: str) -> Iterator[None]:
    """Draw the start weights of a part from a seed of its own: the config's `init_seed` and the part's name."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(zlib.crc32(f"{config.init_seed}:{part}".encode()))
        yield


def load_start_weights(stage: PipelineStage, checkpoint: Path, new_heads: tuple[str, ...] | None) -> None:
    """Load the weights of this stage from a distributed checkpoint of any layout.

    Args:
        stage: the freshly built stage; heads that the checkpoint has not keep their random start weights.
        checkpoint: the folder with the distributed checkpoint's files.
        new_heads: name prefixes whose weights the checkpoint may lack; see `wanted_weights`. None: it is a checkpoint
            of this same network.

    Raises:
        StartWeightsError: a weight outside the new heads is missing or of another shape, or a prefix names no head; or
            the checkpoint of this same network has a weight that the network has not. A pipeline stage cannot tell.
    """
    metadata = dist_checkpointing.load_tensors_metadata(str(checkpoint)).items()
    saved = {key.removeprefix(_SAVED): tensor.global_shape for key, tensor in metadata if key.startswith(_SAVED)}

    def fits(head: str, weights: list[ShardedTensor]) -> bool:
        return {name: shape for name, shape in saved.items() if _is_in(name, (head,))} == _shapes(weights)

    old = wanted_weights(stage, new_heads, fits, prefix=_SAVED)
    wanted = _shapes(list(old.values()))
    problems = [
        f"{name} is {saved[name]}, not {shape}" if name in saved else f"{name} is missing"
        for name, shape in wanted.items()
        if saved.get(name) != shape
    ]
    if new_heads is None and stage.pre_process and stage.post_process:
        problems += [f"{name} has no place in it" for name in sorted(saved.keys() - wanted.keys())]
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
    stage: PipelineStage, new_heads: tuple[str, ...] | None, fits: Fits, prefix: str = ""
) -> dict[str, ShardedTensor]:
    """Return this rank's part of each weight that is taken from a start, by name.

    Those are all but the weights of heads that the start has not. A head is taken as a whole or not at all, and
    `stage.loaded_heads` then names those that are.

    Args:
        stage: the freshly built stage.
        new_heads: name prefixes of the heads that the start may lack; a prefix ends at a dot, so that "head" does not
            match "head_norm.weight". None: none.
        fits: whether the start has a head; not asked if heads are to be drawn anew anyway.
        prefix: put before the key of each weight, under which it is found.

    Raises:
        StartWeightsError: a prefix of `new_heads` names nothing, or what is not on the last stage alone.
    """
    heads, state = new_heads or (), stage.sharded_state_dict(prefix=prefix)
    weights = {name.removeprefix(prefix): part for name, part in state.items() if isinstance(part, ShardedTensor)}
    keys = {name: part.key.removeprefix(prefix) for name, part in weights.items()}
    _check_heads(stage, heads, list(keys.values()))
    drawn: tuple[str, ...] = ()
    for head in heads if stage.post_process else ():
        parts = [part for name, part in weights.items() if _is_in(keys[name], (head,))]
        if stage.config.redraw_heads or not fits(head, parts):
            drawn += (head,)
    stage.loaded_heads = tuple(head for head in heads if stage.post_process and not _is_in(head, drawn))
    return {name: part for name, part in weights.items() if not _is_in(keys[name], drawn)}


def head_weights(stage: PipelineStage, heads: tuple[str, ...]) -> list[nn.Parameter]:
    """Return the weights of this stage that belong to heads, by the names they have in a checkpoint.

    The copy of a tied weight has the name of the original there, and new layers the same numbers on every stage.
    """
    saved = stage.sharded_state_dict()
    return [weight for name, weight in stage.named_parameters() if _is_in(saved[name].key, heads)]


def misfit(start: Path, problems: list[str], mend: str) -> StartWeightsError:
    """Return the error of a start that does not fit the network: in which weights, and what to do."""
    return StartWeightsError(f"{start} does not fit this network ({_shortened(problems)}). {mend}.")


def _shortened(problems: list[str], most: int = 5) -> str:
    more = f"; and {len(problems) - most} more" if len(problems) > most else ""
    return "; ".join(problems[:most]) + more


def _is_in(name: str, heads: tuple[str, ...]) -> bool:
    return any(name == head or name.startswith(f"{head}.") for head in heads)


def _shapes(weights: list[ShardedTensor]) -> dict[str, tuple[int, ...]]:
    """Return the whole shapes of weights by the names they have in a checkpoint."""
    return {weight.key.removeprefix(_SAVED): weight.global_shape for weight in weights}


def _check_heads(stage: PipelineStage, heads: tuple[str, ...], names: list[str]) -> None:
    """Raise a StartWeightsError unless heads are on the last stage, and there alone: it decides which are new."""
    for head in heads:
        is_here = any(_is_in(name, (head,)) for name in names)
        if is_here and not stage.post_process:
            raise StartWeightsError(
                f"--new_heads {head}: heads are on the last pipeline stage, and parts of this are on another one: "
                "name a part that is not, or set --parallel.pipeline 1."
            )
        if stage.post_process and not is_here:
            parts = ", ".join(sorted({name.split(".")[0] for name in names}))
            raise StartWeightsError(f"--new_heads {head}: the network has no such part; its parts are {parts}.")
