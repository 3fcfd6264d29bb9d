"""The exported network in plain PyTorch: `from load import load`."""

import json
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn


def mlp(inputs: int, inner: int, outputs: int) -> nn.Sequential:
    """Make two linear layers around a GELU, under their names in the network."""
    return nn.Sequential(OrderedDict(up=nn.Linear(inputs, inner), gelu=nn.GELU(), down=nn.Linear(inner, outputs)))


class Block(nn.Module):
    """A residual block that mixes steps, then features."""

    def __init__(self, steps: int, hidden: int, inner: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(hidden)
        self.steps, self.mlp = mlp(steps, inner, steps), mlp(hidden, inner, hidden)

    def forward(self, hidden: Tensor) -> Tensor:
        """Map (B, S, H) to (B, S, H)."""
        x = self.norm(hidden)
        return hidden + self.mlp(x + self.steps(x.transpose(1, 2)).transpose(1, 2))


class Network(nn.Module):
    """Maps waves to a dict of outputs; model.json has the shapes of both, without the batch."""

    def __init__(self, model: dict[str, Any]) -> None:
        super().__init__()
        sizes, [steps, channels] = model["sizes"], model["inputs"]["wave"]["shape"]
        hidden, inner, latent = sizes["hidden_size"], sizes["ffn_hidden_size"], sizes["latent_size"]
        self.stem = mlp(channels, inner, hidden)
        self.blocks = nn.Sequential(*(Block(steps, hidden, inner) for _ in range(sizes["num_layers"])))
        self.norm, self.latent = nn.LayerNorm(hidden), nn.Linear(hidden, latent)
        self.frequency, self.amplitude = nn.Linear(latent, 8), nn.Linear(latent, 1)

    def forward(self, wave: Tensor) -> dict[str, Tensor]:
        """Map waves (B, S, C) to each output with B in front."""
        hidden = self.blocks(self.stem(wave.to(self.norm.weight.dtype)))
        latent = self.latent(self.norm(hidden).mean(dim=1))
        answers = {"logits": self.frequency(F.gelu(latent)), "amplitude": self.amplitude(F.gelu(latent)).squeeze(1)}
        return {"latent": latent, **answers}


def load(folder: Path = Path(__file__).parent) -> Network:
    """Return the network with the weights of an export, ready to predict."""
    network = Network(json.loads((folder / "model.json").read_text(encoding="utf-8")))
    network.load_state_dict(load_file(folder / "model.safetensors"), assign=True)
    return network.eval()
