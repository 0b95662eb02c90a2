"""What the benchmarks share: where results go, how tables look, what machine it was."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tabulate import tabulate

RESULTS = Path(__file__).resolve().parent / "results"


def data_folder(root: str, name: str) -> Path:
    """Return ``root/name``, or end with a message where it does not exist."""
    folder = Path(root) / name
    if not folder.is_dir():
        sys.exit(f"{folder} does not exist: this benchmark needs it; name its parent with --data")
    return folder


def show(headers: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print a table."""
    print(tabulate(rows, headers=headers, floatfmt=".4f"), flush=True)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write results, whole or not at all, with a description of the machine."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    described = {"machine": machine(), **content}
    temporary.write_text(json.dumps(described, indent=1, ensure_ascii=False, default=float) + "\n", encoding="utf-8")
    os.replace(temporary, path)


def machine() -> dict[str, Any]:
    """Return what shapes timings and results: processor count, threads, versions."""
    from recbole_xling.utils.run_folder import versions

    threads = os.environ.get("OMP_NUM_THREADS", "")
    return {"cpus": os.cpu_count(), "OMP_NUM_THREADS": threads, "system": platform.system(), "versions": versions()}
