"""The plan of a layout is what its ranks then hold, and in what order they work."""

import time
from collections import defaultdict
from dataclasses import replace
from itertools import product

import pytest
import torch
from conftest import needs_sequence_for
from measured import peak, planned, sizes
from megatron.core import parallel_state
from megatron.core.pipeline_parallel.schedules import get_pp_rank_microbatches, get_schedule_table
from megatron.core.tensor_parallel import gather_from_tensor_model_parallel_region
from torch.testing._internal.distributed.fake_pg import FakeStore

from {{cookiecutter.__package_name}}.contracts.settings import ParallelSettings
from {{cookiecutter.__package_name}}.model.config import NETWORKS
from {{cookiecutter.__package_name}}.model.settings import Settings
from {{cookiecutter.__package_name}}.planning import words
from {{cookiecutter.__package_name}}.planning.plan import Memory, Plan, make_plan
from {{cookiecutter.__package_name}}.planning.schedule import most, order
from {{cookiecutter.__package_name}}.planning.stages import Activations
from {{cookiecutter.__package_name}}.planning.words import plan_in_words
from {{cookiecutter.__package_name}}.proof.ranks import run_ranks
from {{cookiecutter.__package_name}}.runtime.backend import prepared
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


def test_what_ranks_exchange_holds_no_numbers_after_a_run_on_the_cpu_either():
    with prepared("cpu"):
        pass
    with as_rank(0, tensor=2, pipeline=1, virtual_pipeline=1):
        gathered = gather_from_tensor_model_parallel_region(torch.empty(3, 4))
    assert (gathered.device.type, gathered.shape) == ("meta", (3, 8))


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


def test_places_and_nodes_are_those_of_every_rank():
    split = {"tensor": (1, 2, 3), "pipeline": (1, 2, 4), "devices": (1, 2, 3, 4, 6, 8, 12), "num_nodes": range(1, 13)}
    tried = 0
    for tensor, pipeline, devices, num_nodes in product(*split.values()):
        if (world := devices * num_nodes) % (tensor * pipeline):
            continue
        tried += 1
        parallel = dict(zip(split, (tensor, pipeline, devices, num_nodes), strict=True))
        plan = Plan(Settings(parallel=ParallelSettings(**parallel)), *[None] * 10)
        places = [plan.place(rank) for rank in range(world)]
        for n, group in enumerate(plan.groups):
            for first in range(0, world, devices):
                found = [places[rank][n] for rank in range(first, first + devices)]
                assert group.places(range(first, first + devices)) == (min(found), max(found))
            nodes = defaultdict(set)
            for rank, place in enumerate(places):
                nodes[place[:n] + place[n + 1 :]].add(rank // devices)
            assert group.nodes(devices) == max(map(len, nodes.values()))
    assert tried > 300


def test_a_plan_of_any_size_takes_no_longer(tiny):
    began = time.process_time()
    settings = tiny(parallel={"num_nodes": 1024, "devices": 8}, training={"global_batch_size": 8192})
    lines = list(plan_in_words(settings))
    assert time.process_time() - began < 10
    assert any(line.endswith("on 1024 nodes") for line in lines)


@pytest.mark.parametrize(
    ("fixed", "fits"),
    [
        (1, "fits into GPUs of 24 GB and more"),
        (73e9, "fits into GPUs of 141 GB and more"),
        (172e9, "fits into GPUs of 192 GB, with"),
        (173e9, "needs GPUs of more than 192 GB"),
    ],
)
def test_a_plan_says_how_large_a_gpu_must_be(fixed, fits, tiny, monkeypatch):
    assert fits in told(monkeypatch, tiny(accelerator="auto"), memory=[Memory(int(fixed), 0, 0, 0)])
    assert fits not in told(monkeypatch, tiny(accelerator="cpu"), memory=[Memory(int(fixed), 0, 0, 0)])


def test_a_plan_says_how_long_it_takes_where_computing_decides(tiny, monkeypatch):
    steps = {"precision": "bf16", "max_steps": 10_000, "global_batch_size": 8, "micro_batch_size": 1}
    how, speed = tiny(accelerator="auto", training=steps), 0.4 * 989e12  # operations a second
    assert "\ntime      2.5 s a step, 6.9 h for 10,000 steps, at 40%" in told(monkeypatch, how, flops=2.5 * speed)
    assert "\ntime      computing takes 72 ms of a step; in micro" in told(monkeypatch, how, flops=8 * 0.009 * speed)
    assert "\ntime  " not in told(monkeypatch, tiny(accelerator="cpu"), flops=speed)


def test_a_plan_counts_the_checkpoints_that_are_kept(tiny, monkeypatch):
    how = tiny(training={"keep_checkpoints": 5})
    assert "\ndisk      1 GiB a checkpoint; 7 GiB for the last 5," in told(monkeypatch, how, checkpoint=2**30)


def told(monkeypatch, settings, **found):
    """Return the words of a plan in which this was found."""
    plan = replace(make_plan(settings), **found)
    with monkeypatch.context() as patch:
        patch.setattr(words, "make_plan", lambda settings: plan)
        return "\n".join(plan_in_words(settings))


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


@pytest.mark.parametrize("virtual", [1, 2, 3])
@pytest.mark.parametrize("stages", [2, 3, 8])
def test_many_micro_batches_hold_what_few_do(stages, virtual):
    parts = [Activations(kept=7 + 3 * part, forward=11 + part**2, backward=13 + 5 * part) for part in range(virtual)]
    for stage, rounds in product(range(stages), (1, 2, 3, 4, 5, 6, 20)):
        held, peak = 0, 0
        for is_forward, part in order(stage, stages, virtual, rounds * stages):
            found = parts[part]
            peak = max(peak, held + (found.forward if is_forward else found.backward - found.kept))
            held += found.kept if is_forward else -found.kept
        assert held == 0 and most(parts, stage, stages, rounds * stages) == peak


def test_micro_batches_beyond_number_take_no_time():
    began = time.process_time()
    assert most([Activations(kept=1, forward=2, backward=3)], 0, 4, 10**8) == 6
    assert time.process_time() - began < 10
