"""Results of a cluster's tasks as they complete, from a scheduler that must show signs of life.

A scheduler that was killed closes its connection, and one that is frozen keeps it: its silence looks like
work.  So whoever waits asks it something small now and then, and a late answer is as good as a result.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import Future as Asked
from concurrent.futures import wait
from typing import TYPE_CHECKING, Any

from dfit.errors import WorkerError

if TYPE_CHECKING:
    from distributed import Client, Future, as_completed

logger = logging.getLogger("dfit")

# After so many seconds without a result the scheduler is asked for a sign of life.
ASK_AFTER_S = 5.0
# A scheduler may be deaf for many seconds: it takes in the graph of another user, or the garbage
# collector runs. Its workers would give it up too, after distributed.comm.timeouts.tcp (30 s).
SILENCE_S = 45.0
POLL_S = 0.1  # Ctrl-C and a lost connection are noticed so soon
REMEDY = (
    "Start a cluster and a client for it, then type the same call again: with checkpoint= it goes on from the "
    "last save"
)


class Pulse:
    """Signs of life of a client's scheduler, from now on.

    Parameters
    ----------
    look : is told of all workers when the scheduler is asked.
    """

    def __init__(self, client: Client, look: Callable[[Mapping[str, Any]], None] | None = None) -> None:
        self._client, self._look = client, look
        self._silent_s = 0.0
        self._last = time.monotonic()
        self._asked: Asked[Any] | None = None
        self._told = False

    def heard(self) -> None:
        """Something came from the scheduler."""
        self._silent_s, self._last = 0.0, time.monotonic()
        if self._asked is not None:
            self._asked.cancel()
            self._asked = None

    def require(self) -> None:
        """Raise a `WorkerError` if the scheduler has gone, or is silent for too long; ask if it is silent."""
        if self._client.status != "running":
            raise WorkerError(f"the connection to the scheduler {_address(self._client)} is lost. {REMEDY}")
        now = time.monotonic()
        self._silent_s += min(now - self._last, 1.0)  # while this process was frozen it could hear nothing
        self._last = now
        if self._asked is not None and self._asked.done():
            if _error_of(self._asked) is None:
                workers = self._asked.result()["workers"]
                self._tell_of_no_worker(workers)
                self.heard()
                if self._look is not None:
                    self._look(workers)
            self._asked = None
        if self._silent_s > SILENCE_S:
            raise WorkerError(
                f"the scheduler {_address(self._client)} has not answered for {self._silent_s:.0f} s. {REMEDY}"
            )
        if self._silent_s > ASK_AFTER_S and self._asked is None:
            known = self._client.scheduler.identity(n_workers=1 if self._look is None else -1)
            self._asked = asyncio.run_coroutine_threadsafe(known, self._loop)

    def _tell_of_no_worker(self, workers: Mapping[str, Any]) -> None:
        if not workers and not self._told:
            self._told = True
            logger.warning("the cluster %s has no worker; the fit waits for one", _address(self._client))

    def results(self, waiting: as_completed) -> Iterator[tuple[Future, Any]]:
        """Futures as they complete, with what they hold: None if they erred or were cancelled."""
        while not waiting.is_empty():
            with waiting.thread_condition:  # so that nothing completes between the look and the wait
                if not waiting.has_ready():
                    waiting.thread_condition.wait(POLL_S)
            if not waiting.has_ready():
                self.require()
                continue
            self.heard()
            batch = waiting.next_batch(block=False)
            for future, found in zip(batch, self.gathered(batch), strict=True):
                if found is None and future.status not in ("error", "cancelled"):
                    waiting.add(future)  # it was lost meanwhile, and is computed again
                else:
                    yield future, found

    def gathered(self, futures: Sequence[Future]) -> list[Any]:
        """What futures hold, when all of them are done: None for those that erred or were cancelled."""
        return self.ask(lambda: self._gather(futures))

    def ask(self, question: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        """Answer to a question; it is asked again where the connection breaks and the scheduler is there."""
        while True:
            asked = asyncio.run_coroutine_threadsafe(question(), self._loop)
            try:
                while not wait([asked], POLL_S).done:
                    self.require()
            finally:
                asked.cancel()
            error = _error_of(asked)
            if error is None:
                self.heard()
                return asked.result()
            if not isinstance(error, OSError):
                raise error
            time.sleep(POLL_S)
            self.require()

    async def _gather(self, futures: Sequence[Future]) -> list[Any]:
        if self._client.status == "closed":
            raise ConnectionError("the client is closed")
        by_place = dict(enumerate(futures))  # of a list those that erred would be missing
        return list((await self._client.gather(by_place, errors="skip", asynchronous=True)).values())

    @property
    def _loop(self) -> asyncio.AbstractEventLoop:
        loop: Any = self._client.loop
        return loop.asyncio_loop


def _error_of(asked: Asked[Any]) -> BaseException | None:
    """Why a question has no answer; a connection that is closed cancels it."""
    return ConnectionError("closed") if asked.cancelled() else asked.exception()


def _address(client: Client) -> str:
    return str(getattr(client.scheduler, "address", "of this client"))
