"""The weights of the networks under the names that Hugging Face's transformers gives them, and back.

Ours differ in two ways: queries, keys and values of a head lie side by side in one matrix, so that tensor parallel
ranks share heads; the embedding has rows that are no tokens; and a head of values has the units of its labels beside
its last layer, which has them in it there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from ..item import TOKENS
from ..settings import VOCABULARY_ROWS

TRUNK = {
    "trunk.embedding.weight": "esm.embeddings.word_embeddings.weight",
    "trunk.norm": "esm.encoder.emb_layer_norm_after",
    "trunk.blocks.N.attention_norm": "esm.encoder.layer.N.attention.LayerNorm",
    "trunk.blocks.N.attention.query_key_value": "esm.encoder.layer.N.attention.self.query+key+value",
    "trunk.blocks.N.attention.join": "esm.encoder.layer.N.attention.output.dense",
    "trunk.blocks.N.mlp_norm": "esm.encoder.layer.N.LayerNorm",
    "trunk.blocks.N.mlp.up": "esm.encoder.layer.N.intermediate.dense",
    "trunk.blocks.N.mlp.down": "esm.encoder.layer.N.output.dense",
}
HEADS = {
    "masked": {
        "head.dense": "lm_head.dense",
        "head.norm": "lm_head.layer_norm",
        "head.scores.linear.bias": "lm_head.bias",
    },
    "sequence": {"head.dense": "classifier.dense", "head.scores": "classifier.out_proj"},
    "residue": {"head.scores": "classifier"},
}
"""By what networks answer for."""

UNITS, LAST = "head.units.bits", "head.scores"
"""What says in which units a head of values answers, and its last layer."""

PARTS = ("query", "key", "value")
JOINED = "+".join(PARTS)
OF_TOKENS = ("esm.embeddings.word_embeddings.weight", "lm_head.bias")
"""Weights with a row a token."""


def kind_of(network: str) -> str:
    """Return which of HEADS a network of NETWORKS has."""
    return network.partition("_")[0]


def to_hugging_face(ours: Mapping[str, Tensor], network: str, heads: int) -> dict[str, Tensor]:
    """Return the weights under the names of transformers, all copied.

    Args:
        ours: whole weights by name.
        network: of NETWORKS.
        heads: number of attention heads.
    """
    theirs: dict[str, Tensor] = {}
    for name, weight in _in_units(ours).items():
        renamed = _renamed(name, {**TRUNK, **HEADS[kind_of(network)]})
        if JOINED in renamed:
            parts = weight.unflatten(0, (heads, len(PARTS), -1)).unbind(1)
            names = [renamed.replace(JOINED, part) for part in PARTS]
            theirs |= {name: part.flatten(0, 1) for name, part in zip(names, parts, strict=True)}
        else:
            theirs[renamed] = weight[: len(TOKENS)].clone() if renamed in OF_TOKENS else weight.clone()
    return theirs


def from_hugging_face(
    name: str, theirs: Mapping[str, Tensor], network: str, heads: int, units: tuple[float, float] = (0.0, 1.0)
) -> Tensor:
    """Return one of our weights, whole.

    Args:
        name: ours.
        theirs: weights by the names of transformers; only those that are needed are looked up.
        network: of NETWORKS.
        heads: number of attention heads.
        units: mean and deviation that our network adds and multiplies by after its last layer; 0 and 1: none.

    Raises:
        KeyError: there is no such weight; its argument is their name.
        ValueError: it has not a row for each token.
    """
    renamed = _renamed(name, {**TRUNK, **HEADS[kind_of(network)]})
    if name in (f"{LAST}.weight", f"{LAST}.bias"):
        mean, deviation = units
        return (theirs[renamed].double() - (mean if name.endswith("bias") else 0.0)) / deviation
    if JOINED in renamed:
        parts = [theirs[renamed.replace(JOINED, part)].unflatten(0, (heads, -1)) for part in PARTS]
        return torch.stack(parts, dim=1).flatten(0, 2)
    weight = theirs[renamed]
    if renamed in OF_TOKENS:
        if len(weight) != len(TOKENS):
            raise ValueError(f"it has {len(weight)} rows, and there are {len(TOKENS)} tokens")
        padding = weight.new_zeros(VOCABULARY_ROWS - len(weight), *weight.shape[1:])
        return torch.cat((weight, padding))
    return weight


def _in_units(ours: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Return weights whose last layer answers in the units of the labels, in float32: bf16 would round a mean."""
    if UNITS not in ours:
        return ours
    mean, deviation = ours[UNITS].view(torch.float64).tolist()
    weight, bias = (ours[f"{LAST}.{part}"].double() * deviation for part in ("weight", "bias"))
    others = {name: weight for name, weight in ours.items() if name != UNITS}
    return {**others, f"{LAST}.weight": weight.float(), f"{LAST}.bias": (bias + mean).float()}


def _renamed(name: str, table: dict[str, str]) -> str:
    """Return a name by the table, which has the number of a block as N, and of a layer only its name."""
    number = re.search(r"\.blocks\.(\d+)\.", name)
    key = name.replace(number.group(0), ".blocks.N.") if number else name
    layer, _, kind = key.rpartition(".")
    new = table[key] if key in table else f"{table[layer]}.{kind}"
    return new.replace(".N.", f".{number.group(1)}.") if number else new
