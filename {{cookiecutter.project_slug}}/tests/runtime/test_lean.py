"""lean.py: what a plan does without, and that the rest of it is there for a model that wants it."""

import json
import subprocess
import sys

import pytest
from canaries import mended
from conftest import ENVIRONMENT, PACKAGE

HEAVY = ["nemo.lightning.pytorch", "torch._dynamo.eval_frame", "torch.distributed.fsdp", "wandb.sdk"]
IMPORTS = """
import json, sys
import PACKAGE
FIRST
import PACKAGE.contracts.config
print(json.dumps([name for name in HEAVY if name in sys.modules]))
"""
LATER = """
import torch._dynamo
from megatron.core.distributed import finalize_model_grads
from nemo.lightning import Trainer
assert callable(torch._dynamo.optimize) and Trainer.__name__ == "Trainer"
"""


def imported(first: str, later: str = "") -> list[str]:
    program = IMPORTS.replace("FIRST", first).replace("PACKAGE", PACKAGE).replace("HEAVY", str(HEAVY)) + later
    words = [sys.executable, "-W", "ignore", "-c", program]
    done = subprocess.run(words, capture_output=True, text=True, timeout=900, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr[-2000:]
    found: list[str] = json.loads(done.stdout.splitlines()[0])
    return found


@pytest.mark.slow
def test_canary_megatron_imports_compilers_and_loggers() -> None:
    assert imported("from PACKAGE.runtime import lean; lean.use_lean_imports()", LATER) == []
    if imported("pass") != HEAVY:
        mended("lean.use_lean_imports, what is light now")
