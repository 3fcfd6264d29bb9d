"""An exported network in plain PyTorch: `from load import load`."""

import json
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

TOKENS = "ACDEFGHIKLMNPQRSTVWY?-"
"""Letter k is token k; `?` is a mask, and `-` fills a shorter protein up."""


def mlp(inputs: int, inner: int, outputs: int) -> nn.Sequential:
    """Make two linear layers around a GELU, under their names in the network."""
    return nn.Sequential(OrderedDict(up=nn.Linear(inputs, inner), gelu=nn.GELU(), down=nn.Linear(inner, outputs)))


class Attention(nn.Module):
    """Self-attention; each head's query, key and value lie side by side."""

    def __init__(self, hidden: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query_key_value, self.join = nn.Linear(hidden, 3 * hidden, bias=False), nn.Linear(hidden, hidden)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Map (B, S, H) to (B, S, H)."""
        query, key, value = self.query_key_value(x).unflatten(2, (self.heads, 3, -1)).permute(3, 0, 2, 1, 4)
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=mask[:, None, None, :])
        return self.join(attended.transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Attention and MLP, each with a norm before it."""

    def __init__(self, hidden: int, inner: int, heads: int) -> None:
        super().__init__()
        self.attention_norm, self.attention = nn.LayerNorm(hidden), Attention(hidden, heads)
        self.mlp_norm, self.mlp = nn.LayerNorm(hidden), mlp(hidden, inner, hidden)

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """Map (B, S, H) to (B, S, H)."""
        hidden = hidden + self.attention(self.attention_norm(hidden), mask)
        return hidden + self.mlp(self.mlp_norm(hidden))


class Encoder(nn.Module):
    """The trunk: embedding, blocks, and the norm after them."""

    def __init__(self, model: dict[str, Any]) -> None:
        super().__init__()
        sizes = model["sizes"]
        hidden, inner, heads = sizes["hidden_size"], sizes["ffn_hidden_size"], sizes["num_attention_heads"]
        self.token, self.position = nn.Embedding(len(TOKENS), hidden), nn.Embedding(sizes["sequence_length"], hidden)
        self.blocks = nn.ModuleList(Block(hidden, inner, heads) for _ in range(sizes["num_layers"]))
        self.norm = nn.LayerNorm(hidden)

    def encode(self, tokens: Tensor, is_letter: Tensor) -> Tensor:
        """Map `tokens` and `is_letter`, both (B, S), to (B, S, H)."""
        hidden = self.token(tokens) + self.position.weight
        for block in self.blocks:
            hidden = block(hidden, is_letter)
        return self.norm(hidden)


class Masked(Encoder):
    """Maps `tokens` and `is_letter`, both (B, S), to `logits` (B, S, tokens)."""

    def __init__(self, model: dict[str, Any]) -> None:
        super().__init__(model)
        sizes = model["sizes"]
        self.scores = mlp(sizes["hidden_size"], sizes["ffn_hidden_size"], len(TOKENS))

    def forward(self, tokens: Tensor, is_letter: Tensor) -> dict[str, Tensor]:
        """Compute the scores of every token at every position."""
        return {"logits": self.scores(self.encode(tokens, is_letter))}


class Family(Encoder):
    """Maps `letters` and `is_letter`, both (B, S), to `logits` (B, families)."""

    def __init__(self, model: dict[str, Any]) -> None:
        super().__init__(model)
        self.head = nn.Linear(model["sizes"]["hidden_size"], *model["outputs"]["logits"])

    def forward(self, letters: Tensor, is_letter: Tensor) -> dict[str, Tensor]:
        """Compute the scores of the families."""
        where = is_letter.unsqueeze(2)
        total = (self.encode(letters, is_letter) * where).sum(dim=1)
        return {"logits": self.head(total / where.sum(dim=1).clamp(min=1))}


def load(folder: Path = Path(__file__).parent) -> Encoder:
    """Return the network with the weights of an export, ready to predict."""
    model = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    network = {"masked": Masked, "family": Family}[model["network"]](model)
    network.load_state_dict(load_file(folder / "model.safetensors"), assign=True)
    return network.eval()
