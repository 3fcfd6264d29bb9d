"""An export as transformers has it: `EsmFor... .from_pretrained(folder)` computes what the run's network does.

What transformers has and the networks here have not is written too, for it would be made up where it is missing: the
frequencies of rotary positions, and the contact head, which is not trained, as zeros.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from ...contracts.config import NetworkConfig
from ...contracts.names import WEIGHTS_FILE
from ..item import CLS, EOS, MASK, PAD, TOKENS, UNK
from ..settings import Settings
from .card import CARD_FILE, card
from .config import (
    ARCHITECTURES,
    CLASSIFICATION,
    CONFIG_FILE,
    DROPOUTS,
    FIXED,
    REGRESSION,
    SIZES,
    VOCABULARY_FILE,
)
from .weights import to_hugging_face

HEAD_FILE, HEAD = "head.safetensors", "classifier."
TOKENIZER_FILE, SPECIAL_TOKENS_FILE = "tokenizer_config.json", "special_tokens_map.json"
FILES = (
    *(CONFIG_FILE, WEIGHTS_FILE, HEAD_FILE, CARD_FILE),
    *(VOCABULARY_FILE, TOKENIZER_FILE, SPECIAL_TOKENS_FILE),
)

SPECIAL_TOKENS = {
    "cls_token": TOKENS[CLS],
    "eos_token": TOKENS[EOS],
    "mask_token": TOKENS[MASK],
    "pad_token": TOKENS[PAD],
    "unk_token": TOKENS[UNK],
}


def write_folder(
    config: NetworkConfig, folder: Path, weights: dict[str, Tensor], settings: Settings, description: dict[str, Any]
) -> str | None:
    """Write what `from_pretrained` reads; see `NetworkConfig.export`."""
    theirs = to_hugging_face(weights, config.answers_for, config.num_attention_heads) | untrained(config)
    pools = config.answers_for == "sequence" and config.pooling != "first"
    if pools:
        head = {name.removeprefix(HEAD): theirs.pop(name) for name in list(theirs) if name.startswith(HEAD)}
        _write_weights(folder / HEAD_FILE, head)
    _write_weights(folder / WEIGHTS_FILE, theirs)
    architecture = "EsmModel" if pools else ARCHITECTURES[config.answers_for]
    _write_json(folder / CONFIG_FILE, config_of(config, architecture, description["dtype"]))
    _write_tokenizer(folder, config.max_length)
    (folder / CARD_FILE).write_text(card(architecture, settings, description), encoding="utf-8")
    if not pools:
        return None
    return (
        "transformers has no head over the mean of the residues: the folder is an EsmModel, and its head, "
        f"{HEAD_FILE}, is for load.py"
    )


def untrained(config: NetworkConfig) -> dict[str, Tensor]:
    """Return what transformers keeps beside the trained weights, float32."""
    size = config.hidden_size // config.num_attention_heads
    frequencies = 1.0 / 10_000 ** (torch.arange(0, size, 2, dtype=torch.float32) / size)
    rotary = "esm.encoder.layer.{}.attention.self.rotary_embeddings.inv_freq"
    return {
        **{rotary.format(number): frequencies.clone() for number in range(config.num_layers)},
        "esm.contact_head.regression.weight": torch.zeros(1, config.num_layers * config.num_attention_heads),
        "esm.contact_head.regression.bias": torch.zeros(1),
    }


def config_of(config: NetworkConfig, architecture: str, dtype: str) -> dict[str, Any]:
    """Return what config.json says of a network."""
    return {
        "architectures": [architecture],
        **FIXED,
        **{theirs: getattr(config, ours) for ours, theirs in {**SIZES, **DROPOUTS}.items()},
        "max_position_embeddings": config.max_length + PAD + 1,  # counted from behind <pad>; nothing depends on it
        "torch_dtype": dtype,
        **_labels(config),
    }


def _labels(config: NetworkConfig) -> dict[str, Any]:
    """Return what the outputs of a head mean."""
    if config.answers_for == "masked":
        return {}
    names = config.classes if config.is_classifier else ["value"]
    return {
        "problem_type": CLASSIFICATION if config.is_classifier else REGRESSION,
        "id2label": {str(number): name for number, name in enumerate(names)},
        "label2id": {name: number for number, name in enumerate(names)},
    }


def _write_tokenizer(folder: Path, max_length: int) -> None:
    """Write what `EsmTokenizer.from_pretrained` reads."""
    (folder / VOCABULARY_FILE).write_text("\n".join(TOKENS), encoding="utf-8")
    _write_json(folder / SPECIAL_TOKENS_FILE, SPECIAL_TOKENS)
    tokenizer = {"tokenizer_class": "EsmTokenizer", "model_max_length": max_length, **SPECIAL_TOKENS}
    _write_json(folder / TOKENIZER_FILE, {**tokenizer, "clean_up_tokenization_spaces": False})


def _write_weights(path: Path, weights: dict[str, Tensor]) -> None:
    path.write_bytes(save(weights, {"format": "pt"}))  # save_file leaves it to the owner only


def _write_json(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
