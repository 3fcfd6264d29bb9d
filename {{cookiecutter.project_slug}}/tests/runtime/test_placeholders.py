"""placeholders.py: NeMo without what a training never uses, and the canaries of that."""

import importlib.util
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from canaries import fails_without, mended, seen_in_a_fresh_process, train_shortly
from conftest import PACKAGE

from {{cookiecutter.__package_name}}.runtime import placeholders


def test_placeholder_says_what_is_missing_and_where_to_read() -> None:
    module = placeholders._Placeholder("nemo.collections.llm", {})
    with pytest.raises(AttributeError, match=r"nemo\.collections\.llm\.GPTModel is not available.*runtime/README\.md"):
        module.GPTModel  # noqa: B018
    assert not hasattr(module, "__wrapped__")  # what inspect and pickle ask of every module must be an AttributeError


@pytest.mark.parametrize("has_modelopt", [False, True])
def test_placeholders_stand_in_only_for_what_is_absent(has_modelopt: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    names = {*placeholders._MODELOPT, *placeholders._UNIFIED_MEMORY}
    for name in names:
        monkeypatch.delitem(sys.modules, name, raising=False)
    loaded_before = ModuleType("nemo.collections.llm")
    monkeypatch.setitem(sys.modules, "nemo.collections.llm", loaded_before)
    found = {"modelopt": object()} if has_modelopt else {}
    monkeypatch.setattr(placeholders, "find_spec", found.get)
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
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=900, check=True)
    assert done.stderr.splitlines()[-1] == "LOADED []"


# --- canaries


@pytest.mark.slow
@pytest.mark.skipif(find_spec("modelopt") is not None, reason="NeMo's own code runs where nvidia-modelopt is installed")
def test_canary_llm_stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in placeholders._MODELOPT:
        monkeypatch.delitem(sys.modules, name)
    try:
        with fails_without("placeholders._MODELOPT", ImportError, "No module named"):
            train_shortly(tmp_path)
    finally:  # the half of it that was imported
        for name in [name for name in sys.modules if name.startswith("nemo.collections.llm")]:
            del sys.modules[name]


@pytest.mark.filterwarnings("ignore")  # it warns of what it could not compile
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


@pytest.mark.slow
def test_canary_text_generation_is_imported() -> None:
    seen = seen_in_a_fresh_process()
    assert not seen["generation"] and seen["real"]
    program = "import sys, torchmetrics; print('transformers.generation.utils' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=900, check=True)
    if done.stdout.split()[-1] == "False":
        mended("placeholders._GENERATION and placeholders._Deferred")
