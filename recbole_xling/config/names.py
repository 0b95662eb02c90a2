"""Names of settings: those that were renamed, and the nearest known one for one that nobody knows."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

from recbole.config import Config

from recbole_xling.config.shared import settings_of
from recbole_xling.errors import ConfigError, unknown_name

logger = logging.getLogger(__name__)

RENAMED = {
    "centring": "centering",
    "sub_batch_size": "mini_batch_size",
    "adaptor": "text_projection",
    "adaptor_dropout_prob": "text_projection_dropout_prob",
    "items.adaptor": "items.text_projection",  # in learning_rates
}

# What other libraries call a setting -> its names here, of which the first that the model has is meant.
_ELSEWHERE = {
    "lr": ("learning_rate",),
    "wd": ("weight_decay",),
    "l2": ("weight_decay",),
    "bs": ("train_batch_size",),
    "batch_size": ("train_batch_size",),
    "max_epochs": ("epochs",),
    "num_epochs": ("epochs",),
    "patience": ("stopping_step",),
    "optim": ("learner",),
    "optimizer": ("learner",),
    "scheduler": ("lr_schedule",),
    "warmup": ("warmup_steps",),
    "dim": ("hidden_size", "embedding_size"),
    "d_model": ("hidden_size", "embedding_size"),
    "emb_size": ("embedding_size", "hidden_size"),
    "embedding_dim": ("embedding_size", "hidden_size"),
    "heads": ("n_heads", "num_heads"),
    "layers": ("n_layers", "num_layers"),
    "dropout": ("dropout_prob", "hidden_dropout_prob"),
    "max_len": ("MAX_ITEM_LIST_LENGTH",),
    "maxlen": ("MAX_ITEM_LIST_LENGTH",),
    "max_length": ("MAX_ITEM_LIST_LENGTH",),
    "max_seq_length": ("MAX_ITEM_LIST_LENGTH",),
    "tau": ("temperature",),
    "temp": ("temperature",),
    "rank": ("lora_rank",),
    "r": ("lora_rank",),
    "k": ("topk",),
    "split": ("eval_args",),
    "order": ("eval_args",),
    "mode": ("eval_args",),
    "group_by": ("eval_args",),
    "gpu": ("gpu_id",),
    "gpus": ("gpu_id",),
    "device": ("use_gpu", "gpu_id"),
    "cuda": ("use_gpu",),
    "num_workers": ("worker",),
    "random_seed": ("seed",),
    "data_dir": ("data_path",),
    "output_dir": ("checkpoint_dir",),
    "amp": ("enable_amp",),
    "fp16": ("enable_amp",),
    "negatives": ("train_neg_sample_args",),
    "text_encoder": ("encoder",),
    "slices": ("slice_by",),
    "slice": ("slice_by",),
}


def unknown_setting(name: str, known: Iterable[str]) -> str:
    """Return the message for a setting that nobody knows, with the nearest one that is known."""
    options = set(known)
    for meant in _ELSEWHERE.get(name.lower().replace("-", "_"), ()):
        if meant in options:
            return f"unknown setting '{name}'. Did you mean '{meant}'?"
    return unknown_name("setting", name, options).split(" Known:")[0]


def current_names(settings: Mapping[str, Any], model_class: type) -> dict[str, Any]:
    """Return settings by their present names; those that were renamed can be given by the old one in this release.

    A name is replaced only where the model has the setting of the new name: other people's models may use the old one
    for something else.

    Raises:
        ConfigError: a setting is given by both names, with different values.
    """
    typed = settings_of(model_class)
    known = typed.model_fields if typed else {}
    renamed: dict[str, Any] = {}
    for key, value in settings.items():
        name = key
        for old, new in RENAMED.items():
            if new.rpartition(".")[2] in known and (key == old or str(key).startswith(f"{old}.")):
                name = new + key[len(old) :]
                _warn_of_old_name(old, new)
        if key == "learning_rates" and isinstance(value, dict):
            value = current_names(value, model_class)
        if name in renamed and renamed[name] != value:
            raise ConfigError(f"{name} is given twice with different values, once by its old name: leave that one out")
        renamed[name] = value
    return renamed


@cache
def _warn_of_old_name(old: str, new: str) -> None:
    logger.warning("the setting '%s' is called '%s' now; the old name works in this release only", old, new)


def use_current_names(config: Config, model_class: type) -> None:
    """Replace old names in everything a configuration was given, source by source: later ones still win."""
    for source in ("file_config_dict", "variable_config_dict", "cmd_config_dict"):
        setattr(config, source, current_names(getattr(config, source), model_class))
    config._merge_external_config_dict()
