"""A run in several processes of this machine, which may be a part of a group of machines."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

import torch
from torch.multiprocessing.spawn import spawn

from recbole_xling.errors import XlingError
from recbole_xling.run import run
from recbole_xling.run_folder import read_result


def run_processes(
    nproc: int, world_size: int, ip: str, port: str, group_offset: int, kwargs: dict[str, Any]
) -> dict[str, Any]:
    """Run :func:`~recbole_xling.run.run` in several processes.

    Args:
        nproc: processes on this machine.
        world_size: processes of the group; ``nproc`` where it is not positive.
        ip: address of the first machine.
        port: its port.
        group_offset: number of this machine's first process in the group.
        kwargs: arguments of ``run``.

    Returns:
        The result of the first process.
    """
    group = {
        "world_size": world_size if world_size > 0 else nproc,
        "ip": ip,
        "port": str(port),
        "nproc": nproc,
        "offset": group_offset,
    }
    queue = torch.multiprocessing.get_context("spawn").SimpleQueue()  # only small things: nobody reads it meanwhile
    settings = {**kwargs, "config_dict": {**(kwargs.get("config_dict") or {}), **group}}
    spawn(_worker, args=(settings, queue), nprocs=nproc, join=True)
    error, folder = (queue.get() for _ in range(2))
    if error:
        raise XlingError(error)
    return read_result(Path(folder))


def _worker(rank: int, settings: dict[str, Any], queue: Any) -> None:
    import recbole_xling  # noqa: F401  (a spawned process starts empty)

    logging.basicConfig(level=logging.INFO if rank == 0 else logging.ERROR, stream=sys.stderr, format="%(message)s")
    error, folder = "", ""
    try:
        folder = run(**{**settings, "config_dict": {**settings["config_dict"], "local_rank": rank}})["run_dir"]
    except XlingError as raised:
        error = str(raised)
    if rank == 0:
        queue.put(error)
        queue.put(folder)
