"""Seconds per training epoch, and to the same quality: RecBole's SASRec and LLMSASRec on ml-100k.

    OMP_NUM_THREADS=2 python benchmarks/train_speed.py --quick
    OMP_NUM_THREADS=2 python benchmarks/train_speed.py --quick --to-quality
    OMP_NUM_THREADS=2 python benchmarks/train_speed.py --record-peer

All sides train in one process with the same data, hyper-parameters (RecBole's defaults for SASRec) and threads, in
turns: some of RecBole's batches, an epoch of each of ours, and again, so that a slow moment of the machine hits all.
Without ``--quick`` RecBole's share is one whole epoch. Writes benchmarks/results/train_speed.json.

``--to-quality`` then trains LLMSASRec until it stops by itself, and compares the epochs needed to reach the best
validation NDCG@10 on the curve of RecBole's SASRec. ``--record-peer`` makes that curve, which takes hours; it can be
interrupted and called again. It writes benchmarks/results/recbole_sasrec_ml-100k.json.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from common import RESULTS, show, write_json
from recbole.trainer import Trainer
from sasrec import CURVE, DATASET, METRIC, OURS, PEER, SAME, check_same, ours, peer, record_peer

from recbole_xling.quick_start.build import Run, build_trainer
from recbole_xling.trainer.optimizer import build_schedule
from recbole_xling.trainer.trainer import XLingTrainer
from recbole_xling.utils.run_folder import logging_to

# ---- seconds per epoch ----------------------------------------------------------------------------------------


@dataclass
class Timing:
    """Wall and processor seconds."""

    wall: float
    cpu: float


def timed(work: Callable[[], Any]) -> Timing:
    """Time one call."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return Timing(time.perf_counter() - wall, time.process_time() - cpu)


class PeerEpoch:
    """RecBole's training epoch in parts.

    Args:
        run: RecBole's model and data.
    """

    def __init__(self, run: Run) -> None:
        self.loader = run.train_data
        self.trainer = Trainer(run.config, run.model)
        self.rows = 0
        self.parts: list[Timing] = []
        self._batches: Iterator[Any] = iter(self.loader)

    def _counted(self, n: int) -> Iterator[Any]:
        for batch in islice(self._batches, n):
            self.rows += len(batch)
            yield batch

    def warm_up(self) -> None:
        """Train one batch that does not count, then start the epoch."""
        self.trainer._train_epoch(islice(iter(self.loader), 1), 0)

    def train(self, n: int) -> None:
        """Train the epoch's next ``n`` batches."""
        self.parts.append(timed(lambda: self.trainer._train_epoch(self._counted(n), 0)))

    @property
    def per_epoch(self) -> Timing:
        """Seconds per epoch: what the parts took, scaled from their rows to all rows."""
        share = self.rows / len(self.loader._dataset)
        return Timing(sum(part.wall for part in self.parts) / share, sum(part.cpu for part in self.parts) / share)


class OurEpochs:
    """Training epochs of LLMSASRec.

    Args:
        run: the model and its data.
    """

    def __init__(self, run: Run) -> None:
        self.loader = run.train_data
        self.trainer: XLingTrainer = build_trainer(run.config, run.model)
        self.trainer.schedule = build_schedule(self.trainer.optimizer, "constant", 0, 1)
        self.epochs: list[Timing] = []

    def train(self) -> None:
        """Train the next epoch."""
        self.epochs.append(timed(lambda: self.trainer._train_epoch(self.loader, len(self.epochs))))

    @property
    def per_epoch(self) -> Timing:
        """Median seconds per epoch, the first one left out."""
        counted = self.epochs[1:]
        return Timing(*(statistics.median(getattr(epoch, name) for epoch in counted) for name in ("wall", "cpu")))


