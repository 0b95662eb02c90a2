"""Time and peak memory of building a sequential dataset: RecBole's SequentialDataset and XLingDataset.

    OMP_NUM_THREADS=1 python benchmarks/build_speed.py
    OMP_NUM_THREADS=1 python benchmarks/build_speed.py --sizes 100000 --repeats 3

XLingDataset stores no histories, it cuts them out batch by batch: that cost is in train_speed.py, not here.

The data is made: users whose numbers of interactions have a long tail (100 on average), items drawn by Zipf's law.
Every measurement is a process of its own: reading the atomic file and remapping (``create_dataset``), then making
rows and splitting them (``build``). Memory is the process's peak less what it held before. The splits of both sides
are compared. Prints a table and writes benchmarks/results/build_speed.json.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from common import RESULTS, show, write_json

SIDES = {"RecBole": "SASRec", "ours": "LLMSASRec"}
NAME = "made"
GIB = 2**30
MEAN_LENGTH = 100
OUT_OF_MEMORY = "out of memory"
MARK = "result: "


# ---- the data -------------------------------------------------------------------------------------------------


def user_lengths(n: int, rng: np.random.Generator) -> np.ndarray:
    """Return log-normal numbers of interactions per user, each at least 3, that sum to ``n``."""
    lengths = rng.lognormal(sigma=1.2, size=n // MEAN_LENGTH)
    lengths = 3 + np.floor(lengths / lengths.sum() * (n - 3 * len(lengths))).astype(np.int64)
    lengths[: n - lengths.sum()] += 1  # what rounding down left over
    return lengths


def make_data(n: int, folder: Path) -> None:
    """Write an atomic file of ``n`` interactions, in order of time."""
    rng = np.random.default_rng(n)
    users = np.repeat(np.arange(n // MEAN_LENGTH), user_lengths(n, rng))
    n_items = max(1000, n // 50)
    weights = 1 / np.arange(1, n_items + 1)
    items = rng.choice(n_items, size=n, p=weights / weights.sum())
    times = rng.uniform(1e9, 1.1e9, size=n).round(1)
    (folder / NAME).mkdir(parents=True)
    with open(folder / NAME / f"{NAME}.inter", "w", encoding="utf-8") as file:
        file.write("user_id:token\titem_id:token\ttimestamp:float\n")
        file.writelines(f"u{users[i]}\ti{items[i]}\t{times[i]}\n" for i in np.argsort(times))


# ---- one measurement, in a process of its own -------------------------------------------------------------------


def resident() -> int:
    """Return the memory this process holds, in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def peak() -> int:
    """Return the most memory this process ever held, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def limit_memory(gib: float) -> None:
    """Let this process map at most ``gib`` more than it has mapped already."""
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (mapped + int(gib * GIB), hard))


def measure(model: str, folder: Path, memory_gib: float) -> dict[str, Any]:
    """Build the dataset of a model; returns seconds, peak bytes, and what identifies the splits."""
    import logging

    from recbole.data import create_dataset

    from recbole_xling import XLingConfig

    logging.disable(logging.WARNING)
    columns = {"inter": ["user_id", "item_id", "timestamp"]}
    settings = {"data_path": str(folder), "checkpoint_dir": str(folder), "load_col": columns}
    config = XLingConfig(model, NAME, config_dict={**settings, "MAX_ITEM_LIST_LENGTH": 50})
    before = resident()
    limit_memory(memory_gib)
    clock = [(time.perf_counter(), time.process_time())]
    try:
        dataset = create_dataset(config)
        clock.append((time.perf_counter(), time.process_time()))
        read_peak = peak() - before
        parts = dataset.build()
        clock.append((time.perf_counter(), time.process_time()))
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "allocate memory" not in str(error):
            raise
        return {"failed": OUT_OF_MEMORY, "bytes": peak() - before}
    (read, read_cpu), (build, build_cpu) = ((b[0] - a[0], b[1] - a[1]) for a, b in pairwise(clock))
    seconds = {"read": read, "build": build, "total": read + build}
    cpu = {"read": read_cpu, "build": build_cpu, "total": read_cpu + build_cpu}
    sizes = {"read_bytes": read_peak, "bytes": peak() - before}
    return {"seconds": seconds, "cpu_seconds": cpu, **sizes, "rows": [fingerprint(part) for part in parts]}


def fingerprint(part: Any) -> list[int]:
    """Return a split's number of rows, and the sums of its targets and history lengths."""
    rows = part.inter_feat
    return [len(rows), int(rows["item_id"].sum()), int(rows["item_length"].sum())]


