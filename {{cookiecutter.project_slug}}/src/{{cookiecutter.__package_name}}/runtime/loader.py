"""Loaders whose processes leave signals to the training process.

A scheduler sends its signal to all processes of a job. A worker of a loader's ends by SIGTERM, and takes the training
with it before the step is saved.
"""

from __future__ import annotations

from typing import Any

from nemo.lightning.pytorch.plugins import MegatronDataSampler
from torch.utils.data import DataLoader

from . import signals


class Sampler(MegatronDataSampler):
    """NeMo's, which makes a loader of its own from the one it is given and forgets `worker_init_fn`."""

    def transform_dataloader(self, *args: Any, **kwargs: Any) -> DataLoader:
        """Return NeMo's loader, with workers that ignore signals."""
        loader = super().transform_dataloader(*args, **kwargs)
        loader.worker_init_fn = _leave_signals
        return loader


def _leave_signals(worker: int) -> None:
    signals.ignore()
