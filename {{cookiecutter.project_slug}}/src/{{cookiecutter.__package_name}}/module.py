"""The LightningModule that NeMo's strategy drives: what happens in a step, and what is logged under which name.

One training step, seen from outside in:

    Lightning's loop > strategy.training_step > Megatron's schedule, once for each micro batch:
        data_step (to the device) > training_step here (forward) > the loss reduction's forward, then backward
    > the loss reduction's reduce, once > on_train_batch_end here, which logs what it returned
"""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
import torch
from megatron.core.optimizer import OptimizerConfig
from nemo.lightning import io
from nemo.lightning.megatron_parallel import MegatronLossReduction
from nemo.lightning.pytorch.optim import CosineAnnealingScheduler, MegatronOptimizerModule
from torch import Tensor

from .config import NetworkConfig
from .data.item import MnistItem
from .errors import UserError
from .losses import ItemLossReduction, PassthroughReduction
from .names import COUNT, GRAD_NORM, LEARNING_RATE, LOSS, STEP, TRAIN_LOSS


def make_optimizer(
    lr: float, min_lr: float, warmup_steps: int, max_steps: int, weight_decay: float, clip_grad: float
) -> MegatronOptimizerModule:
    """Return AdamW with Megatron's distributed optimizer, linear warm-up and cosine decay.

    The arguments are those of `TrainingSettings`; steps are optimizer steps.
    """
    config = OptimizerConfig(
        optimizer="adam",
        lr=lr,
        min_lr=min_lr,
        weight_decay=weight_decay,
        clip_grad=clip_grad,
        use_distributed_optimizer=True,
    )
    schedule = CosineAnnealingScheduler(max_steps=max_steps, warmup_steps=warmup_steps, constant_steps=0, min_lr=min_lr)
    return _Optimizer(config, lr_scheduler=schedule)


class _Optimizer(MegatronOptimizerModule):
    """NeMo's, but for logging: a logged figure takes as long as a layer, whether somebody keeps it or not."""

    def on_train_batch_start(self, *args: Any) -> None:
        """Do not log the learning rate in every step; the module logs it."""


class NetworkModule(pl.LightningModule, io.IOMixin):
    """Any network that a config describes, under Lightning."""

    def __init__(self, config: NetworkConfig, optim: MegatronOptimizerModule | None = None) -> None:
        """Keep the config; the network is built in `configure_model`, when the layout is known."""
        super().__init__()
        self.config = config
        self._loss_reduction = config.get_loss_reduction_class()()
        self._passthrough = PassthroughReduction()
        if optim is not None:
            optim.connect(self)

    def configure_model(self, vp_stage: int = 0) -> None:
        """Build this rank's stage; NeMo calls this once in a run, after the parallel groups exist."""
        if not hasattr(self, "module"):
            self.module = self.config.configure_model(vp_stage)

    @property
    def loss_reduction(self) -> ItemLossReduction:
        """The loss of training, validation and test; NeMo reads it by this name."""
        return self._loss_reduction

    @property
    def predict_loss_reduction(self) -> MegatronLossReduction:
        """What stands in the loss's place when predicting; NeMo reads it by this name."""
        return self._passthrough

    @property
    def validation_names(self) -> tuple[str, ...]:
        """What a validation logs."""
        return tuple(f"val_{name}" for name in self._loss_reduction.names)

    @property
    def metric_names(self) -> tuple[str, ...]:
        """Everything that training and validation log."""
        train = (f"train_{name}" for name in self._loss_reduction.names if name != LOSS)
        return (TRAIN_LOSS, *train, GRAD_NORM, LEARNING_RATE, *self.validation_names)

    def forward(self, batch: MnistItem) -> Tensor | dict[str, Tensor]:
        """Compute the network for one micro batch; see `Stage.forward` for what comes back."""
        return self.module(batch)

    # NeMo calls `forward_step` on every pipeline stage but the last, and there the step of the loop that runs.
    forward_step = forward

    def training_step(self, batch: MnistItem, batch_idx: int | None = None) -> Tensor | dict[str, Tensor]:
        """Compute one micro batch; the loss is the loss reduction's."""
        return self(batch)

    validation_step = test_step = predict_step = training_step

    def on_train_batch_start(self, *args: Any) -> None:
        """Keep the learning rate of this step; after it the optimizer has the next one's."""
        self._lr = self.trainer.optimizers[0].param_groups[0]["lr"]

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Log the means over the step's global batch, in the steps of which somebody sees them."""
        trainer: Any = self.trainer
        step = trainer.global_step
        is_seen = step % trainer.log_every_n_steps == 0 or step % trainer.val_check_interval == 0
        if is_seen or step == trainer.max_steps or trainer.should_stop:
            others = {f"train_{name}": value for name, value in outputs.items() if name not in (LOSS, COUNT)}
            rates = {GRAD_NORM: trainer.strategy.grad_norm, LEARNING_RATE: self._lr, STEP: float(step)}
            self.log_dict({TRAIN_LOSS: outputs[LOSS], **others, **rates})

    def on_validation_batch_end(self, outputs: Any, batch: Any, batch_idx: int, *args: Any) -> None:
        """Log the means over all validation items."""
        self._log_means("val", outputs, batch_idx, **{STEP: torch.tensor(float(self.trainer.global_step))})

    def on_test_batch_end(self, outputs: Any, batch: Any, batch_idx: int, *args: Any) -> None:
        """Log the means over all test items."""
        self._log_means("test", outputs, batch_idx)

    def _log_means(self, stage: str, outputs: dict[str, Tensor], batch_idx: int, **others: Tensor) -> None:
        """Log over an evaluation; the last global batch counts only the items that are not padding.

        Raises:
            UserError: the loss of this global batch is infinite or not a number, on all ranks alike.
        """
        if not outputs[LOSS].isfinite():
            raise UserError(
                f"{stage}_loss of global batch {batch_idx + 1} is {float(outputs[LOSS])}: look for NaN in its items "
                "and in the loss; if the training diverged, begin a new run with a lower --training.lr"
            )
        means = {f"{stage}_{name}": value for name, value in outputs.items() if name != COUNT}
        self.log_dict({**means, **others}, on_step=False, on_epoch=True, batch_size=int(outputs[COUNT]))
