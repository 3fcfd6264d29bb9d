"""The cellar: each workaround does what runtime/README.md says. If it still must, test_runtime_canaries.py asks."""

import ast
import functools
import gc
import importlib
import io
import json
import logging
import queue
import re
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from importlib.util import find_spec
from pathlib import Path
from types import CodeType, FunctionType, ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from packaging.specifiers import SpecifierSet

import {{cookiecutter.__package_name}} as package
from {{cookiecutter.__package_name}}.errors import UserError
from {{cookiecutter.__package_name}}.runtime import (
    backend,
    clipping,
    cpu,
    cuda_graph,
    fused_adam,
    lone_rank,
    noise,
    placeholders,
    seal,
    writer,
)

PACKAGE = package.__name__
RUNTIME = Path(package.__file__).parent / "runtime"
README = (RUNTIME / "README.md").read_text(encoding="utf-8")
TESTS = Path(__file__).parent


# --- placeholders


def test_placeholder_says_what_is_missing_and_where_to_read() -> None:
    module = placeholders._Placeholder("nemo.collections.llm", {})
    with pytest.raises(ImportError, match=r"nemo\.collections\.llm\.GPTModel is not available.*runtime/README\.md"):
        module.GPTModel  # noqa: B018
    assert not hasattr(module, "__wrapped__")  # what inspect asks of every module must stay an AttributeError


