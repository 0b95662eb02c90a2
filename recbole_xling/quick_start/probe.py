"""Probing a saved run: can the language of an item be told from its vector, before training and after it?"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from recbole_xling.config import plain_settings
from recbole_xling.data.catalog import catalog_of
from recbole_xling.evaluator.language_probe import tell_languages
from recbole_xling.quick_start.build import build_model, open_data
from recbole_xling.quick_start.item_views import before_and_after
from recbole_xling.quick_start.trained import read_trained, settings_for
from recbole_xling.utils.run_folder import create_run_folder, model_file, versions, write_evaluation


def probe(
    run: str | os.PathLike[str],
    dataset: str | None = None,
    *,
    most_items: int = 2000,
    config_dict: Mapping[str, Any] | None = None,
    arguments: Sequence[str] = (),
) -> dict[str, Any]:
    """Probe the items of a saved run for their language, and leave a folder in the run's.

    An item counts once for each language in which the run shows it: in several where it has several texts and
    ``reader_vectors: reader`` applies.

    Args:
        run: the run folder; its settings are taken.
        dataset: name of another dataset; the run's own if not given.
        most_items: how many items, drawn by ``seed``, are probed at most.
        config_dict: settings that replace the run's.
        arguments: command-line arguments ``--key=value``, which replace them as well.

    Returns:
        What the new folder's ``result.json`` holds: what
        :func:`~recbole_xling.evaluator.language_probe.tell_languages` returns for ``text_vectors``, those of the frozen
        encoder, and ``item_vectors``, those of the trained model.

    Raises:
        CheckpointError: the folder is no run, or its model does not fit the data.
        ConfigError: a setting is wrong, or the model's items have no vectors.
        DataError: the dataset cannot be used, or its items are all in one language.
    """
    trained = read_trained(model_file(run))
    config = settings_for(trained, dataset, config_dict, arguments)
    _, base = open_data(trained, config)
    model, catalog = build_model(trained, config, base), catalog_of(base)
    views, vectors = before_and_after(model, catalog, most_items, config["seed"])
    result = {
        "model": config["model"],
        "dataset": config["dataset"],
        "run": str(run),
        **tell_languages(vectors, views.languages, views.items, config["seed"]),
        "seed": config["seed"],
        "versions": versions(),
    }
    folder = create_run_folder(Path(run), "probe", config["dataset"])
    return write_evaluation(folder, plain_settings(config), result, None)
