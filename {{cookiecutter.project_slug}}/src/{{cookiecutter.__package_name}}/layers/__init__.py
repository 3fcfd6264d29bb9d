"""Pieces of any network, from Megatron's parallel layers: they know every way to split it.

Shapes, in the order of the letters: S sequence, B micro batch, H hidden size. With sequence parallel, each tensor
parallel rank holds its own part of S; what needs the whole sequence stands between `gather_sequence` and
`scatter_sequence`, or is `Attention`, which sees all of it.
"""

from ..contracts.stage import PipelineStage
from ..contracts.start import start_weights
from .attention import Attention, Packed, Rotary, rotary
from .parallel import (
    MLP,
    Blocks,
    Dropout,
    Norm,
    Residual,
    gather_sequence,
    linear_by_row,
    row_by_row,
    scatter_sequence,
    small_linear,
    whole_linear,
    without_sequence_parallel,
)
from .vocabulary import TiedScores, TiedStage, embedding

__all__ = [
    "MLP",
    "Attention",
    "Blocks",
    "Dropout",
    "Norm",
    "Packed",
    "PipelineStage",
    "Residual",
    "Rotary",
    "TiedScores",
    "TiedStage",
    "embedding",
    "gather_sequence",
    "linear_by_row",
    "rotary",
    "row_by_row",
    "scatter_sequence",
    "small_linear",
    "start_weights",
    "whole_linear",
    "without_sequence_parallel",
]
