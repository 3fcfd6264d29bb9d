"""Chooses the network interface of gloo, which believes that a machine has the address that its own name leads to."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # which imports torch, and `doctor` asks here too
    from .meeting import Meeting

_SIOCGIFADDR = 0x8915  # linux/sockios.h


def choose_interface(meeting: Meeting) -> None:
    """Let gloo use the network in which the machines reached each other, where its own choice would be loopback.

    Debian's installer gives a machine's name the address 127.0.1.1: others would look for it on themselves.
    """
    one_machine = meeting.size == meeting.per_machine
    if one_machine or "GLOO_SOCKET_IFNAME" in os.environ or not _is_loopback(socket.gethostname()):
        return
    own = meeting.addresses[meeting.rank]
    if not own or own.startswith("127."):  # on the machine of rank 0, which knows itself by its name only
        own = _towards(next(filter(None, meeting.addresses[meeting.per_machine :]), ""))
    if interface := _interface_of(own):
        os.environ["GLOO_SOCKET_IFNAME"] = interface


def _is_loopback(name: str) -> bool:
    try:
        return socket.gethostbyname(name).startswith("127.")
    except OSError:
        return True  # gloo falls back to it


def _towards(address: str) -> str:
    """Return the own address in packets to another; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((address, 9))
        return str(probe.getsockname()[0])


def _interface_of(address: str) -> str | None:
    return next((name for name, number in interfaces().items() if number == address), None)


def interfaces() -> dict[str, str]:
    """Return the IPv4 addresses of this machine's network interfaces that have one."""
    found = {}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        for _, name in socket.if_nameindex():
            with suppress(OSError):  # it has none
                answer = fcntl.ioctl(asked.fileno(), _SIOCGIFADDR, struct.pack("256s", name.encode()[:15]))
                found[name] = socket.inet_ntoa(answer[20:24])
    return found
