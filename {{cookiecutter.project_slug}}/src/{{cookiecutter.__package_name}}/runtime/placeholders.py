"""Import placeholders: NeMo without the LLM stack that it drags in but a training never uses.

Standard library only, and no work beyond filling `sys.modules`: every process and every `--help` passes here.
The reasons, versions and tests are in README.md beside this file.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any


class _Placeholder(ModuleType):
    """A module with a few named members; anything else says plainly that the real package is absent."""

    def __init__(self, name: str, members: dict[str, Any]) -> None:
        super().__init__(name)
        self.__path__: list[str] = []  # lets submodules that are placeholders too be imported from it
        self.__dict__.update(members)

    def __getattr__(self, name: str) -> Any:
        # not ImportError: pickle asks every loaded module for a name, and takes no other error for a no
        raise AttributeError(
            f"{self.__name__}.{name} is not available: this project runs NeMo without its LLM collection. "
            "Install nvidia-modelopt and nemo_run to use the real one (runtime/README.md)."
        )


class _Deferred(ModuleType):
    """A module that is imported when somebody takes more from it than the members given here."""

    def __init__(self, name: str, folder: Path, members: dict[str, Any]) -> None:
        super().__init__(name)
        self.__path__ = [str(folder)]  # its submodules are the real ones
        self.__dict__.update(members)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(import_module(self.__name__), name)


def _nothing(*args: object, **kwargs: object) -> None:
    """Stand in for a hook of distilled or quantised models, which this project does not have."""


# module -> its members. The parents come first, as an import statement visits them.
_MODELOPT: dict[str, dict[str, Any]] = {
    "nemo.collections.llm": {},
    "nemo.collections.llm.modelopt": {},
    "nemo.collections.llm.modelopt.distill": {},
    "nemo.collections.llm.modelopt.distill.utils": {"get_tensor_shapes_adjust_fn_for_distillation": _nothing},
    "nemo.collections.llm.modelopt.model_utils": {
        "save_modelopt_state": _nothing,
        "restore_modelopt_state": _nothing,
    },
}
_UNIFIED_MEMORY: dict[str, dict[str, Any]] = {
    "megatron.core.inference.unified_memory": {"has_unified_memory": False, "create_unified_mempool": _nothing},
}
_GENERATION = "transformers.generation"


def install() -> None:
    """Put the placeholders into `sys.modules`; must run before the first import of Lightning, NeMo or Megatron.

    The LLM collection is replaced only where nvidia-modelopt is not installed: with it, NeMo's own code runs.
    """
    wanted = dict(_UNIFIED_MEMORY)
    if find_spec("modelopt") is None:
        wanted |= _MODELOPT
    for name, members in wanted.items():
        if name not in sys.modules:
            sys.modules[name] = _Placeholder(name, members)
    if "transformers" not in sys.modules and (transformers := find_spec("transformers")):
        base = type("GenerationMixin", (), {})
        folder = Path(str(transformers.origin)).with_name("generation")
        sys.modules[_GENERATION] = _Deferred(_GENERATION, folder, {base.__name__: base})
