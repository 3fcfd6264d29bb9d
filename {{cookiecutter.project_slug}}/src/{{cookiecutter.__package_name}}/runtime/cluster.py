"""Tells Lightning, instead of letting it guess, who started this process."""

from __future__ import annotations

import os

from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.mpi import MPIEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment

from . import launch


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
        nodes = os.environ.get("SLURM_STEP_NODELIST", "127.0.0.1")  # it takes the job's, which a step may not be on
        first = launch.HERE if launch.nodes() == 1 else SLURMEnvironment.resolve_root_node_address(nodes)
        os.environ.setdefault("MASTER_ADDR", first)
        return SLURMEnvironment(auto_requeue=False)
    if who in launch.MPI:
        mpi = MPIEnvironment()
        if launch.nodes() == 1:
            mpi._main_address = launch.HERE  # it takes the machine's name, which need not lead to it
        return mpi
    return LightningEnvironment()


def rank_in(environment: ClusterEnvironment, devices: int) -> int:
    """Return the rank of this process; `devices` is the number of processes on each machine."""
    if isinstance(environment, LightningEnvironment):  # it learns that later
        return environment.node_rank() * devices + environment.local_rank()
    return environment.global_rank()
