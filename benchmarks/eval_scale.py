"""Time and peak memory of ranking all items for many users: RecBole's evaluation and ours, for the same model.

    OMP_NUM_THREADS=1 python benchmarks/eval_scale.py
    OMP_NUM_THREADS=1 python benchmarks/eval_scale.py --sizes 10000,100000 --users 2000 --interactions 60

The model is RecBole's SASRec with 64 dimensions, untrained; users have five made interactions each, or as many as
--interactions says: RecBole pads histories to 50 items, and ours leaves out the padding, so that long ones take as much
time in both. Every measurement is a process of its own. Memory is the process's peak, and that less what it held before
the evaluation. RecBole's time grows with the matrix that eval_batch_size makes: it gets the largest power of two with
which its matrices stay under 2 GiB. Both sides' metrics are compared. Prints a table and writes
benchmarks/results/eval_scale.json, or what --output names.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from common import RESULTS, show, write_json

NAME = "made"
GIB = 2**30
MARK = "result: "
METRICS = ["Recall", "NDCG", "MRR"]
BYTES_PER_SCORE = 16  # scores, a matrix of the targets, and a copy of it that is summed


def make_data(n_items: int, n_users: int, n_interactions: int, folder: Path) -> None:
    """Write interactions of each user, and a table of all items."""
    rng = np.random.default_rng(n_items)
    items = rng.integers(n_items, size=(n_users, n_interactions))
    (folder / NAME).mkdir(parents=True)
    with open(folder / NAME / f"{NAME}.inter", "w", encoding="utf-8") as file:
        file.write("user_id:token\titem_id:token\ttimestamp:float\n")
        file.writelines(
            f"u{user}\ti{item}\t{time}\n" for user, row in enumerate(items) for time, item in enumerate(row)
        )
    with open(folder / NAME / f"{NAME}.item", "w", encoding="utf-8") as file:
        file.write("item_id:token\n")
        file.writelines(f"i{item}\n" for item in range(n_items))


def peak() -> int:
    """Return the most memory this process ever held, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measure(side: str, folder: Path, n_items: int) -> dict[str, Any]:
    """Evaluate on the test part once; returns seconds, CPU seconds, peak bytes and metrics."""
    import logging

    from recbole.data.dataloader import FullSortEvalDataLoader
    from recbole.evaluator import Collector, Evaluator
    from recbole.trainer import Trainer

    from recbole_xling import XLingConfig
    from recbole_xling.quick_start.build import build, build_trainer

    logging.disable(logging.WARNING)
    rows = 2 ** int(np.log2(2 * GIB / BYTES_PER_SCORE / n_items)) if side == "RecBole" else 4096
    columns = {"inter": ["user_id", "item_id", "timestamp"], "item": ["item_id"]}
    settings = {"data_path": str(folder), "checkpoint_dir": str(folder), "load_col": columns, "show_progress": False}
    settings |= {
        "metrics": METRICS,
        "topk": [10],
        "hidden_size": 64,
        "eval_batch_size": rows,
        "metric_decimal_place": 6,
    }
    run = build(XLingConfig("SASRec", NAME, config_dict={**settings, "train_neg_sample_args": None}))
    if side == "RecBole":
        trainer = Trainer(run.config, run.model)
        trainer.eval_collector, trainer.evaluator = Collector(run.config), Evaluator(run.config)
        trainer.eval_collector.get_data_struct = lambda: trainer.eval_collector.data_struct  # see docs/architecture.md
        loader = FullSortEvalDataLoader(run.config, run.test_data._dataset, None)
    else:
        trainer, loader = build_trainer(run.config, run.model), run.test_data
    before, started, cpu = peak(), time.perf_counter(), time.process_time()
    metrics = trainer.evaluate(loader, load_best_model=False)
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    found = {name: float(value) for name, value in metrics.items()}
    memory = {"bytes": peak() - before, "peak_bytes": peak()}
    return {"seconds": seconds, "cpu_seconds": cpu, **memory, "rows": rows, "metrics": found}


def in_own_process(*arguments: str) -> Any:
    """Run this script with arguments and return what it reports."""
    done = subprocess.run([sys.executable, __file__, *arguments], stdout=subprocess.PIPE, text=True, check=False)
    for line in done.stdout.splitlines():
        if line.startswith(MARK):
            return json.loads(line.removeprefix(MARK))
    return {"failed": f"exit code {done.returncode}"}


def compare(n_items: int, n_users: int, n_interactions: int) -> dict[str, Any]:
    """Measure both sides at one size; check that they agree."""
    with tempfile.TemporaryDirectory() as folder:
        make_data(n_items, n_users, n_interactions, Path(folder))
        sides = {
            side: in_own_process("--measure", side, "--folder", folder, "--sizes", str(n_items))
            for side in ("ours", "RecBole")
        }
    metrics = [side["metrics"] for side in sides.values() if "metrics" in side]
    if any(found != metrics[0] for found in metrics):
        sys.exit(f"the two sides disagree at {n_items} items: {metrics}")
    return sides


def main() -> None:
    """Compare both sides at all sizes, or do one step of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="10000,100000,1000000", help="numbers of items")
    parser.add_argument("--users", type=int, default=10_000, help="number of users")
    parser.add_argument("--interactions", type=int, default=5, help="of each user")
    parser.add_argument("--output", type=Path, default=RESULTS / "eval_scale.json", help="file of the results")
    parser.add_argument("--measure", choices=("ours", "RecBole"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    sizes = [int(size) for size in options.sizes.split(",")]
    if options.measure:
        sys.argv = sys.argv[:1]
        print(MARK + json.dumps(measure(options.measure, options.folder, sizes[0])), flush=True)
        return
    results, table = {}, []
    for size in sizes:
        sides = compare(size, options.users, options.interactions)
        results[size] = {"users": options.users, **sides}
        for side, found in sides.items():
            if "failed" in found:
                table.append([f"{size:,}", side, found["failed"]])
                continue
            per_user = 1000 * found["cpu_seconds"] / options.users
            shown = [f"{found['seconds']:.1f}", f"{per_user:.2f}", f"{found['bytes'] / GIB:.2f}"]
            shown += [f"{found['peak_bytes'] / GIB:.2f}", str(found["rows"])]
            table.append([f"{size:,}", side, *shown])
        if not any("failed" in found for found in sides.values()):
            ratio = sides["RecBole"]["cpu_seconds"] / sides["ours"]["cpu_seconds"]
            table.append(["", "RecBole / ours", "", f"{ratio:.1f}x"])
    show(["items", "", "seconds", "CPU ms per user", "own GiB", "peak GiB", "eval_batch_size"], table)
    write_json(options.output, {"interactions": options.interactions, "items": results})


if __name__ == "__main__":
    main()
