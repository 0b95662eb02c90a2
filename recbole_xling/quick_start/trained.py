"""A trained model as its run folder keeps it: the file, the settings it may decide, and the way back into a model."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from recbole.utils import ModelType, get_model

from recbole_xling.config import XLingConfig, current_names, dataset_defaults
from recbole_xling.data.identity import DataIdentity, changes, fingerprint, some
from recbole_xling.errors import CheckpointError, ConfigError
from recbole_xling.model.base import hooks_of
from recbole_xling.trainer.checkpoint import check_trained, data_of, load_checkpoint, load_trainable, trainable_state
from recbole_xling.utils.plain_data import from_plain
from recbole_xling.utils.run_folder import MODEL_FILE, taking_from
from recbole_xling.utils.yaml_text import as_words

logger = logging.getLogger(__name__)


class Trained(NamedTuple):
    """A model file, read.

    Attributes:
        file: where it is.
        checkpoint: its content.
        settings: those of its run.
        data: what the model was trained on; None in files of earlier releases.
    """

    file: Path
    checkpoint: dict[str, Any]
    settings: dict[str, Any]
    data: DataIdentity | None


def read_trained(file: Path) -> Trained:
    """Read a model file.

    Raises:
        CheckpointError: it is missing or damaged.
    """
    checkpoint = load_checkpoint(file)
    with taking_from(file):
        settings = dict(from_plain(checkpoint["config"]))
        if not {"model", "dataset"} <= settings.keys():
            raise ValueError("its settings do not name a model and a dataset")
        return Trained(file, checkpoint, settings | earlier_defaults(settings), data_of(checkpoint))


def earlier_defaults(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a run of an earlier release did that its settings do not say, as there was no such setting."""
    by_text = "cold_exposure" in settings and "bias_by_history" not in settings
    return {"bias_by_history": False} if by_text else {}


# ---- settings -------------------------------------------------------------------------------------------------


_HARMLESS = frozenset({"dtype", "export", "file_name", "provider", "subfolder", "torch_dtype"})  # of model_kwargs


def _options_run_code(options: Any) -> bool:
    """Tell whether an encoder's options may let the library run code: that of the model, pickled weights, kernels."""
    if not isinstance(options, Mapping):
        return options is not None  # a text may be read as a dictionary later
    passed_on = options.get("model_kwargs") or {}
    return bool(options.get("trust_remote_code")) or not (
        isinstance(passed_on, Mapping) and passed_on.keys() <= _HARMLESS
    )


_TORCH_UNPICKLES = tuple(int(part) for part in torch.__version__.split(".")[:2]) < (2, 6)  # in torch.load, by default
_PRETRAINED = ("mf_pretrain_path", "mlp_pretrain_path", "pre_model_path", "pretrain_path", "warm_up")

# Settings with which libraries or RecBole's models run code that they find in a file or in the setting itself.
_RUNS_CODE: dict[str, Callable[[Any], bool]] = {
    "encoder_options": _options_run_code,
    "n_cate": lambda value: value != 1,  # LDiffRec unpickles item_emb.npy
    "teacher": lambda value: not str(value).isidentifier(),  # KD_DAGFM evaluates it as Python
    **dict.fromkeys(_PRETRAINED, lambda value: _TORCH_UNPICKLES and bool(value)),  # files that models load
}


def refuse_code(folder: str | os.PathLike[str], stored: Mapping[str, Any], own: Mapping[str, Any]) -> None:
    """Raise a ConfigError if the settings of a run folder, which may be anybody's, ask for code to be run.

    Args:
        folder: the run folder.
        stored: its settings.
        own: settings that the user gives; they may ask for everything.
    """
    for key, runs_code in _RUNS_CODE.items():
        if key in stored and key not in own and runs_code(stored[key]):
            raise ConfigError(
                f"the settings of the run '{folder}' would run code that is not part of this program, by {key}: "
                f"{stored[key]}. A run folder may not decide that: if you trust its source, give that setting yourself"
            )


def leave_out_places(config: XLingConfig, own: Mapping[str, Any]) -> None:
    """Leave out where else than in its folder a run wrote: a run folder, which may be anybody's, does not decide that.

    Args:
        config: a configuration that has the settings of a run folder.
        own: settings that the user gives; they stay.
    """
    cache = config["embedding_cache_dir"]
    if cache and "embedding_cache_dir" not in own and not Path(cache).is_dir():  # it would be made, perhaps anywhere
        config["embedding_cache_dir"] = None
    if config["log_wandb"] and "log_wandb" not in own:
        config["log_wandb"] = False
        logger.warning("the run logged to Weights & Biases, and goes on without it: give --log_wandb=True to log again")
    if config["log_mlflow"] and "log_mlflow" not in own:
        config["log_mlflow"] = False
        logger.warning("the run logged to MLflow, and goes on without it: give --log_mlflow=True to log again")


