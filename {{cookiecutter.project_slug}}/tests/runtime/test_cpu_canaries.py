"""The canaries of cpu.py."""

import inspect
import re
import sys
from importlib.util import find_spec
from pathlib import Path
from types import CodeType, FrameType

import pytest
import torch
from canaries import NEEDS_CUDA, fails_without, fresh, mended, no_gpu, seen_in_a_fresh_process, train_shortly

from {{cookiecutter.__package_name}}.runtime import cpu

pytestmark = pytest.mark.filterwarnings("ignore")


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


@pytest.mark.slow
def test_run_calls_nothing_else_that_names_cuda(tmp_path: Path) -> None:
    from {{cookiecutter.__package_name}}.results.evaluate import evaluate
    from {{cookiecutter.__package_name}}.training.run_settings import load_settings

    called: dict[int, tuple[str, CodeType]] = {}

    def look(frame: FrameType, event: str, argument: object) -> None:
        if event == "call":
            called[id(frame.f_code)] = (str(frame.f_globals.get("__name__")), frame.f_code)

    sys.setprofile(look)
    try:
        run = train_shortly(tmp_path, resumed=train_shortly(tmp_path))
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


@pytest.mark.slow
@no_gpu
def test_canary_cpu_needs_the_redirection() -> None:
    failure = seen_in_a_fresh_process()["without use_cpu"]
    if failure is None:
        mended("cpu.use_cpu")
    assert re.match(f"(RuntimeError|AssertionError): .*({NEEDS_CUDA})", failure)


@pytest.mark.slow
def test_canary_torch_cpu_lacks_members() -> None:
    ours = {"empty_cache", "default_stream", "manual_seed", "get_rng_state", "set_rng_state"}
    if gone := ours - set(seen_in_a_fresh_process()["added"]):
        mended(f"{gone} in cpu._complete_torch_cpu")
