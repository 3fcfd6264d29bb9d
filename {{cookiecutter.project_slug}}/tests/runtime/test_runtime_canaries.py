"""The cellar's canaries: each runs without one workaround and expects today's failure of the libraries.

A red canary is good news or a change to look at. If its message says "upstream mended this", delete what it names.
Those that train are slow tests; the libraries' warnings are let through, since they are led into errors here.
"""

import contextlib
import csv
import gc
import importlib.util
import inspect
import json
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from types import CodeType, FrameType, ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import ENVIRONMENT

import {{cookiecutter.__package_name}} as package
from {{cookiecutter.__package_name}}.names import CHECKPOINTS_FOLDER, METRICS_FILE
from {{cookiecutter.__package_name}}.run_settings import load_settings
from {{cookiecutter.__package_name}}.runtime import (
    backend,
    cpu,
    fused_adam,
    lone_rank,
    placeholders,
    weak_hooks,
)
from {{cookiecutter.__package_name}}.settings import Settings

pytestmark = pytest.mark.filterwarnings("ignore")
slow = pytest.mark.slow
NEEDS_CUDA = r"NVIDIA|CUDA"  # torch's words differ with the driver that is or is not there
Runs = Callable[..., Path]


@contextlib.contextmanager
def fails_without(
    workaround: str, error: type[Exception] | tuple[type[Exception], ...], message: str
) -> Iterator[None]:
    """Expect today's failure."""
    try:
        yield
    except error as failure:
        assert re.search(message, str(failure)), f"another failure than the one in README.md: {failure!r}"
    else:
        mended(workaround)


def mended(workaround: str) -> None:
    pytest.fail(f"upstream mended this: delete {workaround}, its row in runtime/README.md and this test")


def fresh(name: str, retargeted: bool = False) -> ModuleType:
    """Execute a module once more, as upstream wrote it (or that, retargeted); what is imported stays as it is."""
    spec = find_spec(name)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if retargeted:
        for function in cpu._functions(module):
            function.__code__ = cpu._retarget(function.__code__)
    return module


@pytest.fixture
def runs(tiny: Callable[..., Settings], tmp_path: Path) -> Runs:
    """Train two steps, or what `training` says; with `resumed`, go on with a copy of that run."""
    from {{cookiecutter.__package_name}}.training import train

    def run(resumed: Path | None = None, **changes: Any) -> Path:
        folder = tmp_path / f"run{len(list(tmp_path.iterdir()))}"
        if resumed:
            shutil.copytree(resumed, folder)
        steps = {"max_steps": 4 if resumed else 2, "val_check_interval": 2, "warmup_steps": 1}
        training = {**steps, **changes.pop("training", {})}
        train(tiny(run_dir=str(folder), resume=bool(resumed), training=training, **changes))
        return folder

    return run


def rows(run: Path) -> list[dict[str, str]]:
    with (run / METRICS_FILE).open(newline="") as file:
        return list(csv.DictReader(file))


# --- placeholders.py


