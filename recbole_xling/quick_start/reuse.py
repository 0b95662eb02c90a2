"""What decides on the result of a run: whether one that is there can be used instead of running again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from recbole_xling.config import XLingConfig, plain_settings, settings_of
from recbole_xling.data.catalog import configured_encoder
from recbole_xling.data.identity import check_encoders, fingerprint
from recbole_xling.errors import CheckpointError, XlingError
from recbole_xling.model.text_encoder.encoder import TextEncoderConfig, find_encoder
from recbole_xling.utils.files import file_digest
from recbole_xling.utils.run_folder import CONFIG_FILE, MODEL_FILE, RESULT_FILE
from recbole_xling.utils.yaml_text import read_yaml_settings

# Settings that change neither what is trained nor how it is scored.
IRRELEVANT = frozenset(
    "checkpoint_dir data_path embedding_cache_dir energy_country eval_batch_size gpu_id log_mlflow log_wandb "
    "show_progress stages state use_gpu wandb_project worker".split()
)
_STARTS = ("init_from", "init_adapter_from", "init_user_tower_from")
_PLACES = ("checkpoint_dir", "data_path", "embedding_cache_dir", "show_progress", "log_mlflow", "energy_country")


def asked_of(config: XLingConfig) -> dict[str, Any]:
    """Return what decides on the result of a run, as JSON has it.

    Its ``settings`` without places, its ``data``, the identity of its ``encoder``, and the hash of the model it starts
    from (``init_from``): a folder can have other weights under the same name.
    """
    data = json.loads(json.dumps(fingerprint(config), default=str))
    return {"settings": placeless_settings(config), "data": data, **start_of(config)}


def is_asked(before: Mapping[str, Any], asked: Mapping[str, Any]) -> bool:
    """Tell whether a result of before is what is asked for now; earlier releases noted settings and data only."""
    return all(before.get(key) == asked[key] for key in ("settings", "data")) and starts_alike(before, asked)


def placeless_settings(config: XLingConfig) -> dict[str, Any]:
    """Return the settings of a run without places, as JSON has them."""
    settings = {key: value for key, value in plain_settings(config).items() if key not in _PLACES}
    return dict(json.loads(json.dumps(settings, default=str)))


def kind_of(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return what runs have in common that differ in nothing but their seed: their settings but for it and for places.

    A run that starts from another one is told by the kind of that, and not by its folder.
    """
    kind = {key: value for key, value in settings.items() if key not in IRRELEVANT and key != "seed"}
    encoder = Path(str(kind.get("encoder")))  # of a stage "pretrain", it is a folder inside of its own
    folders = {key: Path(kind[key]) for key in _STARTS if kind.get(key)}
    folders |= {"encoder": encoder.parent} if encoder.is_dir() else {}
    runs = {key: folder for key, folder in folders.items() if (folder / RESULT_FILE).is_file()}
    for key, folder in runs.items():
        with suppress(XlingError, OSError):
            kind[key] = kind_of(read_yaml_settings(folder / CONFIG_FILE))
    return kind


def start_of(config: XLingConfig) -> dict[str, Any]:
    """Return which encoder a run may read, and which model it starts from, as far as they are there."""
    start = Path(config["init_from"] or "") / MODEL_FILE
    encoder: Mapping[str, Any] | None = None
    # neither RecBole's own models nor those without a representation of texts read any
    if settings_of(config.model_class) is not None and config["item_representation"] != "none":
        with suppress(XlingError):  # it is away; the run says so, if it needs it
            encoder = encoder_of(config)
    return {
        "encoder": encoder,
        "init_from": file_digest(start) if config["init_from"] and start.is_file() else None,
    }


def starts_alike(before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Tell whether encoder and model that a run started from are those of now, as far as both are known."""
    if before.get("init_from", now["init_from"]) != now["init_from"]:
        return False
    return not before.get("encoder") or not now["encoder"] or is_same_encoder(before["encoder"], now["encoder"])


def encoder_of(config: XLingConfig) -> dict[str, Any]:
    """Return the identity of the encoder that the settings of a model of ours mean now.

    Raises:
        EncoderError: it cannot be found.
    """
    if issubclass(settings_of(config.model_class) or object, TextEncoderConfig):
        return {"fingerprint": find_encoder(config).fingerprint}
    return dict(configured_encoder(config).identity)


def is_same_encoder(then: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Tell whether two identities are of one encoder."""
    try:
        check_encoders(then, now)
    except CheckpointError:
        return False
    return True
