"""LLMSASRec against RecTools' SASRec (Lightning, all positions, full softmax): seconds per epoch, memory, NDCG.

    pip install "rectools[lightning]"            # here, or in an environment of its own: --peer-python
    recbole-xling convert ml-100k
    OMP_NUM_THREADS=1 python benchmarks/peer_speed.py --peer-python peer/bin/python

Both train on the same interactions, with the same sizes and as many steps per epoch: batches of 32 and 128 sequences
of up to 200 items. The last but one interaction of a user is the test, the last one is left out, what comes before is
trained on; all items are ranked that the user has not met. Each side is a process of its own, one after the other.
RecTools trains on the last 201 interactions of a user, LLMSASRec on all: the table has the number of targets. Writes
benchmarks/results/peer_speed.json.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

DATASET = "ml-100k-xling"
LONGEST = 200
SIZES = {"hidden_size": 64, "n_layers": 2, "n_heads": 2, "dropout": 0.2, "learning_rate": 0.001}
OURS = ("none", "delta")
TOPK = 10


class Epochs:
    """Wall and CPU seconds of training epochs."""

    def __init__(self) -> None:
        self.seconds: list[tuple[float, float]] = []

    def begin(self) -> None:
        """Begin an epoch."""
        self._begun = time.perf_counter(), time.process_time()

    def end(self) -> None:
        """End the epoch."""
        self.seconds.append((time.perf_counter() - self._begun[0], time.process_time() - self._begun[1]))

    def result(self, lists: Mapping[str, list[str]], test: Mapping[str, str], targets: int) -> dict[str, Any]:
        """Return what a side prints: medians without the first epoch, NDCG of lists of items by user, peak memory."""
        wall, cpu = (statistics.median(values) for values in zip(*self.seconds[1:], strict=True))
        ranks = [lists[user].index(item) for user, item in test.items() if item in lists.get(user, ())]
        return {
            "wall": wall,
            "cpu": cpu,
            "ndcg@10": sum(1 / math.log2(2 + rank) for rank in ranks) / len(test),
            "targets": targets,
            "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
            "epochs": self.seconds,
        }


# ---- the sides, each in a process of its own --------------------------------------------------------------------


def rectools(work: Mapping[str, Any]) -> dict[str, Any]:
    """Train RecTools' SASRec; nothing of recbole-xling is imported."""
    import pandas as pd
    import rectools
    import torch
    from pytorch_lightning import Callback, Trainer, seed_everything
    from rectools import Columns
    from rectools.dataset import Dataset
    from rectools.models import SASRecModel

    epochs = Epochs()

    class Timer(Callback):
        def on_train_epoch_start(self, trainer: Any, module: Any) -> None:
            epochs.begin()

        def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
            epochs.end()

    def trainer() -> Trainer:
        silent = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
        return Trainer(max_epochs=work["epochs"], accelerator="cpu", callbacks=[Timer()], **silent)

    seed_everything(work["seed"])
    train = pd.DataFrame(work["train"], columns=[Columns.User, Columns.Item, Columns.Datetime])
    train = train.assign(**{Columns.Weight: 1.0, Columns.Datetime: pd.to_datetime(train[Columns.Datetime], unit="s")})
    dataset = Dataset.construct(train)
    model = SASRecModel(
        n_blocks=SIZES["n_layers"],
        n_heads=SIZES["n_heads"],
        n_factors=SIZES["hidden_size"],
        dropout_rate=SIZES["dropout"],
        session_max_len=LONGEST,
        loss="softmax",
        lr=SIZES["learning_rate"],
        batch_size=work["batch"],
        get_trainer_func=trainer,
        recommend_torch_device="cpu",
    )
    model.fit(dataset)
    found = model.recommend(list(work["test"]), dataset, k=TOPK, filter_viewed=True).sort_values(Columns.Rank)
    lists = {user: items.tolist() for user, items in found.groupby(Columns.User)[Columns.Item]}
    targets = int(train.groupby(Columns.User).size().sub(1).clip(upper=LONGEST).sum())
    versions = {"rectools": rectools.__version__, "torch": torch.__version__}
    return {**epochs.result(lists, work["test"], targets), "versions": versions}


def ours(work: Mapping[str, Any]) -> dict[str, Any]:
    """Train LLMSASRec."""
    import torch

    from recbole_xling.quick_start.build import build_trainer
    from recbole_xling.trainer.optimizer import build_schedule

    run = _our_run(work)
    epochs, trainer = Epochs(), build_trainer(run.config, run.model)
    steps = len(run.train_data) * work["epochs"]
    trainer.schedule = build_schedule(trainer.optimizer, "constant", 0, steps)
    trainer.hooks.begin_training(steps, 0)
    for epoch in range(work["epochs"]):
        trainer._seek(run.train_data, epoch)
        epochs.begin()
        trainer._train_epoch(run.train_data, epoch)
        epochs.end()
    dataset, user_field, item_field = run.dataset, run.dataset.uid_field, run.dataset.iid_field
    met = dict.fromkeys(work["test"], frozenset[str]())
    for user, item, _ in work["train"]:
        met[user] |= {item}
    lists = {}
    with torch.no_grad():
        run.model.eval()
        trainer.hooks.end_epoch(work["epochs"] - 1)
        for rows, _, _, positive in run.valid_data:
            right = dataset.id2token(item_field, positive).tolist()
            if right != [work["test"][user] for user in dataset.id2token(user_field, rows[user_field])]:
                sys.exit("the sides differ in what they are tested with")
            scores = run.model.full_sort_predict(rows)
            for user, of_user in zip(dataset.id2token(user_field, rows[user_field]), scores, strict=True):
                of_user[torch.from_numpy(dataset.token2id(item_field, sorted(met[user])))] = -torch.inf
                lists[str(user)] = dataset.id2token(item_field, of_user.topk(TOPK).indices).tolist()
    return epochs.result(lists, work["test"], int(run.train_data.dataset.is_target.sum()))