@pytest.mark.parametrize("has_modelopt", [False, True])
def test_placeholders_stand_in_only_for_what_is_absent(has_modelopt: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    names = {*placeholders._MODELOPT, *placeholders._UNIFIED_MEMORY}
    for name in names:
        monkeypatch.delitem(sys.modules, name, raising=False)
    loaded_before = ModuleType("nemo.collections.llm")
    monkeypatch.setitem(sys.modules, "nemo.collections.llm", loaded_before)
    monkeypatch.setattr(placeholders, "find_spec", lambda name: object() if has_modelopt else None)
    placeholders.install()
    placed = {name for name in names if isinstance(sys.modules.get(name), placeholders._Placeholder)}
    expected = set(placeholders._UNIFIED_MEMORY) | (set() if has_modelopt else set(placeholders._MODELOPT))
    assert placed == expected - {"nemo.collections.llm"}
    assert sys.modules["nemo.collections.llm"] is loaded_before
    for name in placed:  # as monkeypatch cannot know of modules that it has not seen
        del sys.modules[name]


def test_a_deferred_module_is_imported_when_more_of_it_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "late_module"
    folder.mkdir()
    (folder / "__init__.py").write_text("VALUE = 1")
    (folder / "part.py").write_text("PART = 2")
    monkeypatch.syspath_prepend(tmp_path)
    deferred = placeholders._Deferred("late_module", folder, {"Base": int})
    monkeypatch.setitem(sys.modules, "late_module", deferred)
    monkeypatch.delitem(sys.modules, "late_module.part", raising=False)
    assert importlib.import_module("late_module").Base is int
    assert importlib.import_module("late_module.part").PART == 2
    assert sys.modules["late_module"] is deferred
    assert deferred.VALUE == 1
    assert sys.modules["late_module"].VALUE == 1 and not hasattr(sys.modules["late_module"], "Base")
    del sys.modules["late_module.part"]


# --- the CPU backend


def names_cuda(code: object) -> bool:
    """Return whether the code, or a function inside it, has cuda as a name or as a string that can be a device."""
    if isinstance(code, CodeType):
        return "cuda" in code.co_names or any(map(names_cuda, code.co_consts))
    if isinstance(code, tuple | frozenset):  # what a list or a set of constants is compiled to
        return any(map(names_cuda, code))
    return isinstance(code, str) and re.fullmatch(r"cuda|torch\.cuda\.\w+Tensor", code) is not None


def decorated(function: Callable) -> Callable:
    @functools.wraps(function)
    def wrapper(*args: Any) -> Any:
        return function(*args)

    return wrapper


class Sample:
    def method(self) -> str:
        return "cuda"

    @staticmethod
    def static() -> str:
        return "cuda"

    @classmethod
    def of_class(cls) -> str:
        return "cuda"

    @property
    def read(self) -> str:
        return "cuda"

    @read.setter
    def read(self, value: str) -> None:
        self.written = "cuda"

    @functools.cached_property
    def cached(self) -> str:
        return "cuda"

    @decorated
    def wrapped(self) -> str:
        return "cuda"


def sample(device: str = "cuda") -> tuple[str, str, Callable[[], tuple[Any, str, bool]]]:
    def inner() -> tuple[Any, str, bool]:
        is_half = "torch.HalfTensor" in ["torch.cuda.HalfTensor", "torch.cuda.BFloat16Tensor"]
        return torch.cuda.current_device, "torch.cuda.FloatTensor", is_half

    return device, "a cuda device", inner


def test_functions_finds_every_kind_of_function() -> None:
    module = ModuleType(__name__)
    module.__dict__.update(Sample=Sample, sample=sample, wrapped=decorated(sample), foreign=functools.wraps, number=1)
    found = {function.__qualname__ for function in cpu._functions(module)}
    methods = {name for name in vars(Sample) if not name.startswith("_") and name != "written"}
    assert found == {"sample", *(f"Sample.{name}" for name in methods)}
    assert sum(function.__qualname__ == "Sample.read" for function in cpu._functions(module)) == 2  # getter and setter


def test_retargeted_code_means_the_cpu() -> None:
    copy = FunctionType(cpu._retarget(sample.__code__), globals(), argdefs=("cuda",))
    device, text, inner = copy()
    assert device == "cuda"  # defaults live outside the code: use_cpu replaces them too
    assert text == "a cuda device"  # only what is a device or a type by itself, no prose
    assert inner() == (torch.cpu.current_device, "torch.FloatTensor", True)
    assert names_cuda(sample.__code__) and not names_cuda(copy.__code__)


@pytest.fixture(scope="module")
def on_cpu() -> None:
    """Megatron and NeMo after use_cpu."""
    cpu.use_cpu()
    cpu.use_cpu()  # a second call changes nothing


@pytest.mark.usefixtures("on_cpu")
@pytest.mark.parametrize("name", cpu.MODULES)
def test_no_function_of_the_module_still_names_cuda(name: str) -> None:
    file = importlib.import_module(name).__file__
    functions = [thing for thing in gc.get_objects() if type(thing) is FunctionType]
    mine = [function for function in functions if function.__code__.co_filename == file]
    assert mine
    replaced = {"_get_cuda_rng_state", "_set_cuda_rng_state"}  # by cpu._replace_rng_access, so nobody calls these
    assert not {f.__qualname__ for f in mine if names_cuda(f.__code__)} - replaced
    assert not {f.__qualname__ for f in mine if "cuda" in (f.__defaults__ or ())} - replaced


NOT_CALLED_ON_CPU = {
    *("CUDAGraph", "clock_rate", "max_memory_allocated", "max_memory_reserved"),
    *("nvtx", "power_draw", "temperature", "utilization"),  # all these: figures and features of a GPU, off by default
    *("default_generators", "random"),  # in the two functions that cpu._replace_rng_access replaces
}


@pytest.mark.usefixtures("on_cpu")
def test_torch_cpu_has_what_the_modules_call_on_torch_cuda() -> None:
    called: set[str] = set()
    for name in cpu.MODULES:
        tree = ast.parse(Path(importlib.import_module(name).__file__ or "").read_text(encoding="utf-8"))
        called |= {
            node.attr
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "torch.cuda"
        }
    unused = {name for name in called if not hasattr(torch.cpu, name)}
    assert called - unused >= {"empty_cache", "default_stream", "manual_seed", "get_rng_state", "set_rng_state"}
    assert unused <= NOT_CALLED_ON_CPU, f"torch.cuda.{unused - NOT_CALLED_ON_CPU} is new upstream: is it called on CPU?"


@pytest.mark.usefixtures("on_cpu")
def test_random_number_tracker_keeps_the_cpu_generator() -> None:
    from megatron.core.tensor_parallel.random import CudaRNGStatesTracker

    torch.manual_seed(1)
    outside = torch.get_rng_state()
    tracker = CudaRNGStatesTracker()
    tracker.add("inside", 5)
    assert torch.equal(torch.get_rng_state(), outside)
    with tracker.fork("inside"):
        drawn = torch.rand(3)
    with tracker.fork("inside"):
        assert not torch.equal(torch.rand(3), drawn)  # it goes on where it stopped
    assert torch.equal(torch.get_rng_state(), outside)
    torch.manual_seed(5)
    assert torch.equal(torch.rand(3), drawn)


# --- Adam


def parameters() -> list[torch.nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in ((7, 5), (5,), (1,))]


def groups(params: list[torch.nn.Parameter]) -> list[dict[str, Any]]:
    return [{"params": params[:1]}, {"params": params[1:], "weight_decay": 0.0}]


def step(optimizers: list[torch.optim.Optimizer], number: int) -> None:
    """Give all optimizers the same gradients; the last parameter has none in every third step."""
    generator = torch.Generator().manual_seed(number)
    for position, same in enumerate(zip(*(weights_of(optimizer) for optimizer in optimizers), strict=True)):
        gradient = torch.randn(same[0].shape, generator=generator)
        for param in same:
            param.grad = gradient.clone() if position < 2 or number % 3 else None
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = 0.1 / number
        optimizer.step()


def weights_of(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    return [param for group in optimizer.param_groups for param in group["params"]]


ADAM: dict[str, Any] = {"lr": 0.1, "betas": (0.9, 0.95), "eps": 1e-8, "weight_decay": 0.1}


@pytest.mark.parametrize(("mode", "reference"), [(True, torch.optim.AdamW), (False, torch.optim.Adam)])
def test_fused_adam_equals_torch(mode: bool, reference: type[torch.optim.Optimizer]) -> None:
    ours = fused_adam.FusedAdam(groups(parameters()[:2]), **ADAM, adam_w_mode=mode)
    theirs = reference(groups(parameters()[:2]), **ADAM)
    for number in range(1, 21):
        step([ours, theirs], number)
    for mine, other in zip(weights_of(ours), weights_of(theirs), strict=True):
        torch.testing.assert_close(mine, other, rtol=16 * torch.finfo(torch.float32).eps, atol=1e-6)


def test_fused_adam_keeps_its_step_in_the_group_and_goes_on_from_a_state_dict() -> None:
    whole, first = (fused_adam.FusedAdam(groups(parameters()), **ADAM) for _ in range(2))
    for number in range(1, 6):
        step([whole, first], number)
    assert [group["step"] for group in whole.param_groups] == [5, 5]
    assert all(set(state) == {"exp_avg", "exp_avg_sq"} for state in whole.state.values())
    second = fused_adam.FusedAdam(groups([p.detach().clone().requires_grad_() for p in weights_of(first)]), **ADAM)  # type: ignore[misc]
    second.load_state_dict(first.state_dict())
    for number in range(6, 11):
        step([whole, second], number)
    assert all(map(torch.equal, weights_of(whole), weights_of(second)))


def test_fused_adam_counts_for_a_rank_without_a_share() -> None:
    optimizer = fused_adam.FusedAdam([{"params": []}], **ADAM)
    optimizer.step()
    assert optimizer.param_groups[0]["step"] == 1


def test_megatron_takes_fused_adam_for_apex() -> None:
    from megatron.core import optimizer
    from megatron.core.optimizer import distrib_optimizer

    fused_adam.use_fused_adam()
    assert not optimizer.USING_PYTORCH_OPTIMIZER and distrib_optimizer.HAVE_APEX_OR_TE
    if find_spec("apex") is None and find_spec("transformer_engine") is None:
        assert optimizer.Adam is distrib_optimizer.Adam is fused_adam.FusedAdam


# --- clipping


def test_clipping_equals_torch() -> None:
    tensors = [torch.randn(size, dtype=dtype) for size in (3, 7) for dtype in (torch.float32, torch.bfloat16)]
    norm, _ = clipping.norm(0, torch.zeros(1), [tensors], False)
    expected = torch.linalg.vector_norm(torch.cat([tensor.double() for tensor in tensors]))
    assert norm.shape == (1,) and norm.dtype == torch.float32
    assert float(norm) == pytest.approx(float(expected), rel=1e-3)
    halves = [tensor / 2 for tensor in tensors]
    clipping.scale(0, torch.zeros(1), [tensors, tensors], 0.5)
    assert all(torch.equal(tensor, half) for tensor, half in zip(tensors, halves, strict=True))


def test_megatron_clips_with_few_kernels_where_it_has_nothing_better(monkeypatch: pytest.MonkeyPatch) -> None:
    from megatron.core import utils
    from megatron.core.optimizer import clip_grads

    for found, taken in ((utils.local_multi_tensor_l2_norm, clipping.norm), (torch.norm, torch.norm)):
        monkeypatch.setattr(clip_grads, "l2_norm_impl", found)
        clipping.use_few_kernels()
        assert clip_grads.l2_norm_impl is taken


# --- collectives


@pytest.mark.parametrize(("ranks", "calls"), [(1, []), (2, ["grads", "params"])])
def test_a_rank_alone_sends_nothing(ranks: int, calls: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from megatron.core.distributed.param_and_grad_buffer import _ParamAndGradBucketGroup as BucketGroup

    made: list[str] = []
    monkeypatch.setattr(BucketGroup, "start_grad_sync", lambda self: made.append("grads"))
    monkeypatch.setattr(BucketGroup, "start_param_sync", lambda self, force_sync: made.append("params"))
    for _ in range(2):  # of which the second changes nothing
        lone_rank.skip_collectives_with_oneself()
    buckets = BucketGroup.__new__(BucketGroup)
    buckets.intra_distributed_optimizer_instance_group = SimpleNamespace(size=lambda: ranks)
    buckets.start_grad_sync()
    buckets.start_param_sync(force_sync=True)
    assert made == calls


# --- CUDA graphs


def test_only_what_is_inside_is_recorded() -> None:
    config = SimpleNamespace()
    with cuda_graph.recorded(config):
        assert config.enable_cuda_graph and config.cuda_graph_scope == "full_iteration"
        assert not config.batch_p2p_sync
    assert not config.enable_cuda_graph


def test_what_cannot_be_recorded_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    from megatron.core.full_cuda_graph import FullCudaGraphWrapper

    for step, error in ((0, RuntimeError), (1, UserError), (2, RuntimeError)):
        monkeypatch.setitem(FullCudaGraphWrapper.curr_iteration, "training", step)
        with pytest.raises(error, match="stream is capturing") as caught, cuda_graph.recorded(SimpleNamespace()):
            try:
                raise RuntimeError("operation not permitted when stream is capturing\nmore of it")
            finally:
                if step == 1:
                    raise RuntimeError("failed due to a previous error")
        assert isinstance(caught.value, UserError) == ("--training.cuda_graph false" in str(caught.value))


def test_another_run_records_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    from megatron.core.full_cuda_graph import FullCudaGraphWrapper, StaticBufferLoader

    for name, value in (("curr_iteration", 7), ("cuda_graph", object()), ("result", [object()])):
        monkeypatch.setitem(getattr(FullCudaGraphWrapper, name), "training", value)
    monkeypatch.setitem(StaticBufferLoader.static_buffers, "training", [object()])
    cuda_graph.forget()
    assert FullCudaGraphWrapper.curr_iteration["training"] == 0
    assert FullCudaGraphWrapper.cuda_graph["training"] is FullCudaGraphWrapper.result["training"] is None
    assert StaticBufferLoader.static_buffers["training"] == []


# --- the writer


def test_writer_writes_each_bucket_and_reports_what_it_wrote(tmp_path: Path) -> None:
    written = write_all([bucket(tmp_path / "a", b"one"), bucket(tmp_path / "b", b"three")])
    assert [(number, results[0].size_in_bytes) for number, results in written.items()] == [(0, 3), (1, 5)]
    assert (tmp_path / "b").read_bytes() == b"three"


def test_writer_reports_an_error_and_stops(tmp_path: Path) -> None:
    error = write_all([bucket(tmp_path / "absent" / "a", b"one"), bucket(tmp_path / "b", b"three")])
    assert isinstance(error, FileNotFoundError)  # Megatron raises it on every rank
    assert not (tmp_path / "b").exists()


def bucket(path: Path, data: bytes) -> tuple[Path, str, tuple[list, list]]:
    from torch.distributed.checkpoint.metadata import MetadataIndex
    from torch.distributed.checkpoint.planner import WriteItem, WriteItemType

    item = WriteItem(index=MetadataIndex(path.name), type=WriteItemType.BYTE_IO)
    return path, path.name, ([(item, io.BytesIO(data))], [])


def write_all(buckets: list[Any]) -> Any:
    from torch.distributed.checkpoint.filesystem import _StorageWriterTransforms

    writer.write_in_this_process()
    results: queue.SimpleQueue[Any] = queue.SimpleQueue()
    writer._write_all([_StorageWriterTransforms()], False, 0, buckets, results)
    return results.get_nowait()


# --- checkpoints


@pytest.fixture
def checkpoints(tmp_path: Path) -> Path:
    """Sealed checkpoints of steps 2 and 10; then one without its seal, one that NeMo has marked, and something else."""
    for name in ("step=2-val_loss=0.5", "step=2-last", "step=10-last", "step=30-last", "step=30-val_loss=0.1", "notes"):
        (tmp_path / name / "weights").mkdir(parents=True)
        (tmp_path / name / seal.SEAL).write_text("{}")
    (tmp_path / "step=20-last" / "weights").mkdir(parents=True)
    (tmp_path / "step=20-val_loss=0.2").mkdir()
    for name in ("step=30-last", "step=30-val_loss=0.1"):
        (tmp_path / f"{name}-unfinished").touch()
    return tmp_path


def test_finders_pass_over_unfinished_checkpoints(checkpoints: Path) -> None:
    from {{cookiecutter.__package_name}}.runtime import checkpoint

    last, best = checkpoint.last_checkpoint(checkpoints), checkpoint.best_checkpoint(checkpoints)
    assert last is not None and last.name == "step=10-last" and checkpoint.step_of(last) == 10
    assert best.name == "step=2-val_loss=0.5" and checkpoint.weights(best) == best / "weights"


def test_a_damaged_best_checkpoint_is_refused(checkpoints: Path) -> None:
    from {{cookiecutter.__package_name}}.runtime.checkpoint import best_checkpoint

    (checkpoints / "step=2-val_loss=0.5" / seal.SEAL).write_text('{"weights/common.pt": {"bytes": 1, "crc32": 2}}')
    with pytest.raises(UserError, match=r"step=2-val_loss=0.5 is damaged \(weights/common.pt is missing\): restore it"):
        best_checkpoint(checkpoints)


def test_only_the_newest_last_checkpoint_and_the_one_before_are_kept(checkpoints: Path) -> None:
    from {{cookiecutter.__package_name}}.runtime.checkpoint import _superseded

    assert {Path(path).name for path in _superseded(checkpoints)} == {"step=2-last", "step=10-last"}


def test_finders_without_a_checkpoint(tmp_path: Path) -> None:
    from {{cookiecutter.__package_name}}.runtime.checkpoint import best_checkpoint, last_checkpoint

    assert last_checkpoint(tmp_path / "absent") is None
    with pytest.raises(UserError, match="holds no finished checkpoint of a validation"):
        best_checkpoint(tmp_path)


# --- backend, strategy


@pytest.mark.parametrize(
    ("accelerator", "gpus", "chosen"),
    [("auto", 0, "cpu"), ("auto", 2, "gpu"), ("cpu", 2, "cpu"), ("gpu", 2, "gpu")],
)
def test_device_is_chosen(accelerator: str, gpus: int, chosen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    assert backend.choose(accelerator, devices=2) == chosen


def test_missing_gpu_is_the_users_to_mend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with (
        pytest.raises(UserError, match="--accelerator gpu: PyTorch sees no GPU on this machine"),
        backend.prepared("gpu", 1),
    ):
        pytest.fail("nothing may run")


@pytest.mark.parametrize("started_by", [None, "NODE_RANK", "GROUP_RANK", "SLURM_NTASKS"])
def test_a_machine_does_not_wait_for_others_that_nobody_started(
    started_by: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("NODE_RANK", "GROUP_RANK", "SLURM_NTASKS"):
        monkeypatch.delenv(name, raising=False)
    alone = pytest.raises(UserError, match="num_nodes 2: nothing says which")
    if started_by:
        monkeypatch.setenv(started_by, "0")
    with nullcontext() if started_by else alone, backend.prepared("cpu", 1, num_nodes=2):
        pass


def test_runs_send_no_telemetry() -> None:
    from nemo.lightning.callback_group import CallbackGroup

    CallbackGroup.get_instance().register(object())
    with backend.prepared("cpu", 1):
        assert not CallbackGroup.get_instance().callbacks


@pytest.mark.parametrize("here", [{"loss": torch.tensor(3.0), "num_items": torch.tensor(4.0)}, torch.tensor(0.0)])
def test_metrics_travel_from_the_last_stage_to_all(here: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from megatron.core import parallel_state

    from {{cookiecutter.__package_name}}.losses import ItemLossReduction
    from {{cookiecutter.__package_name}}.runtime.strategy import Strategy

    monkeypatch.setattr(parallel_state, "get_pipeline_model_parallel_world_size", lambda: 2)
    monkeypatch.setattr(parallel_state, "get_pipeline_model_parallel_last_rank", lambda: 7)
    monkeypatch.setattr(parallel_state, "get_pipeline_model_parallel_group", lambda: "stages")
    sent = []

    def broadcast(values: torch.Tensor, source: int, group: object) -> None:
        sent.append((values.tolist(), source, group))
        values.copy_(torch.tensor([3.0, 4.0]))

    monkeypatch.setattr(torch.distributed, "broadcast", broadcast)
    monkeypatch.setattr(Strategy, "root_device", torch.device("cpu"))
    strategy = Strategy.__new__(Strategy)
    strategy._lightning_module = type("Module", (), {"loss_reduction": ItemLossReduction()})()
    assert strategy._from_last_stage(here) == {"loss": 3.0, "num_items": 4.0}
    assert sent == [([3.0, 4.0] if isinstance(here, dict) else [0.0, 0.0], 7, "stages")]


# --- noise


@pytest.fixture
def loud(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Loggers, warnings and tracebacks as they were, afterwards."""
    monkeypatch.setattr(sys, "excepthook", sys.__excepthook__)
    before = {name: (logging.getLogger(name).level, [*logging.getLogger(name).filters]) for name in noise._LOGGERS}
    with warnings.catch_warnings():
        yield
    for name, (level, filters) in before.items():
        logging.getLogger(name).setLevel(level)
        logging.getLogger(name).filters[:] = filters


@pytest.mark.usefixtures("loud")
@pytest.mark.parametrize("options", [[], ["default"]])
def test_quiet_lets_errors_through(options: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "warnoptions", options)
    warnings.simplefilter("error")
    noise.quiet()
    log = logging.getLogger("nemo_logger")
    log.setLevel(logging.DEBUG)  # as NeMo does when it is imported
    assert [level for level in (10, 20, 30, 40, 50) if log.filter(log.makeRecord("", level, "", 0, "", (), None))] == [
        40,
        50,
    ]
    assert not logging.getLogger("megatron.core.utils").isEnabledFor(logging.WARNING)
    assert sys.excepthook is noise.print_short
    if options:
        with pytest.raises(UserWarning):
            warnings.warn("the user asked for warnings", stacklevel=1)
    else:
        warnings.warn("nobody asked", stacklevel=1)


# --- import budget

HEAVY = ["lightning", "matplotlib", "megatron.core", "nemo", "numpy", "torch"]


@pytest.mark.parametrize("arguments", ["", "--help", "pretrain --help", "pretrain --training.max_steps 0"])
def test_heavy_libraries_stay_out_until_they_are_needed(arguments: str) -> None:
    program = f"""
import sys
from {PACKAGE}.cli import main
try:
    main({arguments.split()}) if {arguments!r} else None
except SystemExit:
    pass
print("LOADED", [name for name in {HEAVY} if name in sys.modules], file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr.splitlines()[-1] == "LOADED []"


def test_a_traceback_keeps_what_is_yours_and_where_a_library_fails(capsys: pytest.CaptureFixture[str]) -> None:
    training: dict[str, Any] = {}
    exec(compile("def lead(there): there()", str(RUNTIME.parent / "training.py"), "exec"), training)
    try:
        try:  # by way of training.py and a library, into another
            training["lead"](lambda: re.sub("a", lambda _: json.loads("{"), "a"))
        except ValueError as error:
            raise RuntimeError("no such luck") from error
    except RuntimeError as error:
        noise.print_short(type(error), error, error.__traceback__)
    shown = capsys.readouterr().err
    first, second = shown.split("The above exception was the direct cause")
    files = re.findall(r'File ".*?(\w+\.py)", line', first)
    assert files == ["test_runtime.py"] * 3 + ["__init__.py", "decoder.py", "decoder.py"]
    assert "json.decoder.JSONDecodeError: Expecting property name" in first
    assert "RuntimeError: no such luck\n(frames that lead there are left out" in second


# --- README.md

ROWS = [[cell.strip("| ") for cell in line.split(" | ")] for line in README.splitlines() if line.startswith("| `")]


def test_readme_has_a_row_for_everything_that_is_here() -> None:
    sections = dict(re.findall(r"^## `(\w+\.py)`.*?\n(.*?)(?=^## |\Z)", README, re.MULTILINE | re.DOTALL))
    files = {path.name: path for path in RUNTIME.glob("*.py") if path.name != "__init__.py"}
    assert sections.keys() == files.keys()
    for name, path in files.items():
        told = set(re.findall(rf"`(?:{path.stem}\.)?([\w.]+)`", sections[name]))
        assert public_names(path) - told == set(), f"{name}: not in its section of README.md"


def public_names(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    kinds = (ast.FunctionDef, ast.ClassDef)
    top = [node for node in tree.body if isinstance(node, kinds)]
    methods = {
        f"{node.name}.{inner.name}"
        for node in top
        if isinstance(node, ast.ClassDef)
        for inner in node.body
        if isinstance(inner, kinds)
    }
    return {name for name in {node.name for node in top} | methods if not re.search(r"(^|\.)_", name)}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0].strip("`"))
def test_readme_row_names_what_exists(row: list[str]) -> None:
    here, _, upstream, red = row
    sources = {path.stem: path.read_text(encoding="utf-8") for path in RUNTIME.glob("*.py")}
    for code in re.findall(r"`([\w.]+)", here):
        room, _, name = code.rpartition(".")
        assert re.search(rf"\b{name}\b", sources.get(room, "".join(sources.values()))), f"{code} is not in runtime/"
    for path in re.findall(r"`(\w+/[\w/]+\.py)`", upstream):
        root = find_spec(path.split("/")[0])
        folders = list(root.submodule_search_locations or []) if root else []
        assert any((Path(folder).parent / path).is_file() for folder in folders), f"{path} is not installed"
    tests = set(re.findall(r"`(test_\w+)`", red))
    assert tests, "which test says that it can go?"
    code = "".join(path.read_text(encoding="utf-8") for path in TESTS.glob("test_*.py"))
    assert not {name for name in tests if f"def {name}(" not in code}


def test_readme_has_a_row_for_every_canary() -> None:
    canaries = re.findall(r"def (test_\w+)\(", (TESTS / "test_runtime_canaries.py").read_text(encoding="utf-8"))
    assert canaries and not {name for name in canaries if not any(f"`{name}`" in row[-1] for row in ROWS)}


def test_readme_was_measured_with_versions_that_are_allowed() -> None:
    project = (TESTS.parent / "pyproject.toml").read_text(encoding="utf-8")
    allowed = dict(re.findall(r'"(nemo-toolkit|megatron-core|lightning|torch)(?:\[\w+\])?([<>=][^"]+)"', project))
    seen = re.search(r"was seen with (.*?)\.\s", README, re.DOTALL)
    assert seen and len(allowed) == 4
    for name, versions in re.findall(r"([a-z-]+) (\d[\d.]+(?: and \d[\d.]+)*)", seen[1]):
        fitting = SpecifierSet(allowed.pop(name))
        assert all(version in fitting for version in versions.split(" and "))
    assert not allowed
