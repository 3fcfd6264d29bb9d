"""README.md of an export: what the network is, what it was trained with, and its figures."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from ...contracts.names import CHANGED, EVALUATION_FILE, VAL_LOSS
from ...contracts.reading import in_flags, read_evaluation
from ..reading.packing import SPECIAL_TOKENS
from ..settings import Settings

CARD_FILE = "README.md"

CARD = """\
---
library_name: transformers
tags: [esm, protein]
---
# {title}

An ESM-2 network (Lin et al., 2023) that answers as `{network}`: {num_layers} layers, {hidden_size} features,
{num_attention_heads} heads. Best step: {step}, validation loss {val_loss}.

```python
from transformers import {architecture}, EsmTokenizer

tokenizer = EsmTokenizer.from_pretrained("FOLDER")
model = {architecture}.from_pretrained("FOLDER")
```

`load.py`, where it is there, loads the same without a tokenizer, and gives `logits` and `hidden`. Load in float32, as
`from_pretrained` does: in bfloat16 transformers rounds rotary positions. With masks and padding it scales embeddings by
the padded length; `load.py` shows how not to. Of a protein of more than {most} residues `predict` reads both ends, and
the tokenizer leaves out the end if it is to cut: give it `sequence[:{first}] + sequence[-{last}:]`. The contact head is
not trained (zeros): `predict_contacts` gives 0.5.

## Data, sizes and training

```yaml
{settings}```

## Figures on the test set

{figures}
"""


def card(architecture: str, settings: Settings, description: dict[str, Any]) -> str:
    """Return a short model card.

    Args:
        architecture: class of transformers that loads it.
        settings: the run.
        description: what model.json says.
    """
    most = settings.model.max_length - SPECIAL_TOKENS
    groups = {name: asdict(getattr(settings, name)) for name in ("data", "model", "training")}
    return CARD.format(
        title=Path(settings.run_dir).resolve().name,
        architecture=architecture,
        network=settings.network,
        most=most,
        first=most - most // 2,
        last=most // 2,
        step=_or_unknown(description["step"]),
        val_loss=_or_unknown(description[VAL_LOSS]),
        settings=yaml.safe_dump(groups, sort_keys=False),
        figures=_figures(Path(settings.run_dir, EVALUATION_FILE)),
        **{name: groups["model"][name] for name in ("num_layers", "hidden_size", "num_attention_heads")},
    )


def _or_unknown(value: float | None) -> float | str:
    return "unknown" if value is None else value


def _figures(evaluation: Path) -> str:
    if not evaluation.exists():
        return "The run was not evaluated when it was exported."
    figures = read_evaluation(evaluation)
    scores = {name: value for name, value in figures.items() if name.startswith("test_") or name == "num_items"}
    changes = f"Scored with {in_flags(figures[CHANGED])}:\n\n" if figures[CHANGED] else ""
    return changes + "\n".join(f"- {name}: {value:.4g}" for name, value in scores.items())
