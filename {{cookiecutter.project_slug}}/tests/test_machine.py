"""machine.py: what `doctor` says of a machine that is part of a cluster, and how little of one that is not."""

import os
import re
import socket

import pytest

from {{cookiecutter.__package_name}} import machine

NAMES = {name for names in machine.VARIABLES.values() for name in names.split()} | set(machine.IFNAMES)


@pytest.fixture(autouse=True)
def nobody(monkeypatch):
    """An environment that no launcher has touched."""
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("nfs4", "nfs4, shared between machines, "),
        ("lustre", "lustre, shared between machines, "),
        ("fuse.sshfs", "fuse.sshfs, which may be shared between machines, "),
        ("ext4", "ext4, of this machine only, "),
    ],
)
def test_a_file_system_is_that_of_the_innermost_mount(kind, said, tmp_path):
    here = tmp_path / "my data"
    here.mkdir()
    point = str(here).replace(" ", r"\040")
    (mounts := tmp_path / "mountinfo").write_text(
        f"1 0 8:1 / / rw - xfs a rw\n2 1 0:5 / {point} rw shared:1 - {kind} b rw\n3 1 0:6 / /proc rw - proc c rw\n"
    )
    assert re.fullmatch(rf"{re.escape(said)}[\d,.]+ GiB free", machine.file_system(here / "not" / "yet", str(mounts)))
    assert machine.file_system(tmp_path, str(mounts)).startswith("xfs, of this machine only, ")
    assert re.fullmatch(r"[\d,.]+ GiB free", machine.file_system(here, str(tmp_path / "none")))


def test_a_name_that_others_cannot_use_is_told_with_the_mend(monkeypatch):
    monkeypatch.setattr(socket, "gethostname", lambda: "node-a")
    monkeypatch.setattr(machine, "interfaces", lambda: {"eth7": "10.0.0.5"})
    monkeypatch.setattr(socket, "gethostbyname", lambda name: "10.0.0.5")
    assert machine.address() == "node-a, 10.0.0.5"
    monkeypatch.setattr(socket, "gethostbyname", lambda name: "127.0.1.1")
    assert machine.address().startswith("node-a is 127.0.1.1, which no other machine reaches (/etc/hosts says so): ")
    assert machine.address().endswith("take the interface by which these reach each other, or GLOO_SOCKET_IFNAME")
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "eth7")
    assert machine.address() == "node-a is 127.0.1.1, which no other machine reaches"

    def unknown(name):
        raise socket.gaierror("no address")

    monkeypatch.setattr(socket, "gethostbyname", unknown)
    assert machine.address() == "node-a has no address"


@pytest.mark.parametrize(
    ("variable", "value", "missing"),
    [
        ("GLOO_SOCKET_IFNAME", "lo", []),
        ("GLOO_SOCKET_IFNAME", "lo,ib77", ["ib77"]),
        ("GLOO_SOCKET_IFNAME", "l", ["l"]),
        ("NCCL_SOCKET_IFNAME", "l", []),
        ("NCCL_SOCKET_IFNAME", "=l", ["l"]),
        ("NCCL_SOCKET_IFNAME", "^ib77", []),
    ],
)
def test_an_interface_that_is_not_there_is_told(variable, value, missing, monkeypatch):
    monkeypatch.setenv(variable, value)
    assert [re.search(r"names (\S+), and there is none", line)[1] for line in machine.wrong_interfaces()] == missing


def test_where_there_is_no_cluster_nothing_is_said_of_one():
    assert list(machine.cluster(gpus=0)) == []


@pytest.mark.parametrize(
    ("left", "who"),
    [
        ({"SLURM_JOB_ID": "7"}, "nobody, in a Slurm job: "),
        ({"SLURM_STEP_ID": "0", "SLURM_PROCID": "1", "SLURM_NTASKS": "2"}, "srun, as one of its"),
        (dict.fromkeys(("RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK"), "0"), "torchrun, as one of its"),
        ({"OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "2"}, "Open MPI, as one of its"),
        ({"LOCAL_RANK": "0"}, "a launcher, as one of its"),
        ({"MASTER_ADDR": "node-a"}, "nobody: "),
    ],
)
def test_in_a_cluster_it_says_who_started_the_process_and_what_they_left(left, who, monkeypatch):
    for name, value in left.items():
        monkeypatch.setenv(name, value)
    lines = list(machine.cluster(gpus=0))
    assert lines[0].startswith(f"Started by: {who}")
    seen = {word for line in lines[1:] if line.startswith("Left by ") for word in line.split() if "=" in word}
    assert seen == {f"{name}={value}" for name, value in left.items()}
    assert any(line.startswith("Network: ") for line in lines)


def test_links_of_gpus_are_shown_where_they_can_be_asked_for(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    alone = list(machine.cluster(gpus=2))
    assert alone[0].startswith("Started by: nobody")
    table = "\\033[4m\\tGPU0\\tGPU1\\033[0m\\nGPU0\\t X \\tNV18\\n\\nLegend:\\n  X = Self\\n"
    (tmp_path / "nvidia-smi").write_text(f"#!{os.path.realpath('/bin/sh')}\nprintf '{table}'\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    assert list(machine.cluster(gpus=2)) == [*alone, "\tGPU0\tGPU1", "GPU0\t X \tNV18"]
