"""Start weights from a folder that transformers wrote: each rank reads what its stage holds, in every layout."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from megatron.core.dist_checkpointing.mapping import ShardedTensor
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ...contracts.item import DataError
from ...contracts.names import WEIGHTS_FILE
from ...contracts.stage import PipelineStage
from ...contracts.start import misfit, wanted_weights
from .config import check_head, check_sizes, longest_of, read_config, read_json
from .weights import UNITS, from_hugging_face

INDEX_FILE = f"{WEIGHTS_FILE}.index.json"
PICKLE_FILES = "pytorch_model*.bin*"
TRUNK = "esm."
"""Begins the names of the trunk's weights, unless the network is an EsmModel, which is the trunk alone."""


class FolderWeights(Mapping[str, Tensor]):
    """The weights of a folder by their names in transformers, each read from its file when it is asked for."""

    def __init__(self, folder: Path) -> None:
        """Open the files of a folder as `save_pretrained` writes it; DataError if they cannot be used."""
        files = [_opened(path) for path in _files_of(folder)]
        self._files = {name: file for file in files for name in file.keys()}  # noqa: SIM118 (it is no dict)

    def __getitem__(self, name: str) -> Tensor:
        """Read a weight; KeyError if there is none of this name."""
        found = name if name in self._files else name.removeprefix(TRUNK)
        if found not in self._files:
            raise KeyError(name)
        return self._files[found].get_tensor(found)

    def __iter__(self) -> Iterator[str]:
        """Go through the names."""
        return iter(self._files)

    def __len__(self) -> int:
        """Return how many weights there are."""
        return len(self._files)


def load_folder(stage: PipelineStage, folder: Path, answers_for: str, new_heads: tuple[str, ...] | None) -> None:
    """Give a stage the weights of a folder, in the stage's own dtype.

    Args:
        stage: the freshly built stage; heads that the folder has not keep their random start weights.
        folder: as `save_pretrained` writes it.
        answers_for: a name in `weights.HEADS`.
        new_heads: name prefixes whose weights the folder may lack; None: none.

    Raises:
        DataError: the folder cannot be used.
        StartWeightsError: a weight outside the new heads is missing or of another shape.
    """
    check_sizes(folder, stage.config)
    if stage.pre_process and torch.distributed.get_rank() == 0:
        _tell_of_longer(folder, stage.config.max_length)
    theirs, problems = FolderWeights(folder), []

    def whole(part: ShardedTensor) -> Tensor:
        if part.key == UNITS:
            return part.data  # those of the labels to train on, which the folder's head is to answer in
        units = getattr(stage.config, "label_units", (0.0, 1.0))
        found = from_hugging_face(part.key, theirs, answers_for, stage.config.num_attention_heads, units)
        if found.shape != part.global_shape:
            raise ValueError(f"it is {tuple(found.shape)}, not {tuple(part.global_shape)}")
        return found

    def fits(head: str, parts: list[ShardedTensor]) -> bool:
        try:
            for part in parts:
                whole(part)
            check_head(folder, stage.config)
        except (DataError, KeyError, ValueError, RuntimeError):
            return False
        return True

    for name, part in wanted_weights(stage, new_heads, fits).items():
        try:
            _fill(part, whole(part))
        except KeyError as error:
            problems.append(f"{error.args[0]} is missing")
        except (ValueError, RuntimeError) as error:
            problems.append(f"{name}: {' '.join(str(error).split())}")
    if problems:
        mend = "Give a folder with that head, or name the parts that may start anew with --new_heads"
        raise misfit(folder, problems, f"{mend} (now: {', '.join(new_heads or ()) or 'none'})")
    if not new_heads and answers_for != "masked":
        check_head(folder, stage.config)


def _tell_of_longer(folder: Path, max_length: int) -> None:
    """Tell a person that the network of a folder has read longer proteins: a row of that size costs more."""
    longest = longest_of(read_config(folder))
    if longest is not None and longest > max_length:
        print(
            f"{folder} is for proteins of up to {longest} tokens, and no more than --model.max_length {max_length} are "
            f"read here: --model.max_length {longest} reads as many, and takes more time and memory",
            file=sys.stderr,
            flush=True,
        )


def _fill(part: ShardedTensor, whole: Tensor) -> None:
    """Copy a rank's part of a weight."""
    where = tuple(slice(start, start + size) for start, size in zip(part.global_offset, part.local_shape, strict=True))
    with torch.no_grad():
        part.data.copy_(whole[where])


def _files_of(folder: Path) -> list[Path]:
    """Return the files of the weights: one, or those that the index of a large network names."""
    if (folder / WEIGHTS_FILE).exists():
        return [folder / WEIGHTS_FILE]
    if (folder / INDEX_FILE).exists():
        shards = read_json(folder / INDEX_FILE).get("weight_map")
        if not isinstance(shards, dict):
            raise DataError(f"{folder / INDEX_FILE} names no files: fetch the folder again")
        return [folder / str(name) for name in sorted(set(shards.values()))]
    if any(folder.glob(PICKLE_FILES)):
        raise DataError(
            f"{folder} has its weights as a pickle, which can run any code and is not read: write them with "
            "`model.save_pretrained(DIR, safe_serialization=True)`"
        )
    raise DataError(f"{folder} has no {WEIGHTS_FILE}: give a folder as `save_pretrained` writes it")


def _opened(path: Path) -> Any:
    try:
        return safe_open(path, framework="pt")
    except (OSError, SafetensorError) as error:
        raise DataError(f"{path} cannot be read ({' '.join(str(error).split())}): fetch the folder again") from None
