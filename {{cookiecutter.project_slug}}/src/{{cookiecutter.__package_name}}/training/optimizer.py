"""What changes the weights: Megatron's optimizer, the schedule of its learning rate, and the factor of new heads."""

from __future__ import annotations

from typing import Any

from megatron.core.optimizer import OptimizerConfig
from nemo.core.optim.lr_scheduler import CosineAnnealing
from nemo.lightning.pytorch.optim import CosineAnnealingScheduler, MegatronOptimizerModule
from nemo.utils.model_utils import unwrap_model

from ..contracts.settings import TrainingSettings
from ..contracts.start import head_weights
from ..runtime.gradients import finalize

FACTOR = "pre_lr_mult"
"""NeMo's name for the factor of a parameter group."""


def make_optimizer(settings: TrainingSettings, new_heads: tuple[str, ...] = ()) -> MegatronOptimizerModule:
    """Return AdamW with Megatron's distributed optimizer, linear warm-up and cosine decay.

    Args:
        settings: of the training.
        new_heads: name prefixes of the weights that learn `settings.head_lr_factor` times as fast.
    """
    config = OptimizerConfig(
        optimizer="adam",
        lr=settings.lr,
        min_lr=settings.min_lr,
        weight_decay=settings.weight_decay,
        clip_grad=settings.clip_grad,
        use_distributed_optimizer=True,
    )
    schedule = _Schedule(
        max_steps=settings.max_steps, warmup_steps=settings.warmup_steps, constant_steps=0, min_lr=settings.min_lr
    )
    return _Optimizer(config, schedule, settings.head_lr_factor, new_heads)


def base_rate(optimizer: Any) -> float:
    """Return the learning rate of an optimizer's next step, without the factor of new heads."""
    group = optimizer.param_groups[0]
    return float(group["lr"] / group[FACTOR])


class _Optimizer(MegatronOptimizerModule):
    """NeMo's, but for logging, for the division by what the global batch counts, and for new heads."""

    def __init__(
        self, config: OptimizerConfig, schedule: CosineAnnealingScheduler, factor: float, new_heads: tuple[str, ...]
    ) -> None:
        """Let the weights of `new_heads` learn `factor` times as fast."""
        super().__init__(config, lr_scheduler=schedule, lr_mult=factor)
        self.new_heads = new_heads

    def optimizers(self, model: Any) -> list[Any]:
        """Put the weights of new heads into parameter groups of their own, if they have a factor."""
        if self.lr_mult != 1:
            weights = {id(weight) for chunk in model for weight in head_weights(unwrap_model(chunk), self.new_heads)}
            self.scale_lr_cond = lambda name, weight: id(weight) in weights
        return super().optimizers(model)

    def on_train_batch_start(self, *args: Any) -> None:
        """Do not log the learning rate in every step, which takes as long as a layer; the module logs it."""

    def finalize_model_grads(self, *args: Any, **kwargs: Any) -> None:
        """Divide the gradients without waiting for the device."""
        finalize(*args, **kwargs)


class _Schedule(CosineAnnealingScheduler):
    """NeMo's, but for the factor of a parameter group."""

    def scheduler(self, model: Any, optimizer: Any) -> dict[str, Any]:
        """Return what Lightning takes."""
        for group in optimizer.param_groups:
            group["lr"] = group["pre_mult_lr"]  # NeMo's name for the rate without the factor
        schedule = _Cosine(
            optimizer, max_steps=self.max_steps, warmup_steps=self.warmup_steps, constant_steps=0, min_lr=self.min_lr
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": self.interval}}


class _Cosine(CosineAnnealing):
    """Multiplies the whole schedule by a group's factor.

    NeMo's own begins each group at its multiplied rate and ends all at the same `min_lr`. It also keeps a list of rates
    in the order of the groups, which is another one on each pipeline stage, and is saved by one rank for all.
    """

    def get_lr(self) -> list[float]:
        """Return the next learning rate of each group."""
        groups = self.optimizer.param_groups
        return [rate * group[FACTOR] for rate, group in zip(super().get_lr(), groups, strict=True)]
