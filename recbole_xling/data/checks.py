"""What a run's settings ask of its data, checked before training: labels to compare with, something to test on."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
from recbole.utils import EvaluatorType, ModelType

from recbole_xling.errors import ConfigError, DataError

logger = logging.getLogger(__name__)

FILTERS = ("val_interval", "user_inter_num_interval", "item_inter_num_interval", "rm_dup_inter")
"""Settings that leave interactions out before they are split."""

_READ_LABELS = ("DIN", "DIEN")  # besides all context-aware models


def check_evaluation(config: Any) -> None:
    """Check that metrics, modes of evaluation and files of parts go together.

    Raises:
        ConfigError: they do not.
    """
    modes = config["eval_args"]["mode"]
    if config["eval_type"] == EvaluatorType.RANKING and "labeled" in modes.values():
        raise ConfigError(
            f"eval_args: mode labeled compares scores with labels, by metrics such as AUC and LogLoss; "
            f"{', '.join(config['metrics'])} rank items: mode full, uni100 or pop100"
        )
    names = config["benchmark_filename"]
    if names is None:
        return
    if len(names) != 3:
        raise ConfigError(f"benchmark_filename names three files, of training, validation and test, not {names}")
    if config["eval_args"]["split"] != config.internal_config_dict["eval_args"]["split"]:
        raise ConfigError("benchmark_filename names files that are split already: set either it or eval_args: split")
    for key in FILTERS:
        if config[key] != config.internal_config_dict.get(key):
            raise ConfigError(f"files of benchmark_filename are used as they are: leave out {key}")


def check_parts(config: Any, name: str, parts: Sequence[Any], users: Any) -> None:
    """Check the parts of a split: something is in them, and the labels that are needed.

    Args:
        config: the configuration.
        name: the dataset's.
        parts: datasets of training, validation and test.
        users: the user of each interaction before the split, ``(n,)``.

    Raises:
        DataError: nothing is left to train on, or to test on though the split has a test, or labels are missing.
    """
    split, files = config["eval_args"]["split"], config["benchmark_filename"]
    ((kind, value),) = split.items()
    tested = files or value != "valid_only" if kind == "LS" else files or kind not in ("RS", "TS") or value[2] > 0
    source = f"benchmark_filename {files}" if files else f"split {split}"
    counts = np.unique(users, return_counts=True)[1]
    for purpose, part, needed in (("train", parts[0], True), ("test", parts[2], tested)):
        if needed and not len(part.inter_feat):
            raise DataError(
                f"{source} of '{name}' leaves nothing to {purpose} on: {len(counts):,} users with "
                f"{counts.min()} to {counts.max()} interactions each"
            )
    if config["train_on_validation"]:
        logger.info("Validation rows are trained on: all %d epochs are trained, the last one is kept", config["epochs"])
    elif not len(parts[1].inter_feat):
        logger.warning("%s leaves nothing to validate on: all epochs are trained, the last one is tested", source)
    if config["MODEL_TYPE"] != ModelType.SEQUENTIAL:  # these know users by their histories
        known, tested = (np.unique(part.inter_feat[part.uid_field]) for part in (parts[0], parts[2]))
        if strange := len(np.setdiff1d(tested, known)):
            logger.warning(
                "%s knows users by their training interactions, which %d of %d test users do not have: for them it "
                "ranks by chance, or the same for all. HistoryEASE, HistoryItemKNN and other sequential models do not",
                *(config["model"], strange, len(tested)),
            )
    _check_labels(config, name, parts)


def _check_labels(config: Any, name: str, parts: Sequence[Any]) -> None:
    """Check that there are labels where they are read, and say where labels that are there are not."""
    modes, model, learns = config["eval_args"]["mode"], config["model"], learns_from_labels(config)
    if learns:
        _labels(config, name, parts[0], f"{model} learns from labels")
    for phase, part in (("valid", parts[1]), ("test", parts[2])):
        if modes[phase] == "labeled" and len(part.inter_feat):
            labels = _labels(config, name, part, "mode labeled compares scores with labels")
            if len(labels) == 1 and "auc" in map(str.lower, config["metrics"]):
                raise DataError(f"AUC needs labels 0 and 1, but all {phase} labels of '{name}' are {labels[0]:g}")
    field = config["LABEL_FIELD"]
    if field not in parts[0].inter_feat:
        return
    ignored = []
    if not learns:
        ignored.append(f"{model} does not learn from labels: {_negative(parts[0], field)} of training")
    if modes["test"] != "labeled":
        ignored.append(f"mode {modes['test']} does not look at labels: {_negative(parts[2], field)} of the test")
    if ignored:
        logger.warning("%s count like all others; val_interval leaves interactions out", ", and ".join(ignored))


def learns_from_labels(config: Any) -> bool:
    """Tell whether labels decide what a model learns."""
    reads = config["MODEL_TYPE"] == ModelType.CONTEXT or config["model"] in _READ_LABELS
    return bool(config["train_neg_sample_args"]["distribution"] == "none" and reads)


def _labels(config: Any, name: str, part: Any, why: str) -> Any:
    """Return the distinct labels of a part."""
    field = config["LABEL_FIELD"]
    if field not in part.inter_feat:
        raise DataError(
            f"{why}, and '{name}' has no column '{field}' loaded: set threshold, such as {{'rating': 4}}, or "
            "LABEL_FIELD and load_col to a column of 0 and 1"
        )
    labels = np.unique(part.inter_feat[field].numpy())
    if not set(labels.tolist()) <= {0.0, 1.0}:
        found = f"'{name}' has {labels[0]:g} to {labels[-1]:g} in '{field}'"
        raise DataError(f"{why}, which are 0 and 1, but {found}: set threshold, such as {{'{field}': 4}}")
    return labels


def _negative(part: Any, field: str) -> str:
    labels = part.inter_feat[field]
    return f"{int((labels == 0).sum()):,} of {len(labels):,} interactions with label 0"
