"""Ctrl-C stops a fit, not the workers that it runs on.

A terminal and a notebook send the interrupt to every process of the group, so to the workers of a
`LocalCluster`, too. Left to themselves these end and are not replaced: the next fit would wait for ever.
"""

from __future__ import annotations

import logging
import os
import signal

from distributed import Client, LocalCluster, Worker
from distributed.diagnostics.plugin import WorkerPlugin

logger = logging.getLogger("dfit")


class IgnoreInterrupts(WorkerPlugin):
    """Lets worker processes that share a process group with another process ignore Ctrl-C."""

    name = "dfit-ignore-interrupts"
    idempotent = True

    def __init__(self) -> None:
        self.process = os.getpid()
        self.group = os.getpgrp()

    def setup(self, worker: Worker) -> None:
        # A worker that is a thread has no interrupt of its own.
        if os.getpid() != self.process and os.getpgrp() == self.group:
            signal.signal(signal.SIGINT, signal.SIG_IGN)


def shield_workers(client: Client) -> None:
    """Let the workers that this process has started outlive Ctrl-C, also those to come.

    They still end with their cluster, and with this process.
    """
    if isinstance(client.cluster, LocalCluster):
        client.register_plugin(IgnoreInterrupts())
        logger.info("the workers of %s ignore Ctrl-C, which stops the fit only", client.cluster.name)
