"""Concurrent requests that are answered together, in threads of their own, and no more of them than fit."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")


class CrowdedError(Exception):
    """So many requests wait that another one would wait too long."""


class Batches(Generic[Job, Result]):
    """Answers the requests that have come while others were being answered, all at once.

    Who comes alone is answered at once: nobody waits for others to come, and a batch takes what has come since the last
    one began. Belongs to one event loop.

    Args:
        answer: returns a result for each of some jobs, or the error of one in its place; called in a thread.
        threads: how many batches are answered at a time.
        most: jobs of a batch.
        waiting: jobs that may wait.
    """

    def __init__(
        self,
        answer: Callable[[Sequence[Job]], Sequence[Result | Exception]],
        *,
        threads: ThreadPoolExecutor,
        n_threads: int,
        most: int,
        waiting: int,
    ) -> None:
        self._answer, self._threads, self._n_threads = answer, threads, n_threads
        self._most, self._longest = most, waiting
        self._queue: deque[tuple[Job, asyncio.Future[Result]]] = deque()
        self._working = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def ask(self, job: Job) -> Result:
        """Return the result of a job.

        Raises:
            CrowdedError: too many jobs wait.
        """
        if len(self._queue) >= self._longest:
            raise CrowdedError
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._queue.append((job, future))
        if self._working < self._n_threads:
            self._working += 1
            task = asyncio.create_task(self._work())
            self._tasks.add(task)  # one that nobody holds may be collected
            task.add_done_callback(self._tasks.discard)
        return await future

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while self._queue:
            taken = [self._queue.popleft() for _ in range(min(self._most, len(self._queue)))]
            batch = [(job, future) for job, future in taken if not future.done()]  # who has gone needs no answer
            try:
                results = await loop.run_in_executor(self._threads, self._answer, [job for job, _ in batch])
            except Exception as error:  # a fault of the program: all of them hear of it
                results = [error] * len(batch)
            for (_, future), result in zip(batch, results, strict=True):
                if future.done():
                    continue
                if isinstance(result, Exception):
                    future.set_exception(result)
                else:
                    future.set_result(result)
        self._working -= 1
