"""What a run of LLMSASRec costs at 10 thousand, 100 thousand and a million items: building, a step, cold items, memory.

    OMP_NUM_THREADS=1 python benchmarks/scale.py
    OMP_NUM_THREADS=1 python benchmarks/scale.py --sizes 10000,100000 --users 20000 --profile

The data is made: users with 15 interactions on average, items drawn by Zipf's law, a third of the items without any
interaction, a title per item in one of three languages. The cache of text vectors is filled beforehand, with random
vectors of 512 dimensions. Every size is a process of its own, so that its peak memory is its own: resident memory, and
of it what is no page of a file (such pages are given back when memory is short). Seconds are CPU seconds. Prints a
table and writes benchmarks/results/scale.json.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import pstats
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from common import RESULTS, show, write_json

NAME = "made"
GIB = 2**30
MARK = "result: "
MEAN_LENGTH = 15
DIMENSION = 512
SHARD = 2048
LANGUAGES = ("en", "de", "it")
WORDS = np.array("the of night river house love dark golden lost summer stone winter king last story".split())
STAGES = ("data", "texts", "model", "first step", "step", "item table", "cold items")


# ---- the data -------------------------------------------------------------------------------------------------


def make_data(n_items: int, n_users: int, folder: Path) -> None:
    """Write interactions in order of time, items, their texts, and the cache of their vectors."""
    rng = np.random.default_rng(n_items)
    lengths = 3 + rng.geometric(1 / (MEAN_LENGTH - 3), size=n_users)
    users = rng.permutation(np.repeat(np.arange(n_users), lengths))
    n_warm = n_items * 2 // 3
    share = np.cumsum(1 / np.arange(1, n_warm + 1))
    items = np.searchsorted(share, rng.random(len(users)) * share[-1])
    (folder / NAME).mkdir(parents=True)
    with open(folder / NAME / f"{NAME}.inter", "w", encoding="utf-8") as file:
        file.write("user_id:token\titem_id:token\ttimestamp:float\n")
        file.writelines(
            f"u{user}\ti{item}\t{time}\n" for time, (user, item) in enumerate(zip(users, items, strict=True))
        )
    titles = [
        f"{' '.join(words)} {item}" for item, words in enumerate(WORDS[rng.integers(len(WORDS), size=(n_items, 4))])
    ]
    with open(folder / NAME / f"{NAME}.item", "w", encoding="utf-8") as file:
        file.write("item_id:token\n")
        file.writelines(f"i{item}\n" for item in range(n_items))
    with open(folder / NAME / f"{NAME}.itemtext.jsonl", "w", encoding="utf-8") as file:
        for item, title in enumerate(titles):
            text = {"item_id": f"i{item}", "language": LANGUAGES[item % 3], "fields": {"title": title}}
            file.write(json.dumps({**text, "source": "display"}, ensure_ascii=False) + "\n")
    fill_cache(titles, folder, rng)


def fill_cache(titles: list[str], folder: Path, rng: np.random.Generator) -> None:
    """Write a vector of each title, as the encoder of :func:`settings_of` would."""
    from recbole_xling.encode.base import create_encoder
    from recbole_xling.encode.cache import EmbeddingCache, text_digests
    from recbole_xling.encode.shards import write_shard

    place = EmbeddingCache(folder / "cache").folder(create_encoder("random", dimension=DIMENSION))
    place.mkdir(parents=True)
    digests = text_digests(titles)
    for start in range(0, len(titles), SHARD):
        block = rng.standard_normal((len(digests[start : start + SHARD]), DIMENSION), dtype=np.float32)
        write_shard(place, digests[start : start + SHARD], block)


# ---- one measurement, in a process of its own -------------------------------------------------------------------


class PeakMemory:
    """The most memory of its own, no pages of files, that this process held since a mark, looked at every 20 ms."""

    def __init__(self) -> None:
        self.most = 0
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while True:
            lines = Path("/proc/self/status").read_text().splitlines()
            own = next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))
            self.most = max(self.most, own * 1024)
            time.sleep(0.02)

    def taken(self) -> dict[str, float]:
        """Return the peaks in GiB until now: own memory, and all resident memory."""
        resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        return {"own": self.most / GIB, "resident": resident / GIB}


def settings_of(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Return the settings of the run."""
    columns = {"inter": ["user_id", "item_id", "timestamp"], "item": ["item_id"]}
    chosen = dict(pair.partition("=")[::2] for pair in options.set)
    return {
        "data_path": str(folder),
        "checkpoint_dir": str(folder),
        "embedding_cache_dir": str(folder / "cache"),
        "load_col": columns,
        "encoder": "random",
        "encoder_options": {"dimension": DIMENSION},
        "loss_type": options.loss,
        "learner": "sparse_adam",
        "hidden_size": 64,
        "show_progress": False,
        **chosen,
    }