def in_own_process(*arguments: str) -> Any:
    """Run this script with arguments and return what it reports; None if it made data or ran out of memory."""
    done = subprocess.run([sys.executable, __file__, *arguments], stdout=subprocess.PIPE, text=True, check=False)
    for line in done.stdout.splitlines():
        if line.startswith(MARK):
            return json.loads(line.removeprefix(MARK))
    if done.returncode > 0:
        sys.exit(f"measuring {' '.join(arguments)} failed")
    return None


# ---- all measurements -------------------------------------------------------------------------------------------


def compare(size: int, repeats: int, memory_gib: float) -> dict[str, Any]:
    """Measure both sides at one size, in turns; check that they built the same splits."""
    runs: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
    with tempfile.TemporaryDirectory() as folder:
        in_own_process("--make", str(size), "--folder", folder)
        for _ in range(repeats):
            for side, model in SIDES.items():
                if runs[side] and "failed" in runs[side][-1]:
                    continue
                call = ["--measure", model, "--folder", folder, "--memory-gib", str(memory_gib)]
                runs[side].append(in_own_process(*call) or {"failed": OUT_OF_MEMORY})
    splits = {json.dumps(run["rows"]) for results in runs.values() for run in results if "rows" in run}
    if len(splits) > 1:
        sys.exit(f"the two sides built different splits of {size} interactions: {' and '.join(splits)}")
    return {side: middle(results) for side, results in runs.items()}


def middle(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the run of median total time, or the failed one."""
    failed = [run for run in runs if "failed" in run]
    if failed:
        return failed[0]
    median = statistics.median_low(run["seconds"]["total"] for run in runs)
    return next(run for run in runs if run["seconds"]["total"] == median)


def table(results: dict[int, dict[str, Any]]) -> list[list[str]]:
    """Return the rows to print: one per size and side, then how often ours goes into RecBole's."""
    rows = []
    for size, sides in results.items():
        for side, run in sides.items():
            if "failed" in run:
                rows.append([f"{size:,}", side, run["failed"]])
                continue
            seconds, gib = run["seconds"], run["bytes"] / GIB
            shown = [f"{seconds['read']:.2f}", f"{seconds['build']:.2f}", f"{seconds['total']:.2f}"]
            rows.append([f"{size:,}", side, *shown, f"{run['cpu_seconds']['total']:.2f}", f"{gib:.3f}"])
        ratio = ratios(sides)
        if ratio:
            rows.append(["", "RecBole / ours", *(f"{value:.1f}x" for value in ratio.values())])
    return rows


def ratios(sides: dict[str, Any]) -> dict[str, float]:
    """Return RecBole's figures over ours; empty where one side failed."""
    theirs, ours = sides["RecBole"], sides["ours"]
    if "failed" in theirs or "failed" in ours:
        return {}
    found = {step: theirs["seconds"][step] / ours["seconds"][step] for step in theirs["seconds"]}
    found["cpu"] = theirs["cpu_seconds"]["total"] / ours["cpu_seconds"]["total"]
    return {**found, "memory": theirs["bytes"] / ours["bytes"]}


def main() -> None:
    """Compare both sides at all sizes, or do one step of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="100000,1000000,5000000", help="numbers of interactions")
    parser.add_argument("--repeats", type=int, default=1, help="measurements per size and side; the median is shown")
    parser.add_argument("--memory-gib", type=float, default=12, help="memory a measurement may take")
    parser.add_argument("--measure", choices=SIDES.values(), help=argparse.SUPPRESS)
    parser.add_argument("--make", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.make:
        make_data(options.make, options.folder)
        return
    if options.measure:
        sys.argv = sys.argv[:1]
        print(MARK + json.dumps(measure(options.measure, options.folder, options.memory_gib)), flush=True)
        return
    results = {}
    for size in map(int, options.sizes.split(",")):
        results[size] = compare(size, options.repeats, options.memory_gib)
        show(["interactions", "", "read s", "build s", "total s", "CPU s", "peak GiB"], table({size: results[size]}))
    content = {size: {**sides, "ratios": ratios(sides)} for size, sides in results.items()}
    settings = {"repeats": options.repeats, "memory_gib": options.memory_gib}
    write_json(RESULTS / "build_speed.json", {**settings, "interactions": content})


if __name__ == "__main__":
    main()
