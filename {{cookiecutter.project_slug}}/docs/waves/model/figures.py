"""What the report shows of the waves: a map of the latents, and both answers beside the truth. No torch."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from ..drawing.pictures import answers, confusion, latent_space
from ..drawing.theme import Array, Drawing

SHARES = ("accuracy",)


def pictures(outputs: dict[str, Array], settings: dict[str, Any]) -> Iterator[Drawing]:
    """Show what the network made of the test waves."""
    frequency, amplitude = outputs["true_frequency"], outputs["true_amplitude"]
    caption = "What the network makes of the test waves; a badge stands at the median of its frequency."
    yield Drawing("latent", caption, partial(latent_space, latent=outputs["latent"], label=frequency))
    counts = np.zeros((8, 8), dtype=np.int64)
    np.add.at(counts, (frequency, outputs["logits"].argmax(axis=1)), 1)
    yield Drawing("frequency", "Recall is the share of a frequency that was found.", partial(confusion, counts=counts))
    draw = partial(answers, name="amplitude", answer=outputs["amplitude"], truth=amplitude)
    yield Drawing("amplitude", "In volts.", draw)