def measure(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Build a run, train some steps, end an epoch; returns CPU seconds of each and peaks of memory."""
    import logging

    import torch

    from recbole_xling import XLingConfig
    from recbole_xling.quick_start.build import _new_model, build_data, build_trainer

    logging.disable(logging.WARNING)
    peak, seconds, memory = PeakMemory(), {}, {}

    @contextmanager
    def stage(name: str) -> Iterator[None]:
        profile = cProfile.Profile() if options.profile in (name, "all") else None
        if profile:
            profile.enable()
        started = time.process_time()
        yield
        seconds[name], memory[name] = time.process_time() - started, peak.taken()
        if profile:
            profile.disable()
            print(f"--- {name}: {seconds[name]:.2f} s, {memory[name]}", file=sys.stderr)
            pstats.Stats(profile, stream=sys.stderr).sort_stats("tottime").print_stats(12)

    config = XLingConfig("LLMSASRec", NAME, config_dict=settings_of(folder, options))
    with stage("data"):
        data = build_data(config)
    train = data.train_data._dataset
    with stage("texts"):
        assert len(train.catalog.languages) == len(train.catalog.texts)
    with stage("model"):
        model = _new_model(config, train)
        trainer = build_trainer(config, model)
    trainer.optimizer.zero_grad(set_to_none=True)
    model.train()
    model.begin_training(1000, 0)
    batches = iter(data.train_data)

    def step() -> None:
        model.calculate_loss(next(batches)).backward()
        trainer.optimizer.step()
        trainer.optimizer.zero_grad(set_to_none=True)

    with stage("first step"):
        step()
    each = []
    with stage("step"):
        for _ in islice(range(options.steps), len(data.train_data) - 1):
            started = time.process_time()
            step()
            each.append(time.process_time() - started)
    seconds["step"] = statistics.median(each)
    model.eval()
    with torch.no_grad():
        with stage("item table"):  # which validation needs as well
            model.item_table()
        with stage("cold items"):
            model.end_epoch(0)
    epoch = seconds["step"] * len(data.train_data)
    return {"seconds": seconds, "gib": memory, "steps": len(data.train_data), "epoch_seconds": epoch}


# ---- all measurements -------------------------------------------------------------------------------------------


def in_own_process(folder: Path, size: int) -> dict[str, Any]:
    """Measure one size in a process of its own, with this one's arguments."""
    call = [sys.executable, __file__, *sys.argv[1:], "--folder", str(folder), "--sizes", str(size), "--measure"]
    done = subprocess.run(call, stdout=subprocess.PIPE, text=True, check=False)
    for line in done.stdout.splitlines():
        if line.startswith(MARK):
            found: dict[str, Any] = json.loads(line.removeprefix(MARK))
            return found
    sys.exit(f"measuring {size} items failed")


def rows_of(results: dict[int, dict[str, Any]]) -> list[list[str]]:
    """Return the rows to print, one per size."""
    rows = []
    for size, run in results.items():
        seconds, built = run["seconds"], run["gib"]["first step"]
        shown = [f"{seconds[name]:.2f}" if seconds[name] >= 1 else f"{seconds[name]:.3f}" for name in STAGES]
        share = f"{100 * seconds['cold items'] / run['epoch_seconds']:.1f}%"
        ends = run["gib"]["cold items"]
        rows.append([f"{size:,}", *shown, share, *(f"{v:.2f}" for v in (*built.values(), *ends.values()))])
    return rows


def main() -> None:
    """Measure all sizes, or one of them in this process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="10000,100000,1000000", help="numbers of items")
    parser.add_argument("--users", type=int, default=200_000, help="number of users")
    parser.add_argument("--steps", type=int, default=20, help="training steps to time; the median is reported")
    parser.add_argument("--loss", default="sampled_softmax", choices=("CE", "sampled_softmax"), help="loss_type")
    parser.add_argument("--set", action="append", default=[], help="a further setting, as key=value")
    parser.add_argument("--profile", choices=(*STAGES, "all"), help="print where the time of a stage goes")
    parser.add_argument("--output", type=Path, default=RESULTS / "scale.json", help="where results go")
    parser.add_argument("--folder", type=Path, help="where made data are kept and found again; not kept if not set")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    sizes = [int(size) for size in options.sizes.split(",")]
    if options.measure:
        print(MARK + json.dumps(measure(options.folder, options)))
        return
    results = {}
    with tempfile.TemporaryDirectory() as temporary:
        for size in sizes:
            folder = (options.folder or Path(temporary)) / f"{size}-{options.users}"
            if not folder.is_dir():
                make_data(size, options.users, folder)
            results[size] = in_own_process(folder, size)
            headers = ["items", *STAGES, "of an epoch", "own GiB, first step", "resident", "own GiB, all", "resident"]
            show(headers, rows_of(results))
            content = {"users": options.users, "loss_type": options.loss, "settings": options.set, "sizes": results}
            write_json(options.output, content)


if __name__ == "__main__":
    main()
