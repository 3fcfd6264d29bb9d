"""NeMo's strategy, with what has to be different for every run of this project (README.md says why, line by line)."""

from __future__ import annotations

import math
import os
from contextlib import nullcontext
from datetime import timedelta
from functools import partial
from typing import Any

import torch
from lightning.pytorch.strategies.ddp import DDPStrategy
from megatron.core import parallel_state, tensor_parallel
from megatron.core.distributed import DistributedDataParallelConfig
from nemo import lightning as nl
from nemo.core.optim.mcore_optim import McoreDistributedOptimizer
from nemo.lightning.megatron_parallel import CallbackMethods
from torch import Tensor

from ..contracts.errors import UserError
from . import cuda_graph, meeting
from .writer import Writer

_INITIALIZE = parallel_state.initialize_model_parallel


def _patience(met: meeting.Meeting) -> int:
    """Return the seconds that a collective waits: a rank that is lost is told by its heartbeat first."""
    return math.ceil(met.limit * 1.5)


class Strategy(nl.MegatronStrategy):
    """`nl.MegatronStrategy` on CPU and GPU; a step's metrics reach every rank, and the module logs them."""

    def __init__(self, *, seed: int, cuda_graph: bool = False, **kwargs: Any) -> None:
        """Take NeMo's arguments.

        Args:
            seed: of the model parallel random number generators.
            cuda_graph: record and replay training steps; on a GPU only.
            kwargs: NeMo's.
        """
        super().__init__(
            ddp=DistributedDataParallelConfig(check_for_nan_in_grad=False),  # optimizer_step does, in every layout
            replace_progress_bar=False,  # NeMo's printer makes a collective on rank 0 only, and hangs the others
            ckpt_async_save=False,
            checkpoint_io=Writer(parallel_load=True),
            ckpt_optim_fully_reshardable=True,
            **kwargs,
        )
        self.seed = seed
        self.cuda_graph = cuda_graph
        self.grad_norm = 0.0
        """of the last step, before clipping"""

    def connect(self, model: Any) -> None:
        """Also let virtual pipeline stages talk in an order that two ranks share: in batches, gradients go astray."""
        super().connect(model)
        if self.virtual_pipeline_model_parallel_size:
            model.config.overlap_p2p_comm, model.config.batch_p2p_comm = True, False

    def setup_megatron_parallel(self, trainer: Any) -> None:
        """Also drop the callbacks that do nothing: NeMo calls twenty in a step, each by its signature."""
        super().setup_megatron_parallel(trainer)
        for event, callbacks in self.model.callbacks.callbacks.items():
            nothing = getattr(CallbackMethods, event, None)
            callbacks[:] = [callback for callback in callbacks if getattr(type(callback), event) is not nothing]

    def init_model_parallel(self) -> None:
        """Also wait until the weights are in Megatron's buffers: NeMo copies them in a stream of its own."""
        super().init_model_parallel()
        if self.root_device.type == "cuda":
            torch.cuda.synchronize()

    def setup_distributed(self) -> None:
        """Also meet anew, and seed every rank with the run's seed: NeMo takes 1234, and on CPU none in some parts."""
        self.set_world_ranks()
        if (met := meeting.current) and not torch.distributed.is_initialized():
            self.store = met.store
            seconds = _patience(met)
            os.environ["TORCH_NCCL_HEARTBEAT_TIMEOUT_SEC"] = str(seconds)  # NeMo's name for it
            parallel_state.initialize_model_parallel = partial(_INITIALIZE, distributed_timeout_minutes=seconds / 60)
        super().setup_distributed()
        tensor_parallel.model_parallel_cuda_manual_seed(self.seed)

    def training_step(self, dataloader_iter: Any, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Run one step, as NeMo's does but without its logging, and return the metrics of the global batch."""
        with self.precision_plugin.train_step_context():
            for model_chunk in self.model:
                model_chunk.zero_grad_buffer()
            for optimizer in self.optimizers:
                optimizer.zero_grad()
            with cuda_graph.recorded(self.lightning_module.config) if self.cuda_graph else nullcontext():
                return self._from_last_stage(self.model.training_step(dataloader_iter, *args, **kwargs))

    def validation_step(self, dataloader_iter: Any, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Run one step, as NeMo's does but without its logging, and return the metrics of the global batch."""
        with self.precision_plugin.val_step_context():
            return self._from_last_stage(self.model.validation_step(dataloader_iter, *args, **kwargs))

    def test_step(self, dataloader_iter: Any, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Return the metrics of the global batch."""
        return self._from_last_stage(super().test_step(dataloader_iter, *args, **kwargs))

    def _from_last_stage(self, metrics: dict[str, Tensor] | Tensor) -> dict[str, Tensor]:
        """Give every pipeline stage the metrics, which only the last one computes."""
        if parallel_state.get_pipeline_model_parallel_world_size() == 1 and isinstance(metrics, dict):
            return metrics
        reduction = self.lightning_module.loss_reduction
        totals = torch.zeros(len(reduction.names), 2, dtype=torch.float64, device=self.root_device)
        if isinstance(metrics, dict):
            totals = metrics["totals"]
        source = parallel_state.get_pipeline_model_parallel_last_rank()
        torch.distributed.broadcast(totals, source, group=parallel_state.get_pipeline_model_parallel_group())
        return reduction.of_totals(totals)

    def of_all_ranks(self, mine: Any) -> list[Any]:
        """Return what each rank gives, on every rank, through the memory of the hosts: NCCL takes that of the GPUs."""
        if (met := meeting.current) is None:
            return [mine]
        shares: list[Any] = [None] * met.size
        group: Any = torch.distributed.new_group(backend="gloo", timeout=timedelta(seconds=_patience(met)))
        torch.distributed.all_gather_object(shares, mine, group)
        return shares

    def optimizer_step(self, optimizer: Any, closure: Any, model: Any = None, **kwargs: Any) -> Any:
        """Step, and keep the gradient norm before clipping for the module, which logs it; NeMo's would log it here.

        Raises:
            UserError: the gradients are infinite or not numbers, on all ranks alike.
        """
        output = DDPStrategy.optimizer_step(self, optimizer, closure, model, **kwargs)
        if isinstance(optimizer, McoreDistributedOptimizer):
            output, self.grad_norm, _ = output
            if not math.isfinite(self.grad_norm):
                step = self.lightning_module.trainer.global_step + 1
                raise UserError(
                    f"the training diverged: in step {step} the gradients were not finite; begin a new run with a "
                    "lower --training.lr, or look for NaN in the data and the loss"
                )
        return output
