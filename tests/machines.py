"""Two machines on one: network namespaces with a cable between them, each with a host name of its own. Needs root."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

NEEDED = ("ip", "nsenter", "unshare", "mount")
LIMIT = 1200.0
"""seconds that nothing here should take, on a busy machine either"""


def why_not() -> str | None:
    """Why two machines cannot be made here, if they cannot."""
    if missing := [program for program in NEEDED if not shutil.which(program)]:
        return f"{', '.join(missing)} not installed"
    if os.geteuid():
        return "only root makes network namespaces"
    trial = subprocess.run(["unshare", "--net", "--uts", "--mount", "true"], capture_output=True, text=True)
    return trial.stderr.strip() if trial.returncode else None


@dataclass
class Machines:
    """Machines a (rank 0's) and b; all processes that were started on them end with them."""

    folder: Path
    env: dict[str, str]
    started: list[subprocess.Popen] = field(default_factory=list)

    def start(self, machine: str, *words: str | Path, debian: bool = False, local: Path | None = None, **env: str):
        """Starts a command on a machine; its output goes to the file of its name, `a.log` or `b.log`.

        debian: the machine's own name leads to 127.0.1.1. local: a folder that each machine has its own of.
        """
        hosts = self.folder / f"hosts.{machine}"
        own = {"a": "10.77.0.1", "b": "10.77.0.2"} | ({machine: "127.0.1.1"} if debian else {})
        hosts.write_text("127.0.0.1 localhost\n" + "".join(f"{ip} machine-{name}\n" for name, ip in own.items()))
        mounts = [f"mount --bind {hosts} /etc/hosts"]
        if local:
            (own_folder := self.folder / f"local.{machine}").mkdir(exist_ok=True)
            local.mkdir(exist_ok=True)
            mounts.append(f"mount --bind {own_folder} {local}")
        script = "; ".join(["set -e", f"hostname machine-{machine}", *mounts, 'exec "$@"'])
        network = f"--net=/run/netns/{name_of(machine)}"
        inside = ["nsenter", network, "unshare", "--uts", "--mount", "sh", "-c", script, "sh"]
        with (self.folder / f"{machine}.log").open("w") as log:
            process = subprocess.Popen(
                [*inside, *map(str, words)],
                cwd=self.folder,
                env={**self.env, **env},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.started.append(process)
        return process

    def log(self, machine: str) -> str:
        return (self.folder / f"{machine}.log").read_text()

    def told(self, machine: str) -> str:
        """What it said, but for whom it waited: on a busy machine one begins much later than the other."""
        return "".join(line for line in self.log(machine).splitlines(True) if not line.startswith("waiting for "))

    def logs(self) -> str:
        return "\n".join(path.read_text() for path in sorted(self.folder.glob("?.log")))

    def cut(self) -> None:
        """Takes the cable out."""
        subprocess.run(["ip", "-n", name_of("a"), "link", "set", "eth-a", "down"], check=True)


def name_of(machine: str) -> str:
    return f"test-{os.getpid()}-{machine}"


@contextmanager
def two_machines(folder: Path, env: dict[str, str]) -> Iterator[Machines]:
    """Makes them, and takes them away again."""
    machines = Machines(folder, env)
    try:
        for machine in "ab":
            subprocess.run(["ip", "netns", "add", name_of(machine)], check=True)
        cable = ["ip", "link", "add", "eth-a", "netns", name_of("a"), "type", "veth"]
        subprocess.run([*cable, "peer", "name", "eth-b", "netns", name_of("b")], check=True)
        for number, machine in enumerate("ab", 1):
            ip = ["ip", "-n", name_of(machine)]
            subprocess.run([*ip, "addr", "add", f"10.77.0.{number}/24", "dev", f"eth-{machine}"], check=True)
            for link in ("lo", f"eth-{machine}"):
                subprocess.run([*ip, "link", "set", link, "up"], check=True)
        yield machines
    finally:
        for process in machines.started:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, 9)
            process.wait()
        for machine in "ab":
            subprocess.run(["ip", "netns", "del", name_of(machine)], capture_output=True)


def wait_until(is_so: Callable[[], bool], machines: Machines) -> None:
    """Waits for an event, as long as the machines do something."""

    def is_so_yet() -> bool:
        ended = any(process.poll() is not None for process in machines.started)
        assert is_so() or not ended, f"it has not come to that; the machines said:\n{machines.logs()}"
        return is_so()

    wait_for(is_so_yet)


def wait_for(is_so: Callable[[], bool], limit: float = LIMIT) -> None:
    """Waits for an event."""
    deadline = time.monotonic() + limit
    while not is_so():
        assert time.monotonic() < deadline, f"not within {limit:.0f} s"
        time.sleep(0.1)


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("", 0))
        return server.getsockname()[1]
