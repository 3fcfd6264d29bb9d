"""Networks of Hugging Face's transformers with random weights, none of which is zero or one, and their folders."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from conftest import TINY, change
from transformers import (
    EsmConfig,
    EsmForMaskedLM,
    EsmForSequenceClassification,
    EsmForTokenClassification,
    PreTrainedModel,
)

from {{cookiecutter.__package_name}}.model.item import MASK, PAD, TOKENS
from {{cookiecutter.__package_name}}.model.settings import Settings

THEIRS: dict[str, type[PreTrainedModel]] = {
    "masked": EsmForMaskedLM,
    "sequence_classifier": EsmForSequenceClassification,
    "sequence_regressor": EsmForSequenceClassification,
    "residue_classifier": EsmForTokenClassification,
    "residue_regressor": EsmForTokenClassification,
}
CLASSES = ["nucleus", "secreted", "membrane", "cytoplasm", "plastid", "mitochondrion"]
"""Those of the sample, in an order of their own."""


def make(network: str, **changes: Any) -> PreTrainedModel:
    """Make the network that answers as one of NETWORKS does."""
    torch.manual_seed(5)
    labels = ["value"] if network.endswith("regressor") else CLASSES
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 32}
    config = {
        **sizes,
        "vocab_size": len(TOKENS),
        "pad_token_id": PAD,
        "mask_token_id": MASK,
        "position_embedding_type": "rotary",
        "token_dropout": True,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "layer_norm_eps": 1e-6,
        "id2label": dict(enumerate(labels)),
    }
    model = THEIRS[network](EsmConfig(**{**config, **changes}))
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.1 * torch.randn_like(weight)
    return model.eval()


def weights_of(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """Return the weights that are trained, by name; without the contact head and the other end of a tie."""
    return {
        name: weight.detach()
        for name, weight in model.named_parameters()
        if "contact_head" not in name and "decoder" not in name
    }


def saved(model: PreTrainedModel, folder: Path, **how: Any) -> Path:
    """Write it as transformers does."""
    model.save_pretrained(folder, **how)
    return folder


def answer(model: PreTrainedModel, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return its logits. Embeddings are made apart, for transformers 4.57 does not tell them what is padding."""
    mask = (batch["sequence"] > 0).long()
    embedded = model.esm.embeddings(batch["tokens"], attention_mask=mask)
    with torch.no_grad():
        return model(inputs_embeds=embedded, attention_mask=mask).logits


def started(folder: Path, network: str, **changes: Any) -> Settings:
    """Return settings with which a tiny network starts from a folder, as the command line gets them."""
    given = change(TINY, network=network, from_hf=str(folder), **changes)
    return replace(given, model=given.from_start()["model"])


def change_config(folder: Path, **changes: Any) -> None:
    """Change config.json of a folder; a key whose value is "left out" is."""
    path = folder / "config.json"
    config = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in config.items() if value != "left out"}))