def settings_for(
    trained: Trained,
    dataset: str | None = None,
    config_dict: Mapping[str, Any] | None = None,
    arguments: Sequence[str] = (),
) -> XLingConfig:
    """Return a run's settings for a dataset; what it had from its own dataset's defaults is left to the other's.

    Args:
        trained: the run's model.
        dataset: name of the dataset; the run's own if not given.
        config_dict: settings that replace the run's.
        arguments: command-line arguments ``--key=value``, which replace them as well.

    Raises:
        ConfigError: a setting is wrong, is of another model, or would run code and is not the user's own.
    """
    stored, model_class = trained.settings, get_model(trained.settings["model"])
    own = current_names(config_dict or {}, model_class)
    settings = current_names(stored, model_class)
    dataset = dataset or own.get("dataset")
    if dataset not in (None, stored["dataset"]):
        defaults = dataset_defaults(stored["dataset"])
        settings = {key: value for key, value in settings.items() if key not in defaults or value != defaults[key]}
    lenient = {"allow_unknown_keys": True} if not own and not arguments else {}  # an old run may have other settings
    config = XLingConfig(stored["model"], dataset, config_dict=as_words(settings) | own | lenient, arguments=arguments)
    config["allow_unknown_keys"] = (settings | own).get("allow_unknown_keys", False)
    given = {**own, **config.cmd_config_dict}
    refuse_code(trained.file.parent, stored, given)
    config["log_wandb"] = False  # nothing is trained
    leave_out_places(config, given)
    if (asked := config.external_config_dict["model"]) != stored["model"]:
        raise ConfigError(f"the run's model is {stored['model']}: leave out model={asked}")
    return config


# ---- data and weights ----------------------------------------------------------------------------------------


def unchanged_data(config: XLingConfig, file: Path) -> DataIdentity | None:
    """Return the data of a run that is to go on; None if its release did not keep them.

    Args:
        config: the settings it goes on with.
        file: its ``last.pt``.

    Raises:
        CheckpointError: files are no longer as they were: two halves of a run would learn from different data.
    """
    state = load_checkpoint(file)
    with taking_from(file):
        known = data_of(state)
    if known is None:
        logger.warning("'%s' is of an earlier release, which did not keep ids: they cannot be checked", file)
    elif changed := changes(known.files, fingerprint(config)):
        raise CheckpointError(
            f"cannot resume '{file.parent}': its data have changed: {'; '.join(changed)}. Put the files of then back "
            "(data_path may be another folder), or start a new run"
        )
    return known


def data_to_go_on_from(config: XLingConfig) -> DataIdentity | None:
    """Return the data of the run that ``init_from`` names, whose ids keep their numbers; None if it names none.

    In a dataset of the run's name ids mean what they meant in the run, whatever interactions there are now.

    Raises:
        CheckpointError: the run is damaged.
        ConfigError: the setting does not name a run folder.
    """
    if not config["init_from"]:
        return None
    file = Path(config["init_from"]) / MODEL_FILE
    if not file.is_file():
        raise ConfigError(f"init_from: '{file.parent}' is not a run folder ({MODEL_FILE} is missing)")
    trained = read_trained(file)
    same = trained.settings["dataset"] == config["dataset"]
    return None if trained.data is None else replace(trained.data, same_ids=same)


def report_changes(trained: Trained, dataset: Any) -> None:
    """Log how the data differ from those of training."""
    known, name = dataset.trained_on, dataset.dataset_name
    if changed := changes(known.files, dataset.fingerprint):
        logger.warning("'%s' is not as it was when the run was trained: %s", name, "; ".join(changed))
    if new := known.new_tokens(dataset):
        logger.warning("'%s' has got more since: %s", name, _growth(known, new))
    for field in (dataset.uid_field, dataset.iid_field):
        gone = dataset.absent.get(field, ())
        if len(gone):
            logger.warning(
                "%d of %d %s of the run are not in '%s' as it is loaded (%s): numbers stay, but they are not ranked",
                len(gone),
                len(known.vocabulary[field]) - 1,
                field,
                name,
                some(known.vocabulary[field][gone]),
            )


def _growth(known: DataIdentity, new: Mapping[str, Any]) -> str:
    """Return the numbers of ids of training and of now, and some new ones."""
    return "; ".join(
        f"{field}: {len(known.vocabulary[field]) - 1:,} then, {len(known.vocabulary[field]) - 1 + len(tokens):,} now "
        f"(new: {some(tokens)})"
        for field, tokens in new.items()
    )


def restore_model(model: Any, trained: Trained, dataset: Any) -> None:
    """Give a new model the trained weights and what else the file remembers, and switch to evaluation.

    Args:
        model: built on ``dataset``.
        trained: what was trained.
        dataset: with the ids of training, or another one.

    Raises:
        CheckpointError: the weights are those of another model, dataset or encoder, or cannot serve ids that are new.
    """
    with taking_from(trained.file):
        check_trained(model, trained.settings, trained.data, dataset)
        _restore(model, trained, dataset)
    model.eval()
    with torch.no_grad():
        hooks_of(model).follow_settings(trained.settings)


def _restore(model: Any, trained: Trained, dataset: Any) -> None:
    weights, hooks = trained.checkpoint["state_dict"], hooks_of(model)
    if (known := dataset.trained_on) is not None:
        new = known.new_tokens(dataset)
        weights = hooks.extended(weights)
        grown = trainable_state(model)
        misfit = any(weights[name].shape != grown[name].shape for name in weights.keys() & grown.keys())
        is_sequential = model.type == ModelType.SEQUENTIAL  # these know users by their histories, or do not fit
        touched = dataset.iid_field in new or (dataset.uid_field in new and not is_sequential)
        reasons = hooks.bound_to_ids(dataset.config) if touched else []
        if new and (misfit or reasons):
            why = "; ".join(reasons) or "its weights have no place for them"
            raise CheckpointError(
                f"the run '{trained.file.parent}' cannot serve what '{dataset.dataset_name}' has got since: "
                f"{_growth(known, new)}. {why}. Train again, or use the files of then"
            )
    load_trainable(model, weights, trained.file)
    model.load_other_parameter(from_plain(trained.checkpoint["other_parameter"]))
