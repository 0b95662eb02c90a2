"""XLingConfig: RecBole's configuration, checked before anything runs."""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Mapping, Sequence
from enum import Enum
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import yaml
from recbole.config import Config
from recbole.evaluator import metric_types
from recbole.utils import dataset_arguments, evaluation_arguments, general_arguments, training_arguments
from recbole.utils.enum_type import EvaluatorType, ModelType

from recbole_xling.data.splits.settings import read_split
from recbole_xling.errors import ConfigError, unknown_name
from recbole_xling.text.view import TextView
from recbole_xling.utils.distributed import is_main_process
from recbole_xling.utils.paths import package_folder

# Read by RecBole's code, but in none of its lists and YAML files.
_UNLISTED = frozenset(
    """
    model dataset config_files data_path checkpoint_dir encoding transform enable_amp enable_scaler worker shuffle
    use_gpu wandb_project require_pow save_step convert_token_to_onehot token_num_threshold numerical_features
    discretization nproc world_size ip port offset local_rank
    """.split()
)
_UNLISTED_OF_RECBOLES_MODELS = frozenset(
    """
    double_tower embedding_size reg_weight kge_interval mask_ratio ft_ratio crop_eta tail_ratio
    beta eta pretrain_epochs train_rec_step train_kg_step n_dec_epochs n_enc_epochs m_step warm_up_step
    lgb_model lgb_params lgb_num_boost_round lgb_early_stopping_rounds xgb_model xgb_params xgb_num_boost_round
    xgb_early_stopping_rounds xgb_verbose_eval xgb_weight xgb_base_margin xgb_missing xgb_silent xgb_nthread
    """.split()
)


def _yaml_keys(file: Path) -> set[str]:
    if not file.is_file():
        return set()
    return set(re.findall(r"^([A-Za-z_][\w-]*)\s*:", file.read_text(encoding="utf-8"), flags=re.MULTILINE))


@lru_cache(maxsize=1)
def recbole_properties() -> Path:
    """Return the folder of RecBole's own default settings."""
    spec = find_spec("recbole")
    assert spec is not None and spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0]) / "properties"


def known_keys(model: str, dataset: str) -> set[str]:
    """Return every setting a run of ``model`` on ``dataset`` may carry."""
    ours = (package_folder("properties") / "model" / f"{model}.yaml").is_file()
    keys = set(_UNLISTED if ours else _UNLISTED | _UNLISTED_OF_RECBOLES_MODELS)
    keys.update(general_arguments, training_arguments, evaluation_arguments, dataset_arguments)
    for folder in (recbole_properties(), package_folder("properties")):
        files = [folder / "overall.yaml", folder / "model" / f"{model}.yaml", folder / "dataset" / "sample.yaml"]
        files.append(folder / "dataset" / f"{dataset}.yaml")
        files.extend(sorted((folder / "quick_start_config").glob("*.yaml")))
        for file in files:
            keys |= _yaml_keys(file)
    return keys


def load_defaults(config: Config, model: str, dataset: str) -> dict[str, Any]:
    """Read the defaults of recbole-xling for a model and a dataset: overall, then model, then dataset."""
    folder = package_folder("properties")
    defaults: dict[str, Any] = {}
    for file in (folder / "overall.yaml", folder / "model" / f"{model}.yaml", folder / "dataset" / f"{dataset}.yaml"):
        if file.is_file():
            defaults.update(yaml.load(file.read_text(encoding="utf-8"), Loader=config.yaml_loader) or {})
    return defaults


def data_set_defaults(dataset: str) -> dict[str, Any]:
    """Read the settings that RecBole's defaults, or ours, give for a dataset of that name; none for most."""
    defaults: dict[str, Any] = {}
    for folder in (recbole_properties(), package_folder("properties")):
        file = folder / "dataset" / f"{dataset}.yaml"
        if file.is_file():
            defaults.update(yaml.safe_load(file.read_text(encoding="utf-8")) or {})
    return defaults