def shares(n: int, rounds: int) -> list[int]:
    """Split ``n`` batches over the rounds."""
    return [n * (index + 1) // rounds - n * index // rounds for index in range(rounds)]


def measure(peer_batches: int | None, rounds: int, scratch: Path) -> dict[str, Any]:
    """Time all sides in turns; ``peer_batches`` None stands for RecBole's whole epoch."""
    their_run = peer(scratch)
    runs = {name: ours(representation, scratch) for name, representation in OURS.items()}
    for run in runs.values():
        check_same(their_run, run)
    theirs, mine = PeerEpoch(their_run), {name: OurEpochs(run) for name, run in runs.items()}
    theirs.warm_up()
    for epochs in mine.values():
        epochs.train()
    for batches in shares(peer_batches or len(theirs.loader), rounds):
        theirs.train(batches)
        for epochs in mine.values():
            epochs.train()
    seconds = {PEER: theirs.per_epoch, **{name: epochs.per_epoch for name, epochs in mine.items()}}
    return {
        "threads": torch.get_num_threads(),
        "targets": len(their_run.train_data._dataset),
        "settings": {key: their_run.config[key] for key in SAME},
        "peer_rows_trained": theirs.rows,
        "seconds_per_epoch": {name: vars(timing) for name, timing in seconds.items()},
        "ratio": {name: {k: vars(seconds[PEER])[k] / vars(seconds[name])[k] for k in ("wall", "cpu")} for name in mine},
        "measured": {
            PEER: [vars(part) for part in theirs.parts],
            **{name: [vars(epoch) for epoch in epochs.epochs] for name, epochs in mine.items()},
        },
    }


def show_speed(result: dict[str, Any]) -> None:
    """Print seconds per epoch and how many times faster than RecBole."""
    rows = []
    for name, seconds in result["seconds_per_epoch"].items():
        ratio = result["ratio"].get(name)
        times = [f"{ratio['wall']:.0f}x", f"{ratio['cpu']:.0f}x"] if ratio else []
        rows.append([name, f"{seconds['wall']:.2f}", f"{seconds['cpu']:.2f}", *times])
    print(
        f"\nOne epoch of {DATASET}: {result['targets']} targets, {result['threads']} threads, "
        f"{result['peer_rows_trained']} rows of RecBole's epoch trained"
    )
    show(["", "wall s", "CPU s", "RecBole / this, wall", "CPU"], rows)


# ---- time to the same quality -----------------------------------------------------------------------------------


def epochs_to(curve: list[dict[str, Any]], target: float) -> int | None:
    """Return after how many epochs a curve first reaches the target; None where it never does."""
    for entry in curve:
        if entry["valid"][METRIC] >= target:
            return int(entry["epoch"]) + 1
    return None


def train_ours(representation: str, scratch: Path, epochs: int | None) -> dict[str, Any]:
    """Train LLMSASRec until it stops by itself (or for ``epochs``); returns its curve and its test result."""
    run = ours(representation, scratch, **({"epochs": epochs} if epochs else {}))
    trainer = build_trainer(run.config, run.model)
    trainer.saved_model_file = str(scratch / f"{representation}.pt")
    curve: list[dict[str, Any]] = []

    def record(epoch: int, score: float) -> None:
        curve.append({"epoch": epoch, "train_seconds": trainer.epoch_seconds[-1], "valid": {METRIC: round(score, 4)}})

    trainer.fit(run.train_data, run.valid_data, verbose=False, callback_fn=record)
    test = trainer.evaluate(run.test_data)
    return {"curve": curve, "finished": epochs is None or len(curve) < epochs, "test": dict(test)}


def compare_quality(
    theirs: dict[str, Any], seconds: dict[str, Any], scratch: Path, epochs: int | None
) -> dict[str, Any]:
    """Return for every side epochs and seconds to RecBole's best validation result, and its test result."""
    target = max(entry["valid"][METRIC] for entry in theirs["curve"])
    sides = {
        PEER: theirs,
        **{name: train_ours(representation, scratch, epochs) for name, representation in OURS.items()},
    }
    result: dict[str, Any] = {"target": target, "sides": {}}
    for name, side in sides.items():
        needed = epochs_to(side["curve"], target)
        wall, cpu = seconds[name]["wall"], seconds[name]["cpu"]
        result["sides"][name] = {
            "finished": side["finished"],
            "epochs_trained": len(side["curve"]),
            "epochs_to_target": needed,
            "seconds_to_target": needed and {"wall": needed * wall, "cpu": needed * cpu},
            "best_valid": max(entry["valid"][METRIC] for entry in side["curve"]),
            "test": (side.get("test") or {}).get(METRIC),
            **({} if name == PEER else {"curve": side["curve"]}),
        }
    return result


def show_quality(result: dict[str, Any]) -> None:
    """Print who reaches RecBole's best validation result when."""
    rows = []
    first = result["sides"][PEER]["seconds_to_target"]
    for name, side in result["sides"].items():
        needed = side["seconds_to_target"]
        times = [f"{needed['wall']:.0f}", f"{first['wall'] / needed['wall']:.0f}x"] if needed else ["not reached", ""]
        test = "unfinished" if side["test"] is None else f"{side['test']:.4f}"
        rows.append([name, side["epochs_to_target"], *times, f"{side['best_valid']:.4f}", test])
    print(
        f"\nUntil validation NDCG@10 reaches {result['target']:.4f}, the best of {PEER}"
        + ("" if result["sides"][PEER]["finished"] else " so far (its curve is not finished)")
    )
    show(["", "epochs", "seconds", "RecBole / this", "best valid NDCG@10", "test NDCG@10"], rows)


# ---- the script -------------------------------------------------------------------------------------------------


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="train a few of RecBole's batches instead of its epoch")
    parser.add_argument("--peer-batches", type=int, default=4, help="RecBole's batches trained with --quick")
    parser.add_argument("--rounds", type=int, default=3, help="epochs of ours, and parts of RecBole's share")
    parser.add_argument("--to-quality", action="store_true", help="compare the time to the same quality as well")
    parser.add_argument("--record-peer", action="store_true", help="make RecBole's curve (hours)")
    parser.add_argument("--curve", type=Path, default=CURVE, help="file of RecBole's curve")
    parser.add_argument("--epochs", type=int, help="stop training after this many epochs, to try the script out")
    parser.add_argument("--out", type=Path, default=RESULTS / "train_speed.json", help="file of the results")
    return parser.parse_args()


def main() -> None:
    """Do what the command line asks for."""
    options = arguments()
    sys.argv = sys.argv[:1]  # RecBole reads it
    if options.to_quality and not options.curve.is_file():
        sys.exit(f"{options.curve} does not exist: make it with --record-peer")
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    with tempfile.TemporaryDirectory() as folder, logging_to(Path(folder), "warning"):
        scratch = Path(folder)
        if options.record_peer:
            record_peer(options.curve, scratch, options.epochs)
            return
        result = measure(options.peer_batches if options.quick else None, options.rounds, scratch)
        show_speed(result)
        if options.to_quality:
            curve = json.loads(options.curve.read_text(encoding="utf-8"))
            result["to_quality"] = compare_quality(curve, result["seconds_per_epoch"], scratch, options.epochs)
            show_quality(result["to_quality"])
        write_json(options.out, result)


if __name__ == "__main__":
    main()