@slow
@pytest.mark.skipif(find_spec("modelopt") is not None, reason="NeMo's own code runs where nvidia-modelopt is installed")
def test_canary_llm_stack(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in placeholders._MODELOPT:
        monkeypatch.delitem(sys.modules, name)
    try:
        with fails_without("placeholders._MODELOPT", ImportError, "No module named"):
            runs()
    finally:  # the half of it that was imported
        for name in [name for name in sys.modules if name.startswith("nemo.collections.llm")]:
            del sys.modules[name]


def test_canary_unified_memory_compiles_on_import(monkeypatch: pytest.MonkeyPatch) -> None:
    import megatron.core.inference
    from torch.utils import cpp_extension

    compiled = []

    def load_inline(name: str, **arguments: Any) -> None:
        compiled.append(name)
        raise RuntimeError("no compiler")

    monkeypatch.setattr(cpp_extension, "load_inline", load_inline)
    path = Path(megatron.core.inference.__path__[0], "unified_memory.py")
    spec = importlib.util.spec_from_file_location("unified_memory", path)
    assert spec is not None and spec.loader is not None
    spec.loader.exec_module(importlib.util.module_from_spec(spec))
    if not compiled:
        mended("placeholders._UNIFIED_MEMORY")


@slow
def test_canary_text_generation_is_imported(fresh_process: dict[str, Any]) -> None:
    assert not fresh_process["generation"] and fresh_process["real"]
    program = "import sys, torchmetrics; print('transformers.generation.utils' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=100, check=True)
    if done.stdout.split()[-1] == "False":
        mended("placeholders._GENERATION and placeholders._Deferred")


# --- cpu.py


@pytest.mark.parametrize("name", cpu.MODULES)
def test_canary_module_names_cuda(name: str) -> None:
    spec = find_spec(name)
    assert spec is not None and spec.loader is not None
    code = spec.loader.get_code(name)  # type: ignore[attr-defined]
    if cpu._retarget(code) == code:
        mended(f'"{name}" in cpu.MODULES')


# Functions that a run on CPU calls although cuda is in their code, and why nothing goes wrong in them.
HARMLESS = {
    "nemo.lightning.megatron_init:_set_random_seed": "asks how many GPUs there are",
    "nemo.lightning.pytorch.plugins.data_sampler:on_megatron_step_end": "only with output_log",
    "nemo.utils.nvtx:nvtx_range_pop": "only while profiling",
    "nemo.utils.nvtx:nvtx_range_push": "only while profiling",
    "megatron.core.transformer.transformer_config:__post_init__": "a switch of torch.backends.cuda",
}


@slow
def test_run_calls_nothing_else_that_names_cuda(runs: Runs) -> None:
    from {{cookiecutter.__package_name}}.training import evaluate

    called: dict[int, tuple[str, CodeType]] = {}

    def look(frame: FrameType, event: str, argument: object) -> None:
        if event == "call":
            called[id(frame.f_code)] = (str(frame.f_globals.get("__name__")), frame.f_code)

    sys.setprofile(look)
    try:
        run = runs(resumed=runs())
        evaluate(load_settings(run))
    finally:
        sys.setprofile(None)
    found = set()
    for module, code in called.values():
        theirs = module.startswith(("nemo.", "megatron."))
        if theirs and code.co_flags & inspect.CO_OPTIMIZED and cpu._retarget(code) != code:  # a function's, no module's
            found.add(f"{module}:{code.co_name}")
    assert found == set(HARMLESS), "add the module to cpu.MODULES, or the function and its reason to HARMLESS"


def test_canary_random_number_access() -> None:
    cpu.use_cpu()
    random = fresh("megatron.core.tensor_parallel.random", retargeted=True)
    before = torch.get_rng_state()
    tracker = random.CudaRNGStatesTracker()
    tracker.add("inside", 5)
    if torch.equal(torch.get_rng_state(), before):
        mended("cpu._replace_rng_access")
    with fails_without("cpu._replace_rng_access", AttributeError, "'torch.cpu' has no attribute 'random'"):
        tracker.fork("inside").__enter__()
    torch.set_rng_state(before)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU may be in use already")
def test_canary_device_of_loaded_tensors() -> None:
    with fails_without("cpu._replace_device_fix", AssertionError, r"\(False, False\)"):
        fresh("nemo.lightning.io.pl")._fix_tensors_device({})


PROGRAM = """
import json, logging, sys, unittest.mock, warnings
import torch
members = set(dir(torch.cpu))
spoke, call = set(), logging.Logger.callHandlers
logging.Logger.callHandlers = lambda log, record: (spoke.add(log.name), call(log, record))[1]
warnings.simplefilter("ignore")

from PACKAGE import settings, training
from PACKAGE.runtime import backend, cpu

run = settings.Settings(
    accelerator="cpu", run_dir=sys.argv[1],
    training=settings.TrainingSettings(max_steps=2, warmup_steps=1, val_check_interval=2),
)

def failure():
    try:
        training.train(run)
    except Exception as error:
        return f"{type(error).__name__}: {error}"

backend.CallbackGroup = unittest.mock.Mock()
use_cpu, cpu.use_cpu = cpu.use_cpu, lambda: None
without_cpu = failure()
cpu.use_cpu = use_cpu
seen = {"without use_cpu": without_cpu, "with telemetry": failure()}
seen |= {"added": sorted(set(dir(torch.cpu)) - members), "spoke": sorted(spoke)}
seen |= {"generation": "transformers.generation.utils" in sys.modules}
from transformers.generation import GenerationConfig
seen |= {"real": "transformers.generation.configuration_utils" == GenerationConfig.__module__}
print(json.dumps(seen))
"""


@pytest.fixture(scope="module")
def fresh_process(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What is seen in a new process, of which torchrun's variables say that it is the only rank."""
    words = [sys.executable, "-c", PROGRAM.replace("PACKAGE", package.__name__)]
    folder = str(tmp_path_factory.mktemp("fresh") / "run")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    torchrun = {"RANK": "0", "LOCAL_RANK": "0", "GROUP_RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1"}
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "test"}
    environment = {**ENVIRONMENT, **torchrun, **address}
    done = subprocess.run([*words, folder], capture_output=True, text=True, timeout=200, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    seen: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return seen


@slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="with a GPU another thing goes wrong")
def test_canary_cpu_needs_the_redirection(fresh_process: dict[str, Any]) -> None:
    if fresh_process["without use_cpu"] is None:
        mended("cpu.use_cpu")
    assert re.match(f"(RuntimeError|AssertionError): .*({NEEDS_CUDA})", fresh_process["without use_cpu"])


@slow
def test_canary_torch_cpu_lacks_members(fresh_process: dict[str, Any]) -> None:
    ours = {"empty_cache", "default_stream", "manual_seed", "get_rng_state", "set_rng_state"}
    if gone := ours - set(fresh_process["added"]):
        mended(f"{gone} in cpu._complete_torch_cpu")


@slow
@pytest.mark.parametrize("name", ["lightning.pytorch", "megatron.core", "nemo_logger", "nv_one_logger", "torch.utils"])
def test_canary_library_logs_at_start(name: str, fresh_process: dict[str, Any]) -> None:
    if not any(logger.startswith(name) for logger in fresh_process["spoke"]):
        mended(f"{name} in noise._LOGGERS")


# --- fused_adam.py

ADAM = "fused_adam.py (if the other canaries of Adam say so too)"


@pytest.fixture
def torch_adam(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Megatron as it comes: with torch's AdamW where neither Apex nor Transformer Engine is installed."""
    from megatron.core import optimizer
    from megatron.core.optimizer import distrib_optimizer

    fused_adam.use_fused_adam()
    if optimizer.Adam is not fused_adam.FusedAdam:
        pytest.skip("Apex or Transformer Engine is installed")
    monkeypatch.setattr(fused_adam, "use_fused_adam", lambda: None)
    monkeypatch.setattr(optimizer, "Adam", torch.optim.AdamW)
    monkeypatch.setattr(distrib_optimizer, "Adam", torch.optim.AdamW)
    monkeypatch.setattr(optimizer, "USING_PYTORCH_OPTIMIZER", True)
    monkeypatch.setattr(distrib_optimizer, "HAVE_APEX_OR_TE", False)
    monkeypatch.setattr(distrib_optimizer, "USING_APEX_OPTIMIZER", False)
    return monkeypatch


def strategy_class() -> Any:
    from {{cookiecutter.__package_name}}.runtime.strategy import Strategy

    return Strategy


def without(name: str, cls: Any, patch: pytest.MonkeyPatch) -> None:
    """Give a class upstream's method in the place of its own."""
    patch.setattr(cls, name, getattr(cls.__mro__[1], name))


def with_argument(cls: Any, name: str, value: object, patch: pytest.MonkeyPatch) -> None:
    """Change one argument with which a class of upstream's is built."""
    build = cls.__init__
    patch.setattr(cls, "__init__", lambda self, *args, **kwargs: build(self, *args, **{**kwargs, name: value}))


@slow
def test_canary_adam_saves_in_the_default_format(runs: Runs, torch_adam: pytest.MonkeyPatch) -> None:
    with_argument(strategy_class().__mro__[1], "ckpt_optim_fully_reshardable", False, torch_adam)
    with fails_without(ADAM, AssertionError, r"torch\.Size\(\[\]\), 0"):
        runs()


@slow
def test_canary_adam_loads_without_state(runs: Runs, torch_adam: pytest.MonkeyPatch) -> None:
    with fails_without(ADAM, AssertionError, "^$"):
        runs(resumed=runs())


def give_state_before_loading(patch: pytest.MonkeyPatch) -> list[Any]:
    """Get past the failure before; return a list that gets Megatron's optimizers when they are loaded."""
    loaded: list[Any] = []
    load = strategy_class().load_checkpoint

    def load_checkpoint(self: Any, *args: Any, **kwargs: Any) -> Any:
        loaded.extend(self.optimizers[0].mcore_optimizer.chained_optimizers)
        for optimizer in loaded:
            optimizer._init_optimizer_states_with_dummy_values()
        return load(self, *args, **kwargs)

    patch.setattr(strategy_class(), "load_checkpoint", load_checkpoint)
    return loaded


@slow
def test_canary_adam_loads_its_step(runs: Runs, torch_adam: pytest.MonkeyPatch) -> None:
    run = runs()
    give_state_before_loading(torch_adam)
    with fails_without(ADAM, KeyError, "step"):
        runs(resumed=run)


@slow
def test_canary_adam_shares_one_step(runs: Runs, torch_adam: pytest.MonkeyPatch) -> None:
    from megatron.core.optimizer.distrib_optimizer import DistributedOptimizer

    run = runs()
    loaded = give_state_before_loading(torch_adam)
    set_states = DistributedOptimizer._set_main_param_and_optimizer_states

    def keep_step(self: Any, param: Any, tensors: dict[str, Any]) -> None:
        group, order = self.model_param_group_index_map[param]
        state = self.optimizer.state[self.optimizer.param_groups[group]["params"][order]]
        set_states(self, param, {**tensors, "step": state["step"]})

    torch_adam.setattr(DistributedOptimizer, "_set_main_param_and_optimizer_states", keep_step)
    runs(resumed=run)
    steps = [state["step"] for optimizer in loaded for state in optimizer.optimizer.state.values()]
    if all(float(step) == 4 for step in steps):
        mended(ADAM)
    assert len(steps) > 1 and len({id(step) for step in steps}) == 1  # so each parameter counts for all of them


# --- writer.py


def test_canary_norm_of_each_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each call of `float` and each element of `torch.tensor(list)` waits for the GPU."""
    function = fresh("megatron.core.utils", retargeted=True).local_multi_tensor_l2_norm
    calls: list[Any] = []
    norm = torch.norm
    monkeypatch.setattr(torch, "norm", lambda *args: calls.append(args) or norm(*args))
    function(0, None, [[torch.ones(2)] * 5], False)
    if len(calls) < 5:
        mended("clipping.py")


@pytest.fixture
def without_lone_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    """Megatron's own synchronisation, also in a process where an earlier run has replaced it."""
    from megatron.core.distributed.param_and_grad_buffer import _ParamAndGradBucketGroup as BucketGroup

    for name in ("start_grad_sync", "start_param_sync"):
        method = getattr(BucketGroup, name)
        monkeypatch.setattr(BucketGroup, name, getattr(method, "unless_alone", method))
    monkeypatch.setattr(lone_rank, "skip_collectives_with_oneself", lambda: None)


@slow
@pytest.mark.usefixtures("without_lone_rank")
def test_canary_lone_rank_talks_to_itself(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    from megatron.core.distributed import param_and_grad_buffer

    sent: list[str] = []
    for name in ("dist_reduce_scatter_func", "dist_all_gather_func"):
        function = getattr(param_and_grad_buffer, name)
        monkeypatch.setattr(
            param_and_grad_buffer,
            name,
            lambda *args, name=name, function=function, **kwargs: sent.append(name) or function(*args, **kwargs),
        )
    runs()
    if not {"dist_reduce_scatter_func", "dist_all_gather_func"} <= set(sent):
        mended("lone_rank.py")


@slow
@pytest.mark.usefixtures("without_lone_rank")
def test_canary_megatron_looks_for_nan_itself(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    from {{cookiecutter.__package_name}}.runtime import strategy

    monkeypatch.setattr(strategy, "DistributedDataParallelConfig", lambda **_: "megatron")  # NeMo's default
    with fails_without("Strategy(ddp=...)", RuntimeError, "Unexpected result nan"):
        runs(training={"lr": 1e30})


def test_canary_stages_wait_for_the_gpu() -> None:
    from megatron.core import ModelParallelConfig

    if not ModelParallelConfig().batch_p2p_sync:
        mended("batch_p2p_sync in cuda_graph.recorded")


def test_canary_graphs_outlive_a_run() -> None:
    from megatron.core.full_cuda_graph import FullCudaGraphWrapper, StaticBufferLoader

    if "cuda_graph" not in vars(FullCudaGraphWrapper) or "static_buffers" not in vars(StaticBufferLoader):
        mended("cuda_graph.forget")


@slow
def test_canary_hooks_own_the_network(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    from megatron.core.distributed import DistributedDataParallel as Network

    def left_by_a_run() -> int:
        gc.collect()
        before = sum(isinstance(thing, Network) for thing in gc.get_objects())
        runs()
        gc.collect()
        return sum(isinstance(thing, Network) for thing in gc.get_objects()) - before

    assert left_by_a_run() == 0
    monkeypatch.setattr(Network, "_make_backward_post_hook", Network._make_backward_post_hook.strong)
    monkeypatch.setattr(weak_hooks, "use_weak_hooks", lambda: None)
    if left_by_a_run() == 0:
        mended("weak_hooks.py")


@pytest.mark.parametrize("start_method", ["spawn", "fork"])
def test_canary_writer_starts_processes(start_method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    upstream = fresh("megatron.core.dist_checkpointing.strategies.filesystem_async")

    def get_context(method: str) -> None:
        raise ChildProcessError(method)

    monkeypatch.setattr(upstream, "mp", SimpleNamespace(get_context=get_context))
    with fails_without("writer.py", ChildProcessError, start_method):
        if start_method == "spawn":
            upstream._get_write_results_queue()
        else:
            upstream.FileSystemWriterAsync.write_preloaded_data_multiproc([], False, 0, [], None)


# --- strategy.py


@slow
def test_canary_callbacks_that_do_nothing(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    from nemo.lightning.megatron_parallel import CallbackConnector, CallbackMethods

    called: list[bool] = []
    event = CallbackConnector.event

    def watched(self: Any, name: str, *args: Any, **kwargs: Any) -> None:
        nothing = getattr(CallbackMethods, name)
        called.extend(getattr(type(callback), name) is nothing for callback in self.callbacks.get(name, []))
        event(self, name, *args, **kwargs)

    monkeypatch.setattr(CallbackConnector, "event", watched)
    runs()
    assert called and not any(called)
    without("setup_megatron_parallel", strategy_class(), monkeypatch)
    runs()
    if not any(called):
        mended("Strategy.setup_megatron_parallel")


@slow
@pytest.mark.parametrize(
    ("method", "error", "message"),
    [
        ("training_step", RuntimeError, NEEDS_CUDA),
        ("optimizer_step", RuntimeError, NEEDS_CUDA),
        ("validation_step", ValueError, r"self\.log\(val_loss, .*`dict` values cannot be logged"),
    ],
)
def test_canary_nemo_logs_in_every_step(
    method: str, error: type[Exception], message: str, runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    without(method, strategy_class(), monkeypatch)
    with fails_without(f"Strategy.{method}", error, message):
        runs()


@slow
def test_canary_seed_of_the_ranks(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    from megatron.core.tensor_parallel import get_cuda_rng_tracker

    ours = strategy_class().setup_distributed

    def upstream_then_ours(self: Any) -> None:
        get_cuda_rng_tracker().reset()
        strategy_class().__mro__[1].setup_distributed(self)
        seen.append((torch.initial_seed(), list(get_cuda_rng_tracker().get_states())))
        ours(self)
        seen.append((torch.initial_seed(), list(get_cuda_rng_tracker().get_states())))

    seen: list[tuple[int, list[str]]] = []
    monkeypatch.setattr(strategy_class(), "setup_distributed", upstream_then_ours)
    runs(seed=7)
    assert seen[1][0] == 7 and "model-parallel-rng" in seen[1][1]
    if seen[0][1]:
        mended("Strategy.setup_distributed")


@slow
def test_canary_default_optimizer_format(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    run = runs()
    with_argument(strategy_class().__mro__[1], "ckpt_optim_fully_reshardable", False, monkeypatch)
    run = runs()
    with fails_without("ckpt_optim_fully_reshardable", RuntimeError, "a view of a leaf Variable that requires grad"):
        runs(resumed=run)


@pytest.mark.parametrize("rank_zero", [True, False])
def test_canary_progress_printer_waits_for_all_ranks_on_one(rank_zero: bool) -> None:
    from lightning.pytorch.callbacks import TQDMProgressBar
    from megatron.core import timers
    from nemo.lightning.pytorch.strategies.utils import fix_progress_bar

    asked = []

    class Timers(timers.Timers):
        def get_all_timers_string(self, **arguments: Any) -> None:
            asked.append(arguments)

    trainer: Any = SimpleNamespace(is_global_zero=rank_zero, current_epoch=0, max_steps=1)
    trainer.callbacks = [TQDMProgressBar()]
    trainer.strategy = SimpleNamespace(current_epoch_step=1, timers=Timers(2, "minmax"))
    fix_progress_bar(trainer, True, 1)
    [printer] = trainer.callbacks
    printer.get_metrics = lambda *_: {}
    printer.on_train_start(trainer)
    printer.on_train_batch_end(trainer, None)
    collect = timers.Timers._get_elapsed_time_all_ranks.__code__
    if bool(asked) != rank_zero or "dist_all_gather_func" not in collect.co_names:
        mended("replace_progress_bar=False")


# --- checkpoint.py


@slow
def test_canary_model_checkpoint_wants_the_experiment_manager(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    from {{cookiecutter.__package_name}}.runtime.checkpoint import Checkpoint

    without("on_train_start", Checkpoint, monkeypatch)
    errors = (ModuleNotFoundError, TypeError)  # without pandas; with it
    with fails_without("Checkpoint.on_train_start", errors, "'pandas'|unsupported operand .*'NoneType' and 'str'"):
        runs()


@slow
@pytest.mark.skipif(find_spec("nemo_run") is not None, reason="with nemo_run the context is whole")
@pytest.mark.parametrize("argument", ["always_save_context", "save_context_on_train_end"])
def test_canary_context_needs_nemo_run(argument: str, runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    from {{cookiecutter.__package_name}}.runtime.checkpoint import Checkpoint

    with_argument(Checkpoint.__mro__[1], argument, True, monkeypatch)
    folder = runs() / CHECKPOINTS_FOLDER
    assert list(folder.glob("*/context/io.json"))
    if list(folder.glob("*/context/model.yaml")):
        mended(argument)


def test_canary_a_step_saved_again_gets_a_version(tmp_path: Path) -> None:
    from nemo.lightning.pytorch.callbacks import ModelCheckpoint

    (tmp_path / "step=2").mkdir()
    trainer = SimpleNamespace(strategy=SimpleNamespace(broadcast=lambda value: value))
    figures = {"step": torch.tensor(2), "epoch": torch.tensor(0)}
    checkpoint = ModelCheckpoint(dirpath=tmp_path, filename="{step}", monitor=None, save_top_k=1)
    if not checkpoint._get_metric_interpolated_filepath_name(figures, trainer).endswith("step=2-v1.ckpt"):
        mended("enable_version_counter=False")


@slow
def test_canary_second_validation(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    from {{cookiecutter.__package_name}}.runtime.checkpoint import ValidationSchedule

    run = runs()
    mine = [row["step"] for row in rows(runs(resumed=run)) if row["val_loss"]]
    assert mine == ["2", "4"]
    monkeypatch.setattr(ValidationSchedule, "on_train_start", lambda self, trainer, module: None)
    monkeypatch.setattr(ValidationSchedule, "on_train_batch_start", lambda self, *args: None)
    steps = [row["step"] for row in rows(runs(resumed=run)) if row["val_loss"]]
    if steps == mine:
        mended("ValidationSchedule")
    assert steps == ["2", "2", "4"]


@slow
def test_canary_last_validation_of_a_resumed_run(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    from {{cookiecutter.__package_name}}.runtime.checkpoint import ValidationSchedule

    def start_with_the_length(self: Any, trainer: Any, module: Any) -> None:
        loop = trainer.fit_loop
        length = loop._data_fetcher.length
        start(self, trainer, module)
        loop.max_batches = loop._data_fetcher.length = length

    larger = {"max_steps": 5, "global_batch_size": 64}
    run = runs()
    mine = [row["step"] for row in rows(runs(resumed=run, training=larger)) if row["val_loss"]]
    assert mine == ["2", "4", "5"]
    start = ValidationSchedule.on_train_start
    monkeypatch.setattr(ValidationSchedule, "on_train_start", start_with_the_length)
    monkeypatch.setattr(ValidationSchedule, "on_train_batch_end", lambda *args: None)
    steps = [row["step"] for row in rows(runs(resumed=run, training=larger)) if row["val_loss"]]
    if steps == mine:
        mended("ValidationSchedule.on_train_batch_end")
    assert steps == ["2", "4"]


@slow
def test_canary_steps_of_a_checkpoint(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop

    every_second = {"log_every_n_steps": 2, "max_steps": 6, "val_check_interval": 4}
    run = runs(training={**every_second, "max_steps": 4})
    logged = [row["step"] for row in rows(runs(resumed=run, training=every_second)) if row["grad_norm"]]
    assert logged == ["2", "4", "6"]
    keep = property(lambda self: self.__dict__["kept"], lambda self, value: keep_unless_ours(self, value))

    def keep_unless_ours(self: Any, value: int) -> None:
        if sys._getframe(2).f_code.co_filename != sys.modules[f"{package.__name__}.runtime.checkpoint"].__file__:
            self.__dict__["kept"] = value

    monkeypatch.setattr(_TrainingEpochLoop, "_batches_that_stepped", keep, raising=False)
    without_it = [row["step"] for row in rows(runs(resumed=run, training=every_second)) if row["grad_norm"]]
    if without_it == logged:
        mended("ValidationSchedule's line on _batches_that_stepped")
    assert without_it == ["2", "4"]


# --- backend.py


@slow
def test_canary_telemetry_breaks_runs_under_torchrun(fresh_process: dict[str, Any]) -> None:
    if fresh_process["with telemetry"] is None:
        mended("CallbackGroup in backend.prepared")
    assert fresh_process["with telemetry"].startswith("OneLoggerError: Training telemetry config must be set")


@slow
def test_canary_run_is_remembered(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    from megatron.core import parallel_state

    forget = backend._forget_the_run
    monkeypatch.setattr(backend, "_forget_the_run", lambda leave_groups: None)
    try:
        runs()
        with fails_without("backend._forget_the_run", AssertionError, "^$"):
            runs(training={"global_batch_size": 64})
    finally:
        forget(torch.distributed.destroy_process_group)
    monkeypatch.setattr(backend, "_forget_the_run", forget)
    runs(training={"global_batch_size": 64})
    assert not parallel_state.model_parallel_is_initialized() and not torch.distributed.is_initialized()


@slow
def test_canary_megatron_collects_garbage_in_each_save(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    frozen: list[int] = []
    monkeypatch.setattr(gc, "collect", lambda *_: frozen.append(gc.get_freeze_count()))
    runs()
    if not frozen:
        mended("gc.freeze and gc.unfreeze in backend.prepared")
    assert min(frozen) > 100_000 and gc.get_freeze_count() == 0
