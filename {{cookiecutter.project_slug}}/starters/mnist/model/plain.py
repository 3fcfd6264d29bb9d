"""The exported network in plain PyTorch: `python load.py` tries it, `from load import load` uses it."""

import json
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn


def chain(**layers: nn.Module) -> nn.Sequential:
    """Put layers one after the other, under their names."""
    return nn.Sequential(OrderedDict(layers))


class Residual(nn.Sequential):
    """Layers whose output is added to their input."""

    def forward(self, x: Tensor) -> Tensor:
        """Map a tensor to one of its shape."""
        return x + super().forward(x)


class Network(nn.Module):
    """Maps images to a dict of outputs; model.json has the shapes of both, without the batch, and the sizes between.

    Each input is an argument of `forward` under the name that model.json gives it.
    """

    def __init__(self, model: dict[str, Any]) -> None:
        super().__init__()
        sizes, outputs, self.image_shape = model["sizes"], model["outputs"], model["inputs"]["data"]["shape"]
        _, rows, pixels = self.image_shape
        hidden, inner, latent = sizes["hidden_size"], sizes["ffn_hidden_size"], sizes["latent_size"]

        def mlp(inputs: int, outputs: int) -> nn.Sequential:
            return chain(up=nn.Linear(inputs, inner), gelu=nn.GELU(), down=nn.Linear(inner, outputs))

        def block() -> nn.Sequential:
            return Residual(OrderedDict(norm=nn.LayerNorm(hidden), mlp=mlp(hidden, hidden)))

        self.trunk = chain(
            as_rows=nn.Flatten(1, 2),
            stem=mlp(pixels, hidden),
            blocks=nn.Sequential(*(block() for _ in range(sizes["num_layers"]))),
            norm=nn.LayerNorm(hidden),
            whole=nn.Flatten(),
            latent=nn.Linear(rows * hidden, latent),
        )
        if "reconstruction" in outputs:
            self.image_decoder = chain(
                gelu=nn.GELU(),
                rows=nn.Linear(latent, rows * hidden),
                as_rows=nn.Unflatten(1, (rows, hidden)),
                norm=nn.LayerNorm(hidden),
                pixels=mlp(hidden, pixels),
                as_image=nn.Unflatten(1, (1, rows)),
            )
        if "logits" in outputs:
            self.classifier = chain(gelu=nn.GELU(), scores=nn.Linear(latent, outputs["logits"][0]))

    def forward(self, data: Tensor) -> dict[str, Tensor]:
        """Map images (B, 1, rows, pixels) to each output with B in front."""
        latent = self.trunk(data.to(next(self.parameters()).dtype))
        output = {"latent": latent}
        if hasattr(self, "image_decoder"):
            output["reconstruction"] = self.image_decoder(latent)
        if hasattr(self, "classifier"):
            output["logits"] = self.classifier(latent)
        return output


def load(folder: Path = Path(__file__).parent) -> Network:
    """Return the network with the weights of an export, in the dtype they were trained in, ready to predict."""
    network = Network(json.loads((folder / "model.json").read_text(encoding="utf-8")))
    network.load_state_dict(load_file(folder / "model.safetensors"), assign=True)
    return network.eval()


if __name__ == "__main__":
    network = load()
    for name, output in network(torch.zeros(2, *network.image_shape)).items():
        print(name, tuple(output.shape))
