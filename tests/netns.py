"""Hosts of their own on one machine: network namespaces, plugged into a switch by cables that can be pulled.

Nothing in them has a route to the outside. Needs root and iproute2.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import uuid
from collections.abc import Sequence
from typing import IO, Any, Self

import pytest

NETWORK = "198.18.7"  # of the range that is kept for tests of networks


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, timeout=20)


def require_namespaces() -> None:
    """Skip a test where this machine has no namespaces for it; fail in CI."""
    name = f"dfit-{uuid.uuid4().hex[:6]}"
    tools = all(shutil.which(tool) for tool in ("ip", "nsenter"))
    if (
        tools
        and not subprocess.run(["ip", "netns", "add", name], check=False, capture_output=True).returncode
    ):
        ip("netns", "delete", name)
        return
    why = "network namespaces need root and iproute2"
    pytest.fail(f"{why}, and .ci/run installs it") if "CI" in os.environ else pytest.skip(why)


class Hosts:
    """Hosts 0 to n - 1, each with an address; a context that ends what was started on them."""

    def __init__(self, count: int) -> None:
        self._name = f"dfit-{uuid.uuid4().hex[:6]}"
        self._switch = f"{self._name}-switch"
        self._count = count
        self.processes: list[subprocess.Popen[Any]] = []

    def __enter__(self) -> Self:
        try:
            ip("netns", "add", self._switch)
            ip(
                "-n",
                self._switch,
                "link",
                "add",
                "br0",
                "type",
                "bridge",
                "forward_delay",
                "0",
                "stp_state",
                "0",
            )
            ip("-n", self._switch, "link", "set", "br0", "up")
            for host in range(self._count):
                self._plug_in(host)
        except BaseException:
            self.__exit__()
            raise
        return self

    def _plug_in(self, host: int) -> None:
        name, cable = self._host(host), f"cable{host}"
        ip("netns", "add", name)
        ip("-n", name, "link", "set", "lo", "up")
        ip(*("-n", self._switch, "link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", name))
        ip("-n", self._switch, "link", "set", cable, "master", "br0", "up")
        ip("-n", name, "addr", "add", f"{self.address(host)}/24", "dev", "eth0")
        ip("-n", name, "link", "set", "eth0", "up")

    def _host(self, host: int) -> str:
        return f"{self._name}-{host}"

    def address(self, host: int) -> str:
        return f"{NETWORK}.{10 + host}"

    def start(
        self, host: int, command: Sequence[str], env: dict[str, str], log: IO[str] | int
    ) -> subprocess.Popen[str]:
        """Process on a host; its standard output is a pipe where the log is -1."""
        process = subprocess.Popen(
            ["nsenter", f"--net=/run/netns/{self._host(host)}", *command],
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT if log != subprocess.PIPE else None,
            text=True,
            start_new_session=True,
        )
        self.processes.append(process)
        return process

    def pids(self, host: int) -> list[int]:
        """Processes that live on a host."""
        name = self._host(host)
        out = subprocess.run(["ip", "netns", "pids", name], check=True, capture_output=True, text=True)
        return [int(pid) for pid in out.stdout.split()]

    def pull(self, host: int) -> None:
        """Pull the cable: nothing arrives any more, and nobody is told."""
        ip("-n", self._switch, "link", "set", f"cable{host}", "down")

    def plug_back(self, host: int) -> None:
        ip("-n", self._switch, "link", "set", f"cable{host}", "up")

    def __exit__(self, *_: object) -> None:
        known = subprocess.run(["ip", "netns", "list"], check=True, capture_output=True, text=True)
        ours = [line.split()[0] for line in known.stdout.splitlines() if line.startswith(f"{self._name}-")]
        for name in ours:
            out = subprocess.run(["ip", "netns", "pids", name], check=True, capture_output=True, text=True)
            for pid in out.stdout.split():
                try:
                    os.kill(int(pid), signal.SIGKILL)
                except ProcessLookupError:
                    continue
        for process in self.processes:
            process.wait(timeout=20)
        for name in ours:
            ip("netns", "delete", name)
