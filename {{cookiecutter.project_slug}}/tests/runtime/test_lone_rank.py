"""lone_rank.py: no collectives with oneself, and the canary of that."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from canaries import mended, train_shortly, without_lone_rank

from {{cookiecutter.__package_name}}.runtime import lone_rank


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


@pytest.mark.slow
def test_canary_lone_rank_talks_to_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from megatron.core.distributed import param_and_grad_buffer

    without_lone_rank(monkeypatch)
    sent: list[str] = []
    for name in ("dist_reduce_scatter_func", "dist_all_gather_func"):
        function = getattr(param_and_grad_buffer, name)
        monkeypatch.setattr(
            param_and_grad_buffer,
            name,
            lambda *args, name=name, function=function, **kwargs: sent.append(name) or function(*args, **kwargs),
        )
    train_shortly(tmp_path)
    if not {"dist_reduce_scatter_func", "dist_all_gather_func"} <= set(sent):
        mended("lone_rank.py")
