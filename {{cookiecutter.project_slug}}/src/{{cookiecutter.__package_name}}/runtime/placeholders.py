"""Import placeholders: NeMo without the LLM stack that a training step drags in but never uses.

Standard library only, and no work beyond filling `sys.modules`: every process and every `--help` passes here.
The reasons, versions and tests are in README.md beside this file.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from types import ModuleType
from typing import Any


class _Placeholder(ModuleType):
    """A module with a few named members; anything else says plainly that the real package is absent."""

    def __init__(self, name: str, members: dict[str, Any]) -> None:
        super().__init__(name)
        self.__path__: list[str] = []  # lets submodules that are placeholders too be imported from it
        self.__dict__.update(members)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise ImportError(
            f"{self.__name__}.{name} is not available: this project runs NeMo without its LLM collection. "
            "Install nvidia-modelopt and nemo_run to use the real one (runtime/README.md)."
        )


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


def install() -> None:
    """Put the placeholders into `sys.modules`; must run before the first import of NeMo or Megatron.

    The LLM collection is replaced only where nvidia-modelopt is not installed: with it, NeMo's own code runs.
    """
    wanted = dict(_UNIFIED_MEMORY)
    if find_spec("modelopt") is None:
        wanted |= _MODELOPT
    for name, members in wanted.items():
        if name not in sys.modules:
            sys.modules[name] = _Placeholder(name, members)
