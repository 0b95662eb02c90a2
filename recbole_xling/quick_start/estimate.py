"""Time and memory of a run before it starts: its data are built, some steps trained and some rows evaluated."""

from __future__ import annotations

import os
import resource
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import torch

from recbole_xling.errors import ConfigError, explained
from recbole_xling.evaluator.ranking import evaluate_full_ranking
from recbole_xling.quick_start.build import Run, build, build_trainer, rows_of_users
from recbole_xling.quick_start.train import configure
from recbole_xling.trainer.trainer import XLingTrainer

_WARM_UP = 3  # batches of the first epoch that are not timed
_FEWEST = 8  # timed batches
_SECOND_EPOCH = 5  # batches of the second one, which tells what an epoch costs besides its batches
_USERS = (256, 1024)  # of the two evaluations whose times tell what one costs per user and in any case


class _EnoughError(Exception):
    """Two epochs have begun, and their times are known."""


class _FirstBatches:
    """A training loader whose epochs end early, that takes the time, and that refuses a third epoch.

    Attributes:
        per_batch: seconds of a batch and the step on it.
        begins, ends: of the epochs, in seconds.
        first: seconds until the first batch of each epoch was there and trained on.
    """

    def __init__(self, loader: Any, seconds: float) -> None:
        self._loader, self._seconds = loader, seconds
        self.per_batch = 0.0
        self.begins: list[float] = []
        self.ends: list[float] = []
        self.first: list[float] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[Any]:
        if len(self.ends) > 1:
            raise _EnoughError
        self.begins.append(_now())
        warm, warm_up = self.begins[-1], min(_WARM_UP, len(self) - 1)
        for number, batch in enumerate(self._loader, start=1):
            yield batch
            if number == 1:
                self.first.append(_now() - self.begins[-1])
            if len(self.begins) > 1:
                if number == _SECOND_EPOCH:
                    break
            elif number <= warm_up:
                warm = _now()
            else:
                spent, timed = _now() - warm, number - warm_up
                self.per_batch = spent / timed
                if timed >= _FEWEST and spent > self._seconds:
                    break
        self.ends.append(_now())


def _now() -> float:
    """Return the time when everything that was asked of a GPU is done."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def estimate(
    model: str | type | None = None,
    dataset: str | None = None,
    config_file_list: Sequence[str | os.PathLike[str]] | None = None,
    config_dict: Mapping[str, Any] | None = None,
    arguments: Sequence[str] = (),
    seconds: float = 10.0,
) -> dict[str, Any]:
    """Estimate what a run needs, from its settings as :func:`~recbole_xling.quick_start.train.run` takes them.

    Nothing is left behind but encoded texts in the cache of vectors.

    Args:
        model: as for a run.
        dataset: as for a run.
        config_file_list: as for a run.
        config_dict: as for a run.
        arguments: as for a run.
        seconds: how long steps are trained at least, if there are so many.

    Returns:
        ``epochs``, ``batches`` of an epoch; in seconds ``build``, ``epoch``, ``valid``, ``test`` and ``total``, which
        has all epochs; in bytes ``memory`` of the process and ``gpu_memory`` (0 without a GPU).

    Raises:
        XlingError: settings or data cannot be used, or the model has a training loop of its own.
    """
    config, resume = configure(model, dataset, config_file_list, config_dict, arguments)
    if resume is not None or config["stages"]:
        raise ConfigError("only a whole run can be estimated: leave out resume and stages, and estimate each stage")
    config["log_wandb"] = False
    started = _now()
    run = build(config)
    _ = run.splits  # made when they are first asked for, from all texts
    with tempfile.TemporaryDirectory(prefix="recbole-xling-") as folder:
        config["run_dir"] = config["checkpoint_dir"] = folder
        trainer = build_trainer(config, run.model)
        if type(trainer).fit is not XLingTrainer.fit:
            raise ConfigError(f"{config['model']} has a training loop of its own, which cannot be estimated")
        built = _now()
        epochs = trainer.epochs
        trainer.epochs = max(2, epochs)  # not two: schedules and AdaLoRA go by the number of all steps
        loader = _FirstBatches(run.train_data, seconds)
        with explained(f"{config['model']} cannot be trained with these settings"), suppress(_EnoughError):
            trainer.fit(loader, verbose=False)
        with explained(f"{config['model']} cannot be tested with these settings"):
            valid, test = _evaluation_seconds(run, trainer)
    between = loader.begins[1] - loader.ends[0] + max(0.0, loader.first[1] - loader.per_batch)
    epoch = len(loader) * loader.per_batch + between
    n_valid = epochs // config["eval_step"] if config["eval_step"] > 0 else 0
    unit = 1 if sys.platform == "darwin" else 1024
    return {
        "model": config["model"],
        "dataset": config["dataset"],
        "epochs": epochs,
        "batches": len(loader),
        "build": built - started,
        "epoch": epoch,
        "valid": valid,
        "test": test,
        "total": loader.begins[0] - started + epochs * epoch + n_valid * valid + test,
        "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit,
        "gpu_memory": torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0,
    }


def _evaluation_seconds(run: Run, trainer: XLingTrainer) -> tuple[float, float]:
    """Return what validation and test take: all rows of a small dataset are evaluated, of others a sample of users."""
    counts = [
        len(part._dataset.inter_feat[part._dataset.uid_field].unique()) for part in (run.valid_data, run.test_data)
    ]
    n_valid = min(run.config["valid_users"] or counts[0], counts[0])
    part, most = ("valid", n_valid) if n_valid else ("test", counts[1])  # all rows may be trained on
    sizes = sorted({min(most, number) for number in _USERS})
    valid: list[float] = []
    test: list[float] = []
    for n_users in sizes:
        rows = rows_of_users(run, part, n_users)
        if not valid:
            evaluate_full_ranking(trainer, rows, run.context)  # not timed: what the first one finds out, others know
        began = _now()
        trainer.evaluate(rows, load_best_model=False)
        evaluated = _now()
        evaluate_full_ranking(trainer, rows, run.context)
        valid.append(evaluated - began)
        test.append(_now() - evaluated)
    return _at(n_valid, sizes, valid) if n_valid else 0.0, _at(counts[1], sizes, test)


def _at(n_users: int, sizes: Sequence[int], seconds: Sequence[float]) -> float:
    """Return what the evaluation of users takes, given what it took for one or two numbers of users."""
    few, many, low, high = sizes[0], sizes[-1], seconds[0], seconds[-1]
    per_user = max(0.0, high - low) / (many - few) if many > few else high / few
    return high + per_user * (n_users - many)


def estimate_text(found: Mapping[str, Any]) -> str:
    """Return an estimate as text."""
    gpu = f", {found['gpu_memory'] / 2**30:.1f} GiB on the GPU" if found["gpu_memory"] else ""
    return (
        f"{found['model']} on {found['dataset']}: about {_duration(found['total'])} for {found['epochs']} epochs "
        f"(early stopping may end sooner), {found['memory'] / 2**30:.1f} GiB of memory{gpu}\n"
        f"data and model {_duration(found['build'])}; an epoch of {found['batches']:,} batches "
        f"{_duration(found['epoch'])}; validation {_duration(found['valid'])}; test {_duration(found['test'])}"
    )


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"
