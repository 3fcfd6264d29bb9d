"""cpu.py: Megatron and NeMo mean the CPU where they say cuda."""

import ast
import functools
import gc
import importlib
import re
from collections.abc import Callable
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

import pytest
import torch

from {{cookiecutter.__package_name}}.runtime import cpu


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
