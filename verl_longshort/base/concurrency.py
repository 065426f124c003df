"""Bounded concurrency for asyncio: run work on many items, at most so many at a time, with a watchdog."""

import asyncio
import heapq
import itertools
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


async def run_bounded(
    items: Sequence[Item],
    work: Callable[[Item], Coroutine[Any, Any, Result]],
    keep: Callable[[Result], None],
    *,
    limit: int | None = None,
    timeout_s: float | None = None,
) -> None:
    """Run `work` on all items, at most `limit` at a time, and give each result to `keep` when it is there.

    Without a limit all run at once: what `work` waits for then bounds how many.

    Raises what `work` raises, and TimeoutError when nothing finishes for `timeout_s` seconds; then nothing
    is left running.
    """
    waiting = iter(items)
    running: set[asyncio.Task[Result]] = set()
    done: set[asyncio.Task[Result]] = set()
    try:
        while True:
            for item in waiting:
                running.add(asyncio.create_task(work(item)))
                if limit is not None and len(running) >= limit:
                    break
            if not running:
                return
            done, running = await asyncio.wait(running, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
            if not done:
                raise TimeoutError(
                    f"no trajectory has finished for {timeout_s:g} s; if the models are that slow, raise "
                    "longshort.rollout_timeout_s"
                )
            for task in done:
                keep(task.result())
    finally:
        for task in running:
            task.cancel()
        # Of those that fail together one is raised; asyncio complains of the others if nobody looks.
        await asyncio.gather(*running, *done, return_exceptions=True)


class PrioritySemaphore:
    """At most `capacity` holders at a time; of those who wait, the lowest rank comes next."""

    def __init__(self, capacity: int) -> None:
        self._free = capacity
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._arrivals = itertools.count()

    @asynccontextmanager
    async def turn(self, rank: int) -> AsyncIterator[None]:
        """Holds a place."""
        if self._free == 0:
            ready = asyncio.get_running_loop().create_future()
            heapq.heappush(self._waiting, (rank, next(self._arrivals), ready))
            # the holder who leaves hands its place over, so `_free` stays as it is
            await ready
        else:
            self._free -= 1
        try:
            yield
        finally:
            self._leave()

    def _leave(self) -> None:
        while self._waiting:
            ready = heapq.heappop(self._waiting)[2]
            if not ready.done():
                ready.set_result(None)
                return
        self._free += 1
