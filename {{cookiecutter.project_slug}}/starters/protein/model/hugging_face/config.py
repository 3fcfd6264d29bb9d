"""config.json of Hugging Face's transformers: which of its networks are ours, and in which sizes. No torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ...contracts.item import DataError
from ..item import MASK, PAD, TOKENS

CONFIG_FILE, VOCABULARY_FILE = "config.json", "vocab.txt"

SIZES = {
    "num_layers": "num_hidden_layers",
    "hidden_size": "hidden_size",
    "num_attention_heads": "num_attention_heads",
    "ffn_hidden_size": "intermediate_size",
    "layernorm_epsilon": "layer_norm_eps",
}
"""Our names of what a network is built by, and theirs."""
COUNTS = ("num_layers", "hidden_size", "num_attention_heads", "ffn_hidden_size")
"""Those that are whole numbers."""
DROPOUTS = {"hidden_dropout": "hidden_dropout_prob", "attention_dropout": "attention_probs_dropout_prob"}
"""The same of what only training reads."""

FIXED: dict[str, Any] = {
    "model_type": "esm",
    "vocab_size": len(TOKENS),
    "pad_token_id": PAD,
    "mask_token_id": MASK,
    "position_embedding_type": "rotary",
    "token_dropout": True,
    "emb_layer_norm_before": False,
    "hidden_act": "gelu",
    "tie_word_embeddings": True,
    "is_folding_model": False,
    "is_decoder": False,
    "add_cross_attention": False,
}
"""What each of our networks is."""
MAY_BE_UNSAID = ("hidden_act", "tie_word_embeddings")
"""Keys whose value, where they are missing, is the one above. So it is wherever that is false."""

ARCHITECTURES = {
    "masked": "EsmForMaskedLM",
    "sequence": "EsmForSequenceClassification",
    "residue": "EsmForTokenClassification",
}
"""Their network, by what ours answers for (`weights.HEADS`)."""
REGRESSION, CLASSIFICATION = "regression", "single_label_classification"


def read_config(folder: Path) -> dict[str, Any]:
    """Read config.json of a folder as `save_pretrained` writes it.

    Raises:
        DataError: it is missing or cannot be read, or it describes a network that there is none of here.
    """
    path = folder / CONFIG_FILE
    config = read_json(path)
    for key, needed in FIXED.items():
        found = config.get(key, needed if key in MAY_BE_UNSAID else None)
        if found != needed and not (needed is False and not found):
            raise DataError(_refusal(path, key, found, json.dumps(needed)))
    for ours, key in {**SIZES, **DROPOUTS}.items():
        kind = int if ours in COUNTS else (int, float)
        if not isinstance(found := config.get(key), kind) or isinstance(found, bool):
            raise DataError(_refusal(path, key, found, "a whole number" if ours in COUNTS else "a number"))
    if config.get("problem_type") not in (None, REGRESSION, CLASSIFICATION):
        needed = f"{REGRESSION} or {CLASSIFICATION}"
        raise DataError(_refusal(path, "problem_type", config["problem_type"], needed))
    _check_labels(path, config.get("id2label"))
    _check_vocabulary(folder / VOCABULARY_FILE)
    return config


def _check_labels(path: Path, names: Any) -> None:
    """Raise a DataError unless the classes, if they have names, are numbered."""
    is_numbered = isinstance(names, dict) and all(str(key).isdecimal() for key in names)
    if names is not None and not is_numbered:
        raise DataError(_refusal(path, "id2label", names, "names by number"))


def read_json(path: Path) -> dict[str, Any]:
    """Read a file of names and values; DataError if it is not one."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(
            f"{path} cannot be read ({error.strerror}): give a folder as `save_pretrained` writes it"
        ) from None
    except ValueError as error:
        raise DataError(f"{path} is no JSON ({error}): fetch the folder again") from None
    if not isinstance(values, dict):
        raise DataError(f"{path} holds no values by name: fetch the folder again")
    return values


def _refusal(path: Path, key: str, found: Any, needed: str) -> str:
    return f"{path}: {key} is {json.dumps(found)} and must be {needed}: only networks like ESM-2's can be taken over"


def _check_vocabulary(path: Path) -> None:
    """Raise a DataError if there is a list of tokens, and it is another one than ours."""
    if not path.exists():
        return
    found = [line.strip() for line in path.read_text(encoding="utf-8", errors="replace").splitlines()]
    if found != list(TOKENS):
        raise DataError(f"{path} lists other tokens than ESM-2's {len(TOKENS)}: only these can be taken over")


def sizes_of(config: dict[str, Any]) -> dict[str, Any]:
    """Return what `ModelSettings` calls the sizes and dropouts of a network."""
    return {ours: config[theirs] for ours, theirs in {**SIZES, **DROPOUTS}.items()}


def longest_of(config: dict[str, Any]) -> int | None:
    """Return how many tokens of a protein it reads, whose positions are counted from behind <pad>; None: unknown."""
    count = config.get("max_position_embeddings")
    return count - PAD - 1 if isinstance(count, int) else None


def classes_of(config: dict[str, Any]) -> list[str]:
    """Return the names of the classes; transformers leaves out id2label where it is LABEL_0 and LABEL_1."""
    names = config.get("id2label") or {n: f"LABEL_{n}" for n in range(2)}
    return [names[key] for key in sorted(names, key=int)]


def network_of(config: dict[str, Any]) -> str | None:
    """Return which network of NETWORKS it is; None if it has none of their heads."""
    found = config.get("architectures") or ()
    kind = next((ours for ours, theirs in ARCHITECTURES.items() if theirs in found), None)
    if kind in (None, "masked"):
        return kind
    default = REGRESSION if len(classes_of(config)) == 1 else CLASSIFICATION
    return f"{kind}_regressor" if (config.get("problem_type") or default) == REGRESSION else f"{kind}_classifier"


def check_sizes(folder: Path, network: Any) -> None:
    """Hold a network that is built against config.json; with other heads, say, its weights would fit and mean nothing.

    Args:
        folder: as `save_pretrained` writes it.
        network: its `NetworkConfig`.

    Raises:
        DataError: it has other sizes.
    """
    config = read_config(folder)
    for ours, theirs in SIZES.items():
        if (size := getattr(network, ours)) != config[theirs]:
            raise DataError(f"--model.{ours} {size} is not that of {folder}, {config[theirs]}: leave it out")


def check_head(folder: Path, network: Any) -> None:
    """Hold what a head of config.json answers against that of a network, whose head is as large.

    Names as LABEL_0 are none: whoever knows the classes may name them.

    Raises:
        DataError: they are others.
    """
    names = classes_of(read_config(folder))
    has_names = names != [f"LABEL_{number}" for number in range(len(names))]
    if network.is_classifier and has_names and names != list(network.classes):
        raise DataError(f"--model.classes {network.classes} are not those of {folder}, {names}: leave them out")
