"""Run six of RecBole's own models through RecBole's own entry points, as ``import recbole_xling`` leaves them.

For each model: ``run_recbole`` for one epoch on ml-100k (shipped with RecBole), then ``load_data_and_model`` on the
checkpoint and a second evaluation. Checked: the metrics are finite, the checkpoint loads with ``weights_only=True``,
and the reloaded model reaches the same test metrics.

    python tests/matrix/recbole_models.py [MODEL ...]
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import math
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

#: Settings for all models: one epoch, some of the users, nothing on the terminal.
COMMON: dict[str, Any] = {
    "epochs": 1,
    "train_batch_size": 2048,
    "eval_batch_size": 20_000,
    "user_inter_num_interval": "[60,120]",
    "show_progress": False,
    "state": "ERROR",
}

#: Sequential models: short sequences, few users, and the cross-entropy loss, which wants no negative samples.
SEQUENTIAL: dict[str, Any] = {
    "MAX_ITEM_LIST_LENGTH": 10,
    "user_inter_num_interval": "[20,30]",
    "train_neg_sample_args": None,
}

#: DeepFM with columns of every kind that ml-100k has: tokens, token sequences and floats.
CONTEXT: dict[str, Any] = {
    "threshold": {"rating": 4},
    "load_col": {
        "inter": ["user_id", "item_id", "rating", "timestamp"],
        "user": ["user_id", "age", "gender", "occupation"],
        "item": ["item_id", "release_year", "class"],
    },
}

MODELS: dict[str, dict[str, Any]] = {
    "BPR": {},
    "SASRec": SEQUENTIAL | {"n_layers": 1},
    "GRU4Rec": SEQUENTIAL | {"num_layers": 1},
    "LightGCN": {"n_layers": 2},
    "DeepFM": CONTEXT,
    "ItemKNN": {"k": 20},
}


def check(model: str) -> dict[str, float]:
    """Train, save, reload and evaluate one model in the current folder; return its test metrics.

    Raises:
        AssertionError: a metric is not finite, or the reloaded model's metrics differ.
    """
    import torch
    from recbole.quick_start import load_data_and_model, run_recbole
    from recbole.utils import get_trainer

    with _only_program_name(), _root_logger_restored():
        result = run_recbole(model=model, dataset="ml-100k", config_dict=COMMON | MODELS[model])
        trained = {name: float(value) for name, value in result["test_result"].items()}
        assert trained, "no test metrics"
        assert all(math.isfinite(value) for value in trained.values()), f"not finite: {trained}"

        (file,) = Path("saved").glob(f"{model}-*.pth")
        stored = torch.load(file, weights_only=True)
        assert stored["config"]["model"] == model, "the checkpoint holds another model's configuration"
        assert stored["best_valid_score"] == result["best_valid_score"], "the checkpoint's validation score differs"

        config, loaded, _, _, _, test_data = load_data_and_model(str(file))
        trainer = get_trainer(config["MODEL_TYPE"], config["model"])(config, loaded)
        again = trainer.evaluate(test_data, load_best_model=False, show_progress=False)
        assert {name: float(value) for name, value in again.items()} == trained, (
            f"reloaded: {again}, trained: {trained}"
        )
    return trained


@contextlib.contextmanager
def _only_program_name() -> Iterator[None]:
    """Hide the command line from RecBole's ``Config``, which reads settings from it."""
    arguments, sys.argv = sys.argv, sys.argv[:1]
    try:
        yield
    finally:
        sys.argv = arguments


@contextlib.contextmanager
def _root_logger_restored() -> Iterator[None]:
    """Take the handlers off the root logger that RecBole's ``init_logger`` puts there."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    try:
        yield
    finally:
        for handler in [handler for handler in root.handlers if handler not in handlers]:
            root.removeHandler(handler)
            handler.close()
        root.setLevel(level)


def main() -> int:
    """Check the named models (default: all) in a temporary folder, print a line for each, and return the exit code."""
    parser = argparse.ArgumentParser(description="Run RecBole's own models as 'import recbole_xling' leaves them.")
    parser.add_argument("models", nargs="*", metavar="MODEL", help=f"default: {' '.join(MODELS)}")
    names = parser.parse_args().models or list(MODELS)
    if unknown := set(names) - set(MODELS):
        parser.error(f"unknown model {', '.join(sorted(unknown))}; known: {', '.join(MODELS)}")

    import recbole_xling  # noqa: F401  (importing it is what is tested)

    failures = 0
    for name in names:
        started, here = time.perf_counter(), Path.cwd()
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
            try:
                metrics = check(name)
                outcome = "ok " + " ".join(f"{metric}={value}" for metric, value in list(metrics.items())[:2])
            except Exception as error:
                failures += 1
                traceback.print_exc()
                outcome = f"failed {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
            finally:
                os.chdir(here)
        print(f"{name} {time.perf_counter() - started:.1f}s {outcome}", flush=True)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
