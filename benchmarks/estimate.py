"""How near `recbole-xling estimate` comes: what it tells about runs, and what these then take.

    OMP_NUM_THREADS=1 python benchmarks/estimate.py --data datasets
    OMP_NUM_THREADS=1 python benchmarks/estimate.py --data datasets --dataset debian --only BPR "LLMSASRec, delta"

Each run is estimated in one process and made in another, right after it. Times are CPU seconds of both, which other
processes disturb less than the clock's; that of the start of Python and its libraries is not in them. The dataset needs
texts and a column `user_language`; the encoder of XLingTwoTower is a tiny one with random weights. Prints a table and
writes benchmarks/results/estimate.json, or what --output names.
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

from common import RESULTS, show, write_json

GIB = 2**30
MARK = "result: "
COMMON = {
    "encoder": "hashing",
    "load_col": {
        "inter": ["user_id", "item_id", "timestamp"],
        "user": ["user_id", "user_language"],
        "item": ["item_id"],
    },
    "exclude_history": True,
    "show_progress": False,
    "stopping_step": 100,
}
TOWER = {"model": "XLingTwoTower", "encoder": "tiny", "train_batch_size": 128}
RUNS: dict[str, dict[str, Any]] = {
    "BPR": {"model": "BPR", "epochs": 30},
    "LightGCN": {"model": "LightGCN", "epochs": 20},
    "SASRec": {"model": "SASRec", "epochs": 3, "train_batch_size": 512, "MAX_ITEM_LIST_LENGTH": 20},
    "LLMSASRec, delta": {"model": "LLMSASRec", "epochs": 4},
    "LLMSASRec, text_only, sampled softmax, validated every third epoch": {
        "model": "LLMSASRec",
        "item_representation": "text_only",
        "loss_type": "sampled_softmax",
        "eval_step": 3,
        "epochs": 6,
    },
    "XLingTwoTower, frozen": {**TOWER, "peft": "frozen", "embedding_size": 64, "epochs": 8},
    "XLingTwoTower, LoRA in one layer": {**TOWER, "peft": "lora", "adapter_layers": 1, "epochs": 2},
}


def measure(side: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Estimate a run, or make it; returns CPU seconds and the peak of memory."""
    import logging

    from recbole_xling.quick_start import estimate
    from recbole_xling.quick_start.train import run

    logging.disable(logging.WARNING)
    if side == "estimate":
        estimate._now = time.process_time
        found = estimate.estimate(config_dict=settings)
        return {"seconds": found["total"], "bytes": found["memory"]}
    began = time.process_time()
    run(config_dict=settings)
    return {
        "seconds": time.process_time() - began,
        "bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def in_own_process(side: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Run this script for one measurement and return what it reports."""
    command = [sys.executable, __file__, "--measure", side, "--settings", json.dumps(settings)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    for line in done.stdout.splitlines():
        if line.startswith(MARK):
            found: dict[str, Any] = json.loads(line.removeprefix(MARK))
            return found
    sys.exit(f"{side} of {settings['model']} ended with exit code {done.returncode}")


def main() -> None:
    """Estimate and make all runs, or do one step of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="datasets", help="folder of the datasets")
    parser.add_argument("--dataset", default="debian4", help="its name")
    parser.add_argument("--only", nargs="+", default=list(RUNS), choices=list(RUNS), help="some of the runs")
    parser.add_argument("--output", type=Path, default=RESULTS / "estimate.json", help="file of the results")
    parser.add_argument("--measure", choices=("estimate", "run"), help=argparse.SUPPRESS)
    parser.add_argument("--settings", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        sys.argv = sys.argv[:1]
        print(MARK + json.dumps(measure(options.measure, options.settings)), flush=True)
        return
    results, table = {}, []
    with tempfile.TemporaryDirectory() as folder:
        from recbole_xling.testing.tiny_encoder import make_tiny_encoder

        tiny = str(make_tiny_encoder(Path(folder) / "tiny"))
        places = {"data_path": options.data, "dataset": options.dataset, "checkpoint_dir": folder}
        for name in options.only:
            settings = {**COMMON, **RUNS[name], **places}
            if settings["encoder"] == "tiny":
                settings["encoder"] = tiny
            told, took = (in_own_process(side, settings) for side in ("estimate", "run"))
            results[name] = {"estimate": told, "run": took}
            cells = []
            for key, unit in (("seconds", 1), ("bytes", GIB)):
                cells += [f"{told[key] / unit:.2f}", f"{took[key] / unit:.2f}", f"{told[key] / took[key]:.2f}"]
            table.append([name, str(settings["epochs"]), *cells])
    show(["", "epochs", "estimated s", "took s", "ratio", "estimated GiB", "took GiB", "ratio"], table)
    write_json(options.output, {"dataset": options.dataset, "runs": results})


if __name__ == "__main__":
    main()