def _our_run(work: Mapping[str, Any]) -> Any:
    from recbole_xling import XLingConfig
    from recbole_xling.quick_start.build import build

    settings = {
        "data_path": work["data"],
        "item_representation": work["representation"],
        "MAX_ITEM_LIST_LENGTH": LONGEST,
        "train_batch_size": work["targets_per_batch"],
        "inner_size": SIZES["hidden_size"],
        "hidden_dropout_prob": SIZES["dropout"],
        "attn_dropout_prob": SIZES["dropout"],
        "seed": work["seed"],
        "show_progress": False,
        "metrics": ["NDCG"],
        "topk": [TOPK],
        "valid_metric": f"NDCG@{TOPK}",
        "use_gpu": False,
        **{name: SIZES[name] for name in ("hidden_size", "n_layers", "n_heads", "learning_rate")},
    }
    return build(XLingConfig("LLMSASRec", DATASET, config_dict=settings))


# ---- all sides --------------------------------------------------------------------------------------------------


def interactions(data: str) -> tuple[list[tuple[str, str, float]], dict[str, str]]:
    """Return what is trained on, in order of users and times, and the item that each user is tested with.

    As in runs of recbole-xling, rows with equal times keep the order of the file. The item is that of its validation
    rows, whose histories are what was trained on.
    """
    rows: dict[str, list[tuple[float, str]]] = {}
    with open(Path(data) / DATASET / f"{DATASET}.inter", encoding="utf-8") as file:
        names = [name.partition(":")[0] for name in next(file).rstrip("\n").split("\t")]
        places = [names.index(name) for name in ("user_id", "item_id", "timestamp")]
        for line in file:
            cells = line.rstrip("\n").split("\t")
            user, item, moment = (cells[place] for place in places)
            rows.setdefault(user, []).append((float(moment), item))
    train, test = [], {}
    for user, of_user in rows.items():
        of_user.sort(key=lambda row: row[0])
        train += [(user, item, moment) for moment, item in of_user[:-2]]
        test[user] = of_user[-2][1]
    return train, test


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Run all sides for each size of batches; return what they print."""
    train, test = interactions(options.data)
    n_users = len(test)
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for batch in options.batches:
            work = {
                "data": options.data,
                "train": train,
                "test": test,
                "batch": batch,
                "targets_per_batch": -(-(len(train) - n_users) // -(-n_users // batch)),
                "epochs": options.epochs,
                "seed": options.seed,
            }
            sides = [("RecTools SASRec", options.peer_python, {"side": "rectools"})]
            sides += [(f"LLMSASRec {name}", sys.executable, {"side": "ours", "representation": name}) for name in OURS]
            for name, python, which in sides:
                file = Path(folder) / "work.json"
                file.write_text(json.dumps({**work, **which}))
                done = subprocess.run([python, __file__, "--work", str(file)], capture_output=True, text=True)
                if done.returncode:
                    sys.exit(f"{name} failed:\n{done.stderr[-3000:]}")
                results[f"{name}, {batch}"] = json.loads(done.stdout.splitlines()[-1])
                print(name, batch, done.stdout.splitlines()[-1][:120], file=sys.stderr, flush=True)
    return results


def main() -> None:
    """Read the command line; measure, print a table and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="datasets", help="folder of the datasets (default: datasets)")
    parser.add_argument(
        "--peer-python", default=sys.executable, help="interpreter that has RecTools (default: this one)"
    )
    parser.add_argument("--epochs", type=int, default=10, help="of each side (default: 10)")
    parser.add_argument("--seed", type=int, default=2020)
    parser.add_argument("--batches", type=int, nargs="+", default=[32, 128], help="sequences (default: 32 128)")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work = json.loads(Path(options.work).read_text())
        print(json.dumps({"rectools": rectools, "ours": ours}[work["side"]](work)))
        return
    from common import RESULTS, show, write_json

    options.data = os.path.abspath(options.data)
    results = measure(options)
    rows = [
        [name, *(r[key] for key in ("wall", "cpu", "targets", "peak_gib", "ndcg@10"))] for name, r in results.items()
    ]
    show(["side, sequences per batch", "wall s/epoch", "CPU s/epoch", "targets", "peak GiB", "NDCG@10"], rows)
    about = {"dataset": DATASET, "longest": LONGEST, "sizes": SIZES, "epochs": options.epochs, "seed": options.seed}
    file = RESULTS / "peer_speed.json"
    before = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    if all(before.get(key) == value for key, value in about.items()):  # other batches were measured in another call
        results = {**before["sides"], **results}
    write_json(file, {**about, "sides": results})


if __name__ == "__main__":
    main()
