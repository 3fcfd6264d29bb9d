"""network.py: gloo takes the network in which the machines reached each other, not the one of a machine's name."""

import socket

import pytest

from {{cookiecutter.__package_name}}.runtime import network
from {{cookiecutter.__package_name}}.runtime.meeting import Meeting


def meeting(rank: int, addresses: list[str], per_machine: int = 1) -> Meeting:
    return Meeting("s", None, rank, ["a", "b"], addresses, per_machine, "a", 1, 60.0)


@pytest.fixture
def chosen(monkeypatch):
    """Return what is chosen, on a machine whose name leads to an address."""

    def choose(met: Meeting, own_name: str | OSError, given: str | None = None) -> str | None:
        def resolve(name: str) -> str:
            if isinstance(own_name, OSError):
                raise own_name
            return own_name

        monkeypatch.setattr(socket, "gethostbyname", resolve)
        monkeypatch.setattr(network.os, "environ", {"GLOO_SOCKET_IFNAME": given} if given else {})
        network.choose_interface(met)
        return network.os.environ.get("GLOO_SOCKET_IFNAME")

    return choose


@pytest.mark.parametrize("name", ["127.0.1.1", socket.gaierror()])
def test_a_name_that_leads_to_loopback_is_not_believed(name, chosen, monkeypatch):
    monkeypatch.setattr(network, "_interface_of", {"10.0.0.2": "eth7"}.get)
    assert chosen(meeting(1, ["", "10.0.0.2"]), name) == "eth7"
    monkeypatch.setattr(network, "_towards", {"10.0.0.2": "10.0.0.1"}.get)
    monkeypatch.setattr(network, "_interface_of", {"10.0.0.1": "eth6"}.get)
    assert chosen(meeting(0, ["", "10.0.0.2"]), name) == "eth6"


def test_what_is_right_or_given_stays(chosen):
    assert chosen(meeting(1, ["", "10.0.0.2"]), "10.0.0.2") is None
    assert chosen(meeting(1, ["", "127.0.0.1"], per_machine=2), "127.0.1.1") is None
    assert chosen(meeting(1, ["", "127.0.0.1"]), "127.0.1.1", given="eth0") == "eth0"


def test_an_interface_is_found_by_its_address():
    assert network._interface_of("127.0.0.1") == "lo"
    assert network._interface_of("203.0.113.9") is None
    assert network._towards("127.0.0.1") == "127.0.0.1"
