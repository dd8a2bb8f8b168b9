"""A real S3 server on loopback, which checks signatures and can be frozen, killed and started again."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from urllib.request import urlopen

KEY, SECRET = "dfit-tests", "only-for-this-run"
DEADLINE_S = 60
PORTS = ("master", "master.grpc", "volume", "volume.grpc", "filer", "filer.grpc", "s3", "s3.grpc")


class ObjectServer:
    """SeaweedFS in a process of its own, with its data in a folder; nothing leaves this computer."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
        self.url = f"http://127.0.0.1:{self.ports['s3']}"
        identity = {"credentials": [{"accessKey": KEY, "secretKey": SECRET}], "actions": ["Admin"]}
        (folder / "s3.json").write_text(json.dumps({"identities": [{"name": "tests", **identity}]}))
        self.start()

    def start(self) -> None:
        """Start it, and wait until it answers."""
        (self.folder / "data").mkdir(exist_ok=True)
        arguments = {
            **{f"{name}.port".replace(".grpc.port", ".port.grpc"): port for name, port in self.ports.items()},
            "dir": self.folder / "data",
            "ip": "127.0.0.1",
            "ip.bind": "127.0.0.1",
            "master.telemetry": "false",  # it would tell its makers that it runs
            "master.volumeSizeLimitMB": 64,
            "volume.max": 20,
            "volume.preStopSeconds": 0,
            "filer": "true",
            "s3": "true",
            "s3.config": self.folder / "s3.json",
            "s3.port.iceberg": 0,
            "s3.port.lance": 0,
        }
        given = [f"-{name}={value}" for name, value in arguments.items()]
        with open(self.folder / "log", "ab") as log:
            command = [server_program(), f"-logdir={self.folder}", "server", *given]
            self.process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        deadline = time.monotonic() + DEADLINE_S
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(
                    f"the S3 server does not start: {(self.folder / 'log').read_text()[-2000:]}"
                )
            time.sleep(0.1)

    def _answers(self) -> bool:
        """Whether it serves, and knows where objects are kept."""
        health, place = f"{self.url}/healthz", f"http://127.0.0.1:{self.ports['master']}/dir/assign"
        try:
            with urlopen(health, timeout=2) as served, urlopen(place, timeout=2) as known:
                return bool(served.status == 200 and "fid" in json.load(known))
        except OSError:
            return False

    def freeze(self) -> None:
        """Let it stand still: its connections stay, nothing is answered."""
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(DEADLINE_S)


def server_program() -> str | None:
    """The server beside this Python, whose folder need not be on the path; else the one on the path."""
    return shutil.which("weed", path=os.path.dirname(sys.executable)) or shutil.which("weed")


def installed() -> bool:
    return server_program() is not None


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody listens on."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
