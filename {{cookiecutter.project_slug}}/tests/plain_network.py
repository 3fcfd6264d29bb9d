"""The networks of model.py once more, in plain torch: what tests compare them with."""

from typing import Any

import torch
from torch.nn import GELU, LayerNorm, Linear, Module, ModuleDict


def plain_network(weights: dict[str, Any]) -> Any:
    """Make the network in plain torch, with the same weights by name."""

    def linear(name: str) -> Linear:
        out_features, in_features = weights[f"{name}.weight"].shape
        return Linear(in_features, out_features)

    def mlp(name: str) -> ModuleDict:
        return ModuleDict({"up": linear(f"{name}.up"), "down": linear(f"{name}.down")})

    def block(number: int) -> ModuleDict:
        return ModuleDict({"norm": LayerNorm(hidden), "mlp": mlp(f"trunk.blocks.{number}.mlp")})

    hidden = len(weights["trunk.norm.weight"])
    numbers = sorted({int(name.split(".")[2]) for name in weights if name.startswith("trunk.blocks.")})
    gelu = GELU()

    class PlainNetwork(Module):
        def __init__(self) -> None:
            super().__init__()
            trunk = {"stem": mlp("trunk.stem"), "norm": LayerNorm(hidden), "latent": linear("trunk.latent")}
            self.trunk = ModuleDict({**trunk, "blocks": ModuleDict({f"{number}": block(number) for number in numbers})})
            if "image_decoder.rows.weight" in weights:
                parts = {"rows": linear("image_decoder.rows"), "norm": LayerNorm(hidden)}
                self.image_decoder = ModuleDict({**parts, "pixels": mlp("image_decoder.pixels")})
            if "classifier.scores.weight" in weights:
                self.classifier = ModuleDict({"scores": linear("classifier.scores")})

        def forward(self, batch: Any) -> dict[str, torch.Tensor]:
            rows = self._mlp(self.trunk["stem"], batch["data"].squeeze(1))  # batch, rows, features
            for block in self.trunk["blocks"].values():
                rows = rows + self._mlp(block["mlp"], block["norm"](rows))
            output = {"latent": self.trunk["latent"](self.trunk["norm"](rows).flatten(1))}
            if hasattr(self, "image_decoder"):
                rows = self.image_decoder["rows"](gelu(output["latent"])).view(rows.shape)
                pixels = self._mlp(self.image_decoder["pixels"], self.image_decoder["norm"](rows))
                output["reconstruction"] = pixels.unsqueeze(1)
            if hasattr(self, "classifier"):
                output["logits"] = self.classifier["scores"](gelu(output["latent"]))
            return output

        def _mlp(self, layers: ModuleDict, x: torch.Tensor) -> torch.Tensor:
            return layers["down"](gelu(layers["up"](x)))

    network = PlainNetwork()
    network.load_state_dict(weights)
    return network
