"""The plan of a layout is what its ranks then hold, and in what order they work."""

import pytest
import torch
from conftest import needs_sequence_for
from measured import peak, planned, sizes
from megatron.core import parallel_state
from megatron.core.pipeline_parallel.schedules import get_pp_rank_microbatches, get_schedule_table
from torch.testing._internal.distributed.fake_pg import FakeStore

from {{cookiecutter.__package_name}}.model.config import NETWORKS
from {{cookiecutter.__package_name}}.model.settings import Settings
from {{cookiecutter.__package_name}}.planning.plan import Plan
from {{cookiecutter.__package_name}}.planning.schedule import order
from {{cookiecutter.__package_name}}.planning.words import plan_in_words
from {{cookiecutter.__package_name}}.proof.ranks import run_ranks
from {{cookiecutter.__package_name}}.runtime.rehearsal import as_rank

# Large enough that what a process holds besides is little.
LARGE = {"num_layers": 4, "hidden_size": 256, "ffn_hidden_size": 1024}
SHORTLY = {"max_steps": 2, "warmup_steps": 1, "global_batch_size": 16, "val_check_interval": 2, "log_every_n_steps": 2}


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_memory_is_what_a_training_takes(precision, tiny, tmp_path):
    settings = tiny(model=LARGE, training={**SHORTLY, "micro_batch_size": 8, "precision": precision})
    [measured] = run_ranks(peak, settings, processes=1, logs=tmp_path / "logs")
    [plan] = run_ranks(planned, settings, processes=1, logs=tmp_path / "logs")
    assert plan.memory[0].together == pytest.approx(measured, rel=0.1)
    assert plan.memory[0].activations > 0.1 * measured


@pytest.mark.slow
@pytest.mark.parametrize("split", [{"tensor": 2, "sequence": True}, {"pipeline": 2}, {}], ids=str)
def test_each_rank_holds_what_was_planned(split, tiny, tmp_path):
    settings = tiny(parallel={"devices": 2, **split}, training=SHORTLY)
    needs_sequence_for(settings)
    held = run_ranks(sizes, settings, processes=2, logs=tmp_path / "logs")
    [plan] = run_ranks(planned, settings, processes=1, logs=tmp_path / "logs")
    for rank, (weights, gradients, state) in enumerate(held):
        _, stage, _ = plan.place(rank)
        assert (weights, gradients) == (plan.stages[stage].parameters, plan.stages[stage].trained)
        # the ranks' shares are of the buffer, whose end is filled up
        assert state * 4 == pytest.approx(plan.memory[stage].optimizer, rel=0.01, abs=4 * 1024)


def test_a_network_that_decides_by_numbers_is_planned_but_for_its_activations(tiny, monkeypatch):
    config = NETWORKS[Settings().network]

    class Deciding(config.loss_reduction_class):
        def counted(self, output, batch):
            found = super().counted(output, batch)
            assert float(found[0].values.sum()) >= 0
            return found

    monkeypatch.setattr(config, "loss_reduction_class", Deciding)
    lines = list(plan_in_words(tiny()))
    [row] = [line for line in lines if "0: ranks 0" in line]
    assert row.split()[-2:] == ["unknown", "unknown"]
    [told] = [line for line in lines if line.startswith("activations: ")]
    assert "cannot be run without numbers (RuntimeError: " in told


@pytest.mark.parametrize(("tensor", "pipeline"), [(1, 1), (2, 1), (1, 4), (2, 2)])
def test_places_are_megatrons(tensor, pipeline, tiny):
    parallel = {"devices": 8, "tensor": tensor, "pipeline": pipeline}
    plan = Plan(tiny(parallel=parallel), *[None] * 10)
    for rank in range(8):
        torch.distributed.init_process_group("fake", store=FakeStore(), rank=rank, world_size=8)
        try:
            parallel_state.initialize_model_parallel(tensor, pipeline, create_gloo_process_groups=False)
            assert plan.place(rank) == (
                parallel_state.get_tensor_model_parallel_rank(),
                parallel_state.get_pipeline_model_parallel_rank(),
                parallel_state.get_data_parallel_rank(),
            )
        finally:
            parallel_state.destroy_model_parallel()
            torch.distributed.destroy_process_group()


@pytest.mark.parametrize(
    ("stages", "virtual", "micro_batches"), [(1, 1, 3), (4, 1, 2), (4, 1, 9), (2, 2, 2), (3, 2, 9)]
)
def test_passes_come_in_megatrons_order(stages, virtual, micro_batches):
    for stage in range(stages):
        with as_rank(stage, 1, stages, virtual):
            total, _, ahead, _ = get_pp_rank_microbatches(micro_batches, virtual, stages)
        passes = list(order(stage, stages, virtual, micro_batches))
        first_backward = [is_forward for is_forward, _ in passes].index(False)
        assert first_backward == min(ahead + 1, total)
        parts = [part for _, part in get_schedule_table(micro_batches, virtual, stages)]
        assert [part for is_forward, part in passes if is_forward] == parts
        assert [part for is_forward, part in passes if not is_forward] == [virtual - 1 - part for part in parts]
