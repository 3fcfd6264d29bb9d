"""From tokens to features and back: tensor parallel ranks share the rows of an embedding and of scores tied to it."""

from __future__ import annotations

from typing import Any

from megatron.core import parallel_state
from megatron.core.tensor_parallel import ColumnParallelLinear, VocabParallelEmbedding
from megatron.core.transformer.module import MegatronModule
from megatron.core.utils import make_tp_sharded_tensor_for_checkpoint
from torch import Tensor, nn

from ..contracts.config import NetworkConfig
from ..contracts.stage import PipelineStage
from ..contracts.start import start_weights
from .parallel import gather_sequence, without_sequence_parallel

EMBEDDING = "embedding"
"""The part whose start weights both ends of a tied embedding draw."""


def embedding(config: NetworkConfig, rows: int) -> VocabParallelEmbedding:
    """Build an embedding, int64 (B, S) to (B, S, H); tensor parallel ranks share its rows and must divide them."""
    with start_weights(config, EMBEDDING):
        layer = VocabParallelEmbedding(rows, config.hidden_size, init_method=config.init_method, config=config)
    _mark(layer.weight, config)
    return layer


def _mark(weight: nn.Parameter, config: NetworkConfig) -> None:
    """Let data parallel ranks share both ends alike: their gradients are added up after each rank has its share."""
    if config.pipeline_model_parallel_size > 1:
        weight.shared_embedding = True  # type: ignore[attr-defined]


class TiedScores(MegatronModule):
    """The scores of tokens: features times the rows of the embedding, plus a bias (Press and Wolf, 2017).

    The embedding is on the first pipeline stage, and the scores are on the last one. Where these are two, the last has
    a copy, which starts alike; Megatron adds up the gradients of both (`shared_embedding_or_output_weight`).
    """

    def __init__(self, config: NetworkConfig, tied: nn.Parameter | None, rows: int) -> None:
        """Build the scores.

        Args:
            config: of the network.
            tied: this rank's rows of the embedding, where it is on the same stage.
            rows: of the whole embedding.
        """
        super().__init__(config)
        with start_weights(config, EMBEDDING):
            self.linear = ColumnParallelLinear(
                config.hidden_size,
                rows,
                config=without_sequence_parallel(config),
                init_method=config.init_method,
                gather_output=True,
                skip_weight_param_allocation=tied is not None,
            )
        self.is_copy = tied is None
        if self.is_copy:
            self.linear.weight.shared = True  # so that the norm of the gradients counts it once
            _mark(self.linear.weight, config)

    def forward(self, hidden: Tensor, tied: Tensor | None) -> Tensor:
        """Map this rank's part of (S, B, H) to (S, B, rows) on every rank."""
        scores, _ = self.linear(gather_sequence(hidden, self.config), weight=tied)
        return scores


class TiedStage(PipelineStage):
    """A stage of a network whose scores are tied to its embedding; a subclass says where both are.

    Source: `LanguageModule` of Megatron-Core, which does this for its own models.
    """

    share_embeddings_and_output_weights = True
    EMBEDDING_KEY = "trunk.embedding.weight"
    """Name of the embedding's weight on the first stage, and of its copy in a checkpoint."""
    SCORES_KEY = "head.scores.linear.weight"
    """Name of the copy on the last stage."""

    def shared_embedding_or_output_weight(self) -> nn.Parameter:
        """Return this stage's end of the tie; Megatron calls this on the first and the last stage."""
        return self.get_parameter(self.EMBEDDING_KEY if self.pre_process else self.SCORES_KEY)

    def sharded_state_dict(self, prefix: str = "", *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Return what is saved; a copy of the embedding is one more replica of it."""
        state: dict[str, Any] = super().sharded_state_dict(prefix, *args, **kwargs)
        if (name := f"{prefix}{self.SCORES_KEY}") in state:
            state[name] = make_tp_sharded_tensor_for_checkpoint(
                tensor=self.shared_embedding_or_output_weight(),
                key=f"{prefix}{self.EMBEDDING_KEY}",
                replica_id=(1, 0, parallel_state.get_data_parallel_rank(with_context_parallel=True)),
                allow_shape_mismatch=True,
            )
        return state
