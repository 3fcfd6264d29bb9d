"""The canary of weak_hooks.py: a run that has ended lets go of its network, without it not."""

import gc
from pathlib import Path

import pytest
from canaries import mended, train_shortly

from {{cookiecutter.__package_name}}.runtime import weak_hooks


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the objects that it looks at
def test_canary_hooks_own_the_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from megatron.core.distributed import DistributedDataParallel as Network

    def left_by_a_run() -> int:
        gc.collect()
        before = sum(isinstance(thing, Network) for thing in gc.get_objects())
        train_shortly(tmp_path)
        gc.collect()
        return sum(isinstance(thing, Network) for thing in gc.get_objects()) - before

    assert left_by_a_run() == 0
    monkeypatch.setattr(Network, "_make_backward_post_hook", Network._make_backward_post_hook.strong)
    monkeypatch.setattr(weak_hooks, "use_weak_hooks", lambda: None)
    if left_by_a_run() == 0:
        mended("weak_hooks.py")
