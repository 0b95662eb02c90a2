"""Processes that torchrun has started: what its environment variables say."""

from __future__ import annotations

import os
from typing import Any

from recbole_xling.errors import ConfigError

_VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def is_launched() -> bool:
    """Whether torchrun has started this process as one of several, or another launcher that sets its variables."""
    return all(os.environ.get(name) for name in _VARIABLES) and os.environ["WORLD_SIZE"] != "1"


def launched_settings() -> dict[str, Any]:
    """Return RecBole's settings of a process that torchrun has started; nothing for any other process.

    Raises:
        ConfigError: the launcher's numbers are none, or do not fit each other.
    """
    if not is_launched():
        return {}
    try:
        rank, local_rank, world_size, port = (
            int(os.environ[name]) for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_PORT")
        )
    except ValueError as error:
        raise ConfigError(f"RANK, LOCAL_RANK, WORLD_SIZE and MASTER_PORT must be whole numbers ({error})") from error
    if not 0 <= local_rank <= rank < world_size:
        raise ConfigError(
            f"RANK={rank}, LOCAL_RANK={local_rank} and WORLD_SIZE={world_size} do not fit: start all processes with "
            "torchrun, or set these variables as it does"
        )
    group = {"ip": os.environ["MASTER_ADDR"], "port": str(port), "world_size": world_size}
    own = {"local_rank": local_rank, "offset": rank - local_rank}
    return {**group, **own, "nproc": int(os.environ.get("LOCAL_WORLD_SIZE") or local_rank + 1)}