def parse_literal(text: str) -> Any:
    """Turn ``"0.1"``, ``"[5, 10]"``, ``"true"``, ``"None"`` into values; anything else stays the string it is."""
    words = {"true": True, "false": False, "null": None, "~": None}
    if text.strip().lower() in words:
        return words[text.strip().lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text


_POSITIVE = ("epochs", "train_batch_size", "eval_batch_size", "MAX_ITEM_LIST_LENGTH", "accumulation_steps")
_NUMBERS = (
    "learning_rate",
    "weight_decay",
    "hidden_dropout_prob",
    "attn_dropout_prob",
    "id_dropout_prob",
    "cold_exposure",
)
_KINDS: tuple[tuple[str, type, str], ...] = (
    ("text_fields", list, "['title']"),
    ("encoder_options", dict, "{'dimension': 512}"),
    ("learning_rates", dict, "{'items.text_projection': 0.0003}"),
    ("load_col", dict, "{'inter': ['user_id', 'item_id', 'timestamp']}"),
)


class XLingConfig(Config):
    """RecBole's ``Config`` with this project's defaults and without its silent failures.

    Later sources win: RecBole's defaults, recbole-xling's (``properties/``), ``config_file_list``, ``config_dict``,
    ``arguments``. Any model may be named, RecBole's own included.

    Args:
        model: name or class of the model.
        dataset: name of the dataset.
        config_file_list: YAML files.
        config_dict: settings.
        arguments: command-line arguments ``--key=value``. ``sys.argv`` is never read.

    Raises:
        ConfigError: a setting is unknown (the nearest valid one is named; ``allow_unknown_keys: True`` lets it pass),
            malformed, or contradicts another one.
    """

    def __init__(
        self,
        model: str | type | None = None,
        dataset: str | None = None,
        config_file_list: Sequence[str | os.PathLike[str]] | None = None,
        config_dict: Mapping[str, Any] | None = None,
        arguments: Sequence[str] = (),
    ) -> None:
        self._arguments = list(arguments)
        try:
            super().__init__(model, dataset, config_file_list, dict(config_dict or {}))
        except ConfigError:
            raise
        except (KeyError, NotImplementedError, RuntimeError, TypeError, ValueError) as error:  # RecBole's own checks
            raise ConfigError(str(error.args[0]) if error.args else repr(error)) from error
        except yaml.YAMLError as error:
            raise ConfigError(f"a configuration file is not valid YAML: {error}") from error
        self._check()

    # ---- reading ----------------------------------------------------------------------------------------------

    def _build_yaml_loader(self) -> Any:
        """Return RecBole's loader, with dates left as text: settings are plain data."""
        base = super()._build_yaml_loader()
        resolvers = {
            first: [(tag, pattern) for tag, pattern in found if tag != "tag:yaml.org,2002:timestamp"]
            for first, found in base.yaml_implicit_resolvers.items()
        }
        return type("PlainLoader", (base,), {"yaml_implicit_resolvers": resolvers})

    def _load_config_files(self, file_list: Sequence[str | os.PathLike[str]] | None) -> dict[str, Any]:
        settings: dict[str, Any] = {}
        for file in file_list or []:
            if not Path(file).is_file():
                raise ConfigError(f"configuration file '{file}' does not exist (seen from {Path.cwd()})")
            content = yaml.load(Path(file).read_text(encoding="utf-8"), Loader=self.yaml_loader)
            if content is not None and not isinstance(content, dict):
                raise ConfigError(f"configuration file '{file}' must hold 'key: value' lines")
            settings.update(content or {})
        return settings

    def _load_cmd_line(self) -> dict[str, Any]:
        settings: dict[str, str] = {}
        for argument in self._arguments:
            key, equals, value = argument.removeprefix("--").partition("=")
            if not argument.startswith("--") or not equals or not key:
                raise ConfigError(f"argument '{argument}' is not understood; settings are written --key=value")
            if settings.get(key, value) != value:
                raise ConfigError(f"argument '--{key}' is given twice with different values")
            settings[key] = value
        return self._convert_config_dict(settings)

    def _convert_config_dict(self, config_dict: dict[str, Any]) -> dict[str, Any]:
        return {key: parse_literal(value) if isinstance(value, str) else value for key, value in config_dict.items()}

    def _load_internal_config_dict(self, model: str, model_class: type, dataset: str) -> None:
        super()._load_internal_config_dict(model, model_class, dataset)
        self.internal_config_dict.update(load_defaults(self, model, dataset))
        if self.internal_config_dict["MODEL_TYPE"] == ModelType.SEQUENTIAL:
            self.internal_config_dict["repeatable"] = True  # RecBole's sequential models accept nothing else
        self._check_keys(model, dataset)

    def _get_final_config_dict(self) -> dict[str, Any]:
        settings, chosen = super()._get_final_config_dict(), self.external_config_dict
        if isinstance(chosen.get("eval_args"), dict):  # RecBole would fill what is not given with a random split
            settings["eval_args"] = {**self.internal_config_dict["eval_args"], **chosen["eval_args"]}
        metric = settings.get("valid_metric")
        metrics = settings.get("metrics") or []
        metrics = [metrics] if isinstance(metrics, str) else list(metrics)
        topk = settings.get("topk") or []
        topk = [topk] if isinstance(topk, int) else list(topk)
        self._check_valid_metric(str(metric), [str(m).lower() for m in metrics], topk)
        takes_any_loss = not hasattr(self.model_class, "input_type")
        if takes_any_loss and settings.get("loss_type") == "CE" and "train_neg_sample_args" not in chosen:
            settings["train_neg_sample_args"] = None  # RecBole's CE models refuse its default sampling
        return settings

    # ---- checking ---------------------------------------------------------------------------------------------

    def _check_keys(self, model: str, dataset: str) -> None:
        if self.external_config_dict.get("allow_unknown_keys"):
            return
        known = known_keys(model, dataset) | set(self.internal_config_dict)
        for key in self.external_config_dict:
            if key not in known:
                near = unknown_name("setting", str(key), known).split(" Known:")[0]
                raise ConfigError(f"{near} (allow_unknown_keys: True passes settings of your own to a model)")

    @staticmethod
    def _check_valid_metric(valid_metric: str, metrics: list[str], topk: list[int]) -> None:
        name, at, k = valid_metric.lower().partition("@")
        for metric in metrics:
            if metric not in metric_types:
                raise ConfigError(unknown_name("metric", metric, metric_types))
        if name not in metrics:
            raise ConfigError(f"valid_metric '{valid_metric}' is not among metrics {metrics}: add it there")
        ranking = metric_types[name] == EvaluatorType.RANKING and name != "gauc"
        if ranking != bool(at):
            wanted = f"{valid_metric.partition('@')[0]}@{topk[0]}" if ranking else name
            raise ConfigError(f"valid_metric '{valid_metric}' must be written like '{wanted}'")
        if at and (not k.isdigit() or int(k) not in topk):
            raise ConfigError(f"valid_metric '{valid_metric}': {k or 'nothing'} is not among topk {topk}: add it there")

    def _check(self) -> None:
        for key in _POSITIVE:
            value = self[key]
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise ConfigError(f"{key} must be a whole number of at least 1, not {value!r}")
        for key, kind, example in _KINDS:
            if self[key] is not None and not isinstance(self[key], kind):
                raise ConfigError(f"{key} must be written like {example}, not {self[key]!r}")
        for key in _NUMBERS:
            value = self[key]
            if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
                raise ConfigError(f"{key} must be a number, not {value!r}")
        TextView(self["text_view"])
        in_time = read_split(self["eval_args"]["split"]) is not None or self["MODEL_TYPE"] == ModelType.SEQUENTIAL
        if in_time and self["eval_args"]["order"] != "TO":
            raise ConfigError("sequential models and splits GT, CI, LT need time order: eval_args={'order': 'TO'}")
        if not self["single_spec"] and set(self["eval_args"]["mode"].values()) != {"full"}:
            raise ConfigError("several processes evaluate by ranking all items only: eval_args={'mode': 'full'}")
        if self["save_dataset"] or self["save_dataloaders"]:
            raise ConfigError("save_dataset and save_dataloaders write pickles, which recbole-xling does not read")
        stride = self["train_stride"]
        if stride is not None and not 1 <= stride <= self["MAX_ITEM_LIST_LENGTH"]:
            raise ConfigError(f"train_stride must lie between 1 and MAX_ITEM_LIST_LENGTH, not {stride!r}")

    # ---- devices ----------------------------------------------------------------------------------------------

    def _init_device(self) -> None:
        """Choose the device; several processes without a GPU talk over gloo, which RecBole does not offer."""
        use_gpu = self.final_config_dict.get("use_gpu", True)
        if not use_gpu:
            self.final_config_dict["gpu_id"] = ""
        if "local_rank" not in self.final_config_dict or (use_gpu and torch.cuda.is_available()):
            super()._init_device()
            return
        settings = self.final_config_dict
        torch.distributed.init_process_group(
            backend="gloo",
            rank=settings["local_rank"] + settings["offset"],
            world_size=settings["world_size"],
            init_method=f"tcp://{settings['ip']}:{settings['port']}",
        )
        settings.update(device=torch.device("cpu"), single_spec=False, gpu_id="")
        if not is_main_process(self):
            settings.update(state="error", show_progress=False, verbose=False)


_DERIVED = frozenset(
    """
    MODEL_TYPE MODEL_INPUT_TYPE eval_type device valid_neg_sample_args test_neg_sample_args single_spec local_rank
    valid_metric_bigger run_dir resume dataset_save_path dataloaders_save_path
    """.split()
)


def plain_settings(config: Config) -> dict[str, Any]:
    """Return a configuration's settings as plain data: enough to build it again, here or from a YAML file."""
    plain = (str, int, float, bool, list, dict, tuple, type(None))
    settings: dict[str, Any] = {
        key: value
        for key, value in config.final_config_dict.items()
        if key not in _DERIVED and isinstance(value, plain) and not isinstance(value, Enum)
    }
    # RecBole appends the dataset's name to data_path, and replaces "no sampling" by words
    settings["data_path"] = config.external_config_dict.get("data_path") or config.internal_config_dict["data_path"]
    if settings["train_neg_sample_args"]["distribution"] == "none":
        settings["train_neg_sample_args"] = None
    return settings
