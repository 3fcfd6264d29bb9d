"""Tells Lightning, instead of letting it guess, who started this process; and lets ranks meet anew in each run."""

from __future__ import annotations

import os
from datetime import timedelta

from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.lsf import LSFEnvironment
from lightning.fabric.plugins.environments.mpi import MPIEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from . import launch

_WAITS = timedelta(minutes=30)  # torch's own
_store: Store | None = None
_runs = 0


def leave_slurm_to_us() -> None:
    """Keep Lightning from looking for Slurm.

    Where it finds it, which is in every shell of a job, it looks for checkpoints of its own in the current folder.
    Where `srun` is installed and nobody uses it, it warns.
    """
    setattr(SLURMEnvironment, "detect", staticmethod(lambda: False))  # noqa: B010, a method to mypy
    setattr(SLURMEnvironment, "_validate_srun_used", staticmethod(lambda: None))  # noqa: B010


def environment() -> ClusterEnvironment:
    """Return where Lightning reads rank and address; none of these saves or requeues by itself."""
    who = launch.launcher()
    if who == "torchrun":
        return TorchElasticEnvironment()
    if who == "srun":
        os.environ.setdefault("SLURM_NTASKS_PER_NODE", str(launch.tasks_of_a_node()))  # it insists
        return SLURMEnvironment(auto_requeue=False)
    found = (kind() for kind in (LSFEnvironment, MPIEnvironment) if kind.detect())
    return next(found, LightningEnvironment())


def meeting_place(environment: ClusterEnvironment) -> Store:
    """Return the store in which the ranks of a run find each other.

    It stays for as long as the process, for torch's own may still hold the addresses of an earlier run: ranks that
    read those wait for ever. All ranks must make the same runs.
    """
    global _store, _runs
    if _store is None:
        os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"] = environment.main_address, str(environment.main_port)
        rank, size = environment.global_rank(), environment.world_size()
        _store, _, _ = next(rendezvous("env://", rank, size, timeout=_WAITS))
    _runs += 1
    return PrefixStore(f"run {_runs}", _store)
