"""Starting a model from parts of earlier runs."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from recbole_xling.errors import CheckpointError, ConfigError
from recbole_xling.run_folder import MODEL_FILE
from recbole_xling.train.checkpoint import load_checkpoint, load_trainable, trainable_state
from recbole_xling.train.plain import from_plain

logger = logging.getLogger(__name__)


def warm_start(model: Any, config: Any) -> None:
    """Take over the weights of a model's parts from the runs that the settings name.

    A model says which settings there are in ``warm_start_parts``: name of the setting to name of the part. If it has a
    method ``check_warm_start(part, other_parameter)``, that may refuse weights by what else the checkpoint holds. What
    the earlier run did not have, such as adapters where its encoder was frozen, stays as it is.

    Args:
        model: not trained yet.
        config: the configuration; a setting names a run folder, or nothing.

    Raises:
        ConfigError: a setting does not name a run folder.
        CheckpointError: the run's model is another one, or its part is empty, has more, or differs in shapes.
    """
    for key, part in getattr(model, "warm_start_parts", {}).items():
        if not config[key]:
            continue
        file = Path(config[key]) / MODEL_FILE
        if not file.is_file():
            raise ConfigError(f"{key} must be a run folder: '{config[key]}' has no {MODEL_FILE}")
        state = load_checkpoint(file)
        if state["model"] != config["model"]:
            raise CheckpointError(f"{key}: '{config[key]}' is a run of {state['model']}, not of {config['model']}")
        if hasattr(model, "check_warm_start"):
            model.check_warm_start(part, from_plain(state["other_parameter"]))
        prefix = f"{part}."
        weights = {n.removeprefix(prefix): w for n, w in state["state_dict"].items() if n.startswith(prefix)}
        if not weights:
            raise CheckpointError(f"{key}: '{config[key]}' has trained nothing of its {part}")
        module = model.get_submodule(part)
        load_trainable(module, {**trainable_state(module), **weights}, file)
        logger.info("%s starts from '%s'", part, config[key])
