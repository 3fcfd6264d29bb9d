"""The exported network by transformers alone: `from load import load`."""

import json
from pathlib import Path

import torch
import torch.nn.functional as F
import transformers
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers.models.esm.modeling_esm import EsmClassificationHead

PAD = 1


class Network(nn.Module):
    """Maps `tokens` and `sequence`, both int64 (B, S), to `logits` and `hidden` (B, S, H), float32.

    `sequence` is 1 where there is a protein, and 0 where there is padding; or 1, 2, ... by protein, if rows are packed.
    """

    def __init__(self, esm: transformers.EsmModel, head: nn.Module, longest: int, pools: bool) -> None:
        super().__init__()
        self.esm, self.head, self.longest, self.pools = esm, head, longest, pools

    def forward(self, tokens: Tensor, sequence: Tensor) -> dict[str, Tensor]:
        """Answer for every row; proteins of a packed row do not see each other."""
        if tokens.shape[1] <= self.longest:
            return self.answer(tokens, sequence > 0)
        outputs = self.answer(tokens, sequence == 0)
        for number in range(1, int(sequence.max()) + 1):
            is_seen = sequence == number
            answers = self.answer(tokens, is_seen)
            outputs = {name: torch.where(is_seen[..., None], answers[name], old) for name, old in outputs.items()}
        return outputs

    def answer(self, tokens: Tensor, is_seen: Tensor) -> dict[str, Tensor]:
        """Answer for one protein a row, or for its padding."""
        tokens, mask = tokens.where(is_seen, PAD), is_seen.long()
        # made apart, since transformers 4.57 does not tell the embeddings what is padding
        embedded = self.esm.embeddings(tokens, attention_mask=mask).where((tokens != PAD).unsqueeze(-1), 0.0)
        hidden = self.esm(inputs_embeds=embedded, attention_mask=mask).last_hidden_state
        seen = mean_of_residues(hidden, is_seen).unsqueeze(1) if self.pools else hidden
        return {"logits": self.head(seen), "hidden": hidden}


def mean_of_residues(hidden: Tensor, is_seen: Tensor) -> Tensor:
    """Map (B, S, H) to (B, H), without padding, <cls> and <eos>."""
    ends = F.pad(is_seen, (1, 1))
    is_residue = (is_seen & ends[:, :-2] & ends[:, 2:]).unsqueeze(-1)
    return torch.where(is_residue, hidden, 0.0).sum(dim=1) / is_residue.sum(dim=1).clamp(min=1)


def load(folder: Path = Path(__file__).parent) -> Network:
    """Return the network with the weights of an export, ready to predict, in float32 whatever it was trained in."""
    sizes = json.loads((folder / "model.json").read_text(encoding="utf-8"))["sizes"]
    if pools := (folder / "head.safetensors").exists():
        esm = transformers.EsmModel.from_pretrained(folder, add_pooling_layer=False)
        head: nn.Module = EsmClassificationHead(esm.config)
        head.load_state_dict(load_file(folder / "head.safetensors"))
    else:
        [architecture] = transformers.EsmConfig.from_pretrained(folder).architectures or []
        model = getattr(transformers, architecture).from_pretrained(folder)
        esm, head = model.esm, model.lm_head if architecture == "EsmForMaskedLM" else model.classifier
    return Network(esm, head, sizes["max_length"], pools).eval()
