"""A short run, and ways to split it: a quick part of what the `layouts` command tries."""

from pathlib import Path

from conftest import TINY, change, needs_sequence_for

from {{cookiecutter.__package_name}}.contracts.settings import ParallelSettings
from {{cookiecutter.__package_name}}.model.settings import LAYOUTS
from {{cookiecutter.__package_name}}.proof.layouts import Layout

# All heads at once; a global batch that three ranks and three micro batches divide.
SHORT = change(
    TINY,
    network=LAYOUTS.network,
    model={"num_layers": 4},
    training={"max_steps": 20, "val_check_interval": 10, "global_batch_size": 36, "lr": 1e-3},
)
SPLITS = {
    "three micro batches": ({"devices": 1}, 3),
    "data 3": ({"devices": 3}, 2),
    "tensor 2": ({"devices": 2, "tensor": 2}, 1),
    "sequence 2": ({"devices": 2, "tensor": 2, "sequence": True}, 3),
    "tensor 4, sequence": ({"devices": 4, "tensor": 4, "sequence": True}, 1),
    "pipeline 2": ({"devices": 2, "pipeline": 2}, 3),
    "pipeline 2 x 2": ({"devices": 2, "pipeline": 2, "virtual_pipeline": 2}, 6),
    "pipeline 2, data 2": ({"devices": 4, "pipeline": 2}, 3),
    "all at once": ({"devices": 4, "tensor": 2, "sequence": True, "pipeline": 2, "virtual_pipeline": 2}, 2),
}
REFERENCE = Layout(ParallelSettings(), 1, "cpu")


def layout(name):
    """Return one of these layouts."""
    parallel, num_microbatches = SPLITS[name]
    spread = Layout(ParallelSettings(**parallel), num_microbatches, "cpu")
    needs_sequence_for(spread.settings(SHORT, Path()))
    return spread
