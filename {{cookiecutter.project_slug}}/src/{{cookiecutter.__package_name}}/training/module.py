"""The LightningModule that NeMo's strategy drives: what happens in a step, and what is logged under which name.

One training step, seen from outside in:

    Lightning's loop > strategy.training_step > Megatron's schedule, once for each micro batch:
        data_step (to the device) > training_step here (forward) > the loss reduction's forward, then backward
    > the loss reduction's reduce, once > on_train_batch_end here, which logs what it returned
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import lightning.pytorch as pl
import torch
from nemo.lightning import io
from nemo.lightning.megatron_parallel import MegatronLossReduction
from nemo.lightning.pytorch.optim import MegatronOptimizerModule
from torch import Tensor

from ..contracts.config import NetworkConfig
from ..contracts.errors import UserError
from ..contracts.given import Given, NotGivenError, check_names
from ..contracts.loss import LossReduction
from ..contracts.names import GRAD_NORM, IDX, LEARNING_RATE, LOSS, STEP, TRAIN_LOSS
from ..contracts.stage import check_rows
from ..runtime.checkpoint import reading
from .optimizer import base_rate


def is_seen(trainer: Any) -> bool:
    """Tell whether somebody sees the figures of the step that has just ended: every few steps, or a validation's."""
    step = trainer.global_step
    is_due = step % trainer.log_every_n_steps == 0 or step % trainer.val_check_interval == 0
    return is_due or step == trainer.max_steps or trainer.should_stop


class NetworkModule(pl.LightningModule, io.IOMixin):
    """Any network that a config describes, under Lightning."""

    def __init__(self, config: NetworkConfig, optim: MegatronOptimizerModule | None = None) -> None:
        """Keep the config; the network is built in `configure_model`, when the layout is known."""
        super().__init__()
        self.config = config
        self._loss_reduction = config.get_loss_reduction_class()()
        self._keep = KeepReduction(config)
        self._totals: Tensor | None = None
        if optim is not None:
            optim.connect(self)

    def setup(self, stage: str) -> None:
        """Let the config see what is trained on, once the data module has read it and before the network is built."""
        if stage == "fit":
            data: Any = self.trainer
            self.config.see_training(data.datamodule.train)

    def configure_model(self, vp_stage: int = 0) -> None:
        """Build this rank's stage; NeMo calls this once in a run, after the parallel groups exist."""
        if not hasattr(self, "module"):
            with reading(self.config.start_weights_dir):
                self.module = self.config.configure_model(vp_stage)

    @property
    def loss_reduction(self) -> LossReduction:
        """The loss of training, validation and test; NeMo reads it by this name."""
        return self._loss_reduction

    @property
    def predict_loss_reduction(self) -> MegatronLossReduction:
        """What stands in the loss's place when predicting; NeMo reads it by this name."""
        return self._keep

    @property
    def figure_names(self) -> tuple[str, ...]:
        """The names of what the loss reports."""
        return (*self._loss_reduction.names, *self._loss_reduction.derived)

    @property
    def metric_names(self) -> tuple[str, ...]:
        """Everything that training and validation log."""
        train = (f"train_{name}" for name in self.figure_names if name != LOSS)
        return (TRAIN_LOSS, *train, GRAD_NORM, LEARNING_RATE, *(f"val_{name}" for name in self.figure_names))

    def forward(self, batch: Any) -> Tensor | dict[str, Tensor]:
        """Compute the network for one micro batch; see `contracts/stage.py` for what comes back."""
        return self.module(batch)

    # NeMo calls `forward_step` on every pipeline stage but the last, and there the step of the loop that runs.
    forward_step = forward

    def training_step(self, batch: Any, batch_idx: int | None = None) -> Tensor | dict[str, Tensor]:
        """Compute one micro batch; the loss is the loss reduction's."""
        return self(batch)

    validation_step = test_step = predict_step = training_step

    def on_train_batch_start(self, *args: Any) -> None:
        """Keep the learning rate of this step; after it the optimizer has the next one's."""
        self._lr = base_rate(self.trainer.optimizers[0])

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Log the figures of the step's global batch, in the steps of which somebody sees them."""
        trainer: Any = self.trainer
        if is_seen(trainer):
            figures = self._loss_reduction.figures(outputs["totals"])
            named = {TRAIN_LOSS if name == LOSS else f"train_{name}": value for name, value in figures.items()}
            rates = {GRAD_NORM: trainer.strategy.grad_norm, LEARNING_RATE: self._lr, STEP: float(trainer.global_step)}
            self.log_dict({**(named if outputs["totals"][0, 1] else {}), **rates})  # else they are means over nothing

    def on_validation_batch_end(self, outputs: Any, batch: Any, batch_idx: int, *args: Any) -> None:
        """Add up the sums and counts of a global batch.

        Raises:
            UserError: its loss is infinite or not a number, on all ranks alike.
        """
        if not outputs[LOSS].isfinite():
            stage = "test" if self.trainer.testing else "val"
            raise UserError(
                f"{stage}_loss of global batch {batch_idx + 1} is {float(outputs[LOSS])}: look for NaN in its items "
                "and in the loss; if the training diverged, begin a new run with a lower --training.lr"
            )
        self._totals = outputs["totals"] if self._totals is None else self._totals + outputs["totals"]

    on_test_batch_end = on_validation_batch_end  # type: ignore[assignment]

    def on_validation_epoch_end(self) -> None:
        """Log the figures of all validation items."""
        self.log_dict({**self._evaluated("val"), STEP: float(self.trainer.global_step)})

    def on_test_epoch_end(self) -> None:
        """Log the figures of all test items, and keep what they are means over."""
        counts = self._totals[:, 1].tolist() if self._totals is not None else []
        self.counts = dict(zip(self._loss_reduction.names, counts, strict=False))
        self.log_dict(self._evaluated("test"))

    def _evaluated(self, stage: str) -> dict[str, Tensor]:
        """Return the figures of an evaluation, and begin anew.

        Raises:
            UserError: nothing was counted, on all ranks alike.
        """
        totals, self._totals = self._totals, None
        if totals is None or not totals[0, 1]:
            raise UserError(f"{stage}_loss is a mean over no {self._loss_reduction.unit}: none of the items has any")
        return {f"{stage}_{name}": value for name, value in self._loss_reduction.figures(totals).items()}


class KeepReduction(MegatronLossReduction):
    """For evaluation and prediction: no loss, but what the config keeps of the outputs."""

    def __init__(self, config: NetworkConfig) -> None:
        """Keep by `config.keep`."""
        super().__init__()
        self.config = config

    def forward(self, batch: Any, forward_out: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return a loss that nobody reads, and what is kept of the items with their idx.

        Raises:
            UserError: `keep` does not give what it should, or wants what is not there.
        """
        try:
            kept = self.config.keep(Given(forward_out), Given(batch))
        except NotGivenError as error:
            there = f"the network gives {', '.join(forward_out)}, and an item has {', '.join(batch)}"
            raise UserError(f"model/results.py: keep wants {error}; {there}") from error
        check_rows(kept, len(batch[IDX]), "model/results.py: keep")
        check_names(kept, "model/results.py: keep")
        return torch.zeros(1), {**kept, IDX: batch[IDX]}

    def reduce(self, losses_reduced_per_micro_batch: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
        """Join the micro batches along the items."""
        keys = losses_reduced_per_micro_batch[0]
        return {key: torch.cat([part[key] for part in losses_reduced_per_micro_batch]) for key in keys}
