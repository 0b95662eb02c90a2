"""Default settings: RecBole's files and those of recbole-xling."""

from __future__ import annotations

from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import recbole
from recbole.config import Config

from recbole_xling.config.shared import settings_of
from recbole_xling.utils.paths import package_folder
from recbole_xling.utils.yaml_text import read_yaml_settings


def recbole_properties() -> Path:
    """Return the folder of RecBole's own default settings."""
    return Path(recbole.__file__).parent / "properties"


@cache
def recbole_models() -> tuple[str, ...]:
    """Return the names of RecBole's own models that have a file of defaults."""
    return tuple(sorted(file.stem for file in (recbole_properties() / "model").glob("*.yaml")))


@cache
def recbole_model_defaults(model: str) -> dict[str, Any]:
    """Read the defaults of one of RecBole's own models; there are none for other models."""
    file = recbole_properties() / "model" / f"{model}.yaml"
    return read_yaml_settings(file) if model in recbole_models() else {}


def load_defaults(config: Config, model_class: type, dataset: str) -> dict[str, Any]:
    """Read the defaults of recbole-xling: overall, then of the model, then of the dataset.

    Those of a model come from ``properties/model/<Name>.yaml`` of this package, or else from its ``config_class``.
    """
    typed = settings_of(model_class)
    own = _ours(f"model/{model_class.__name__}") or (typed.defaults() if typed else {})
    return {**_ours("overall"), **own, **_ours(f"dataset/{dataset}")}


def dataset_defaults(dataset: str) -> dict[str, Any]:
    """Read the settings that RecBole or recbole-xling has for a dataset of that name; most have none."""
    file = recbole_properties() / "dataset" / f"{dataset}.yaml"
    return {**(read_yaml_settings(file) if file.is_file() else {}), **_ours(f"dataset/{dataset}")}


def _ours(name: str) -> dict[str, Any]:
    return deepcopy(_of_file(package_folder("properties") / f"{name}.yaml"))


@cache
def _of_file(file: Path) -> dict[str, Any]:
    return read_yaml_settings(file) if file.is_file() else {}
