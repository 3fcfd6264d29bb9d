"""The networks in plain torch, as an export has them: what tests compare them with."""

from typing import Any

from {{cookiecutter.__package_name}}.model.plain import Network


def plain_network(weights: dict[str, Any]) -> Network:
    """Make the network in plain torch, with the same weights by name."""
    ffn_hidden_size, pixels = weights["trunk.stem.up.weight"].shape
    latent_size, _ = weights["trunk.latent.weight"].shape
    blocks = {name.split(".")[2] for name in weights if name.startswith("trunk.blocks.")}
    sizes = {
        "num_layers": len(blocks),
        "hidden_size": len(weights["trunk.norm.weight"]),
        "ffn_hidden_size": ffn_hidden_size,
        "latent_size": latent_size,
    }
    heads = {"reconstruction": "image_decoder.rows.weight", "logits": "classifier.scores.weight"}
    outputs = {name: (10,) for name, weight in heads.items() if weight in weights}
    network = Network({"sizes": sizes, "inputs": {"data": {"shape": (1, pixels, pixels)}}, "outputs": outputs})
    network.load_state_dict(weights)
    return network
