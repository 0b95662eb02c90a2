"""Requests that come while others are answered are answered together, each with its own result or error."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from recbole_xling.serve.batches import Batches, CrowdedError


def batches_of(answer, **changed):
    sizes = {"n_threads": 1, "most": 4, "waiting": 100, **changed}
    return Batches(answer, threads=ThreadPoolExecutor(sizes["n_threads"]), **sizes)


def test_what_waits_is_answered_together():
    seen, go = [], threading.Event()

    def answer(jobs):
        seen.append(list(jobs))
        go.wait(10)
        return [job * 10 for job in jobs]

    async def main():
        batches = batches_of(answer)
        asked = [asyncio.create_task(batches.ask(0))]
        while not seen:  # the first one is under way
            await asyncio.sleep(0.001)
        asked += [asyncio.create_task(batches.ask(job)) for job in range(1, 8)]
        await asyncio.sleep(0.01)
        go.set()
        return await asyncio.gather(*asked), await batches.ask(9)

    found, later = asyncio.run(main())
    assert found == [job * 10 for job in range(8)] and later == 90
    assert seen == [[0], [1, 2, 3, 4], [5, 6, 7], [9]]


def test_an_error_belongs_to_its_job_and_a_fault_to_all():
    def answer(jobs):
        if 7 in jobs:
            raise RuntimeError("broken")
        return [ValueError(job) if job % 2 else job for job in jobs]

    async def main():
        batches = batches_of(answer)
        found = await asyncio.gather(*(batches.ask(job) for job in range(4)), return_exceptions=True)
        with pytest.raises(RuntimeError, match="broken"):
            await batches.ask(7)
        return found, await batches.ask(2)

    found, after = asyncio.run(main())
    assert [str(part) for part in found] == ["0", "1", "2", "3"] and after == 2
    assert [isinstance(part, ValueError) for part in found] == [False, True, False, True]


def test_who_finds_too_many_waiting_is_put_off_and_who_has_gone_is_not_answered():
    seen, go = [], threading.Event()

    def answer(jobs):
        seen.extend(jobs)
        go.wait(10)
        return jobs

    async def main():
        batches = batches_of(answer, waiting=2)
        first = asyncio.create_task(batches.ask(0))
        while not seen:
            await asyncio.sleep(0.001)
        gone, kept = (asyncio.create_task(batches.ask(job)) for job in (1, 2))
        await asyncio.sleep(0)
        with pytest.raises(CrowdedError):
            await batches.ask(3)
        gone.cancel()
        go.set()
        return await first, await kept

    assert asyncio.run(main()) == (0, 2)
    assert seen == [0, 2]
