"""RecBole's settings: the types and ranges of all its keys, which RecBole itself hardly checks."""

from __future__ import annotations

import math
from functools import cache
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, create_model, field_validator, model_validator

from recbole_xling.config.defaults import recbole_model_defaults, recbole_models
from recbole_xling.errors import ConfigError
from recbole_xling.utils.typed_config import TypedConfig

Count = Annotated[int, Field(ge=0)]
Size = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]
NotNegative = Annotated[float, Field(ge=0)]
Name = Annotated[str, Field(min_length=1)]


def _with_commas(value: Any) -> Any:
    """Return whole numbers as RecBole wants several of them: a text such as ``0,1``."""
    numbers = value if isinstance(value, list | tuple) else [value]
    whole = all(isinstance(number, int) and not isinstance(number, bool) for number in numbers)
    return ",".join(map(str, numbers)) if whole else value


class RecBoleConfig(TypedConfig):
    """RecBole's general, training, evaluation and dataset settings; their defaults are RecBole's."""

    # ---- general
    model: Name
    dataset: Name
    gpu_id: str
    use_gpu: bool
    seed: int = Field(ge=0, lt=2**32)
    reproducibility: bool
    state: Literal["debug", "info", "warning", "error", "critical"]
    checkpoint_dir: Name
    show_progress: bool
    save_dataset: bool
    dataset_save_path: str | None
    save_dataloaders: bool
    dataloaders_save_path: str | None
    log_wandb: bool
    wandb_project: str
    worker: Count
    shuffle: bool

    # ---- training
    epochs: Count
    train_batch_size: Size
    learner: Literal["adam", "adamw", "sgd", "adagrad", "rmsprop", "sparse_adam"]
    learning_rate: float = Field(gt=0)
    train_neg_sample_args: dict[str, Any] | None = Field(examples=[{"distribution": "uniform", "sample_num": 1}])
    eval_step: Count
    stopping_step: Count
    clip_grad_norm: dict[str, Any] | None = Field(examples=[{"max_norm": 5}])
    weight_decay: NotNegative
    loss_decimal_place: Count
    require_pow: bool
    enable_amp: bool
    enable_scaler: bool
    transform: Literal["mask_itemseq", "inverse_itemseq", "crop_itemseq", "reorder_itemseq", "user_defined"] | None

    # ---- evaluation
    eval_batch_size: Size
    repeatable: bool
    valid_metric_bigger: bool
    metric_decimal_place: Count

    # ---- data
    field_separator: Name
    seq_separator: Name
    USER_ID_FIELD: Name
    ITEM_ID_FIELD: Name
    RATING_FIELD: Name
    TIME_FIELD: Name
    LABEL_FIELD: Name
    NEG_PREFIX: Name
    ITEM_LIST_LENGTH_FIELD: Name
    LIST_SUFFIX: Name
    POSITION_FIELD: Name
    HEAD_ENTITY_ID_FIELD: Name
    TAIL_ENTITY_ID_FIELD: Name
    RELATION_ID_FIELD: Name
    ENTITY_ID_FIELD: Name
    MAX_ITEM_LIST_LENGTH: Size
    seq_len: dict[str, Size] | None = Field(examples=[{"title": 10}])
    threshold: dict[str, float] | None = Field(min_length=1, max_length=1, examples=[{"rating": 4}])
    numerical_features: list[str] | None
    discretization: dict[str, Any] | None
    load_col: dict[str, Any] | None = Field(examples=[{"inter": ["user_id", "item_id", "timestamp"]}])
    unload_col: dict[str, list[str]] | None = Field(examples=[{"inter": ["rating"]}])
    unused_col: dict[str, list[str]] | None = Field(examples=[{"inter": ["rating"]}])
    additional_feat_suffix: list[str] | None = Field(examples=[["ent"]])
    rm_dup_inter: Literal["first", "last"] | None
    val_interval: dict[str, Any] | None = Field(examples=[{"rating": "[3,inf)"}])
    filter_inter_by_user_or_item: bool
    user_inter_num_interval: str | None
    item_inter_num_interval: str | None
    entity_kg_num_interval: str | None = None
    relation_kg_num_interval: str | None = None
    kg_reverse_r: bool | None = None
    alias_of_user_id: list[str] | None = Field(examples=[["friend_id"]])
    alias_of_item_id: list[str] | None = Field(examples=[["other_id"]])
    alias_of_entity_id: list[str] | None = Field(examples=[["other_id"]])
    alias_of_relation_id: list[str] | None = Field(examples=[["other_id"]])
    preload_weight: dict[str, str] | None = Field(examples=[{"item_id": "item_vector"}])
    normalize_field: list[str] | None = Field(examples=[["rating"]])
    normalize_all: bool | None
    benchmark_filename: list[str] | None = Field(examples=[["train", "valid", "test"]])

    @field_validator("gpu_id", mode="before")
    @classmethod
    def _devices(cls, value: Any) -> Any:
        text = _with_commas(value)
        if isinstance(text, str) and text.startswith("[") and text.endswith("]"):  # a list that was typed
            text = text[1:-1]
        if isinstance(text, str) and all(number.strip().isdigit() for number in text.split(",") if text.strip()):
            return text
        raise ConfigError(f"gpu_id must be numbers of GPUs such as 0 or '0,1', not {value!r}")

    @field_validator("state", "learner", mode="before")
    @classmethod
    def _in_small_letters(cls, value: Any) -> Any:
        return value.lower() if isinstance(value, str) else value

    @field_validator("additional_feat_suffix", mode="before")
    @classmethod
    def _one_is_a_list(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @field_validator("train_neg_sample_args", mode="before")
    @classmethod
    def _sampling(cls, value: Any) -> Any:
        if value == "None" or (isinstance(value, dict) and value.get("distribution") in ("none", "None")):
            return None
        return _part("train_neg_sample_args", SamplingConfig, value)

    @field_validator("clip_grad_norm")
    @classmethod
    def _norm(cls, value: Any) -> Any:
        return _part("clip_grad_norm", ClippingConfig, value)

    @field_validator("load_col")
    @classmethod
    def _columns(cls, value: Any) -> Any:
        for suffix, columns in (value or {}).items():
            if columns != "*" and not (isinstance(columns, list) and all(isinstance(name, str) for name in columns)):
                raise ConfigError(f"load_col[{suffix!r}] must be a list of columns or '*' for all, not {columns!r}")
        return value

    @field_validator("val_interval")
    @classmethod
    def _values(cls, value: Any) -> Any:
        for column, wanted in (value or {}).items():
            if not isinstance(wanted, list):  # the values to keep
                _interval(f"val_interval[{column!r}]", wanted)
        return value

    @field_validator("user_inter_num_interval", "item_inter_num_interval", mode="before")
    @classmethod
    def _numbers(cls, value: Any, info: Any) -> Any:
        if isinstance(value, list):  # [5,10] is a list in YAML
            value = f"[{','.join(map(str, value))}]"
        if isinstance(value, str):
            value = "".join(value.split())
        if value is not None:
            _interval(info.field_name, value)
        return value

    @field_validator("entity_kg_num_interval", "relation_kg_num_interval", mode="before")
    @classmethod
    def _numbers_of_graph(cls, value: Any, info: Any) -> Any:
        return cls._numbers(value, info)


class SamplingConfig(TypedConfig):
    """``train_neg_sample_args``."""

    distribution: Literal["uniform", "popularity"] | None = "uniform"
    sample_num: Size = 1
    alpha: float = 1.0
    dynamic: bool = False
    candidate_num: Count = 0


class ClippingConfig(TypedConfig):
    """``clip_grad_norm``: arguments of torch's function of that name."""

    max_norm: float = Field(gt=0)
    norm_type: float = Field(2.0, gt=0)
    error_if_nonfinite: bool = False
    foreach: bool | None = None


def _part(name: str, kind: type[TypedConfig], value: Any) -> Any:
    """Check the keys and values of a setting that is a dictionary."""
    if isinstance(value, dict):
        try:
            kind(**{str(key): part for key, part in value.items()})
        except ConfigError as error:
            raise ConfigError(f"{name}: {str(error).splitlines()[0]}") from error
    return value


def _interval(name: str, value: Any) -> None:
    """Check RecBole's way to write an interval, such as ``[3,inf)``; several are separated by semicolons."""
    pairs = value.split(";") if isinstance(value, str) else []
    for pair in pairs:
        pair = pair.strip()
        try:
            low, high = map(float, pair[1:-1].split(","))
        except ValueError:
            break
        if pair[0] not in "[(" or pair[-1] not in "])" or not low <= high or (math.isinf(low) and low > 0):
            break
    else:
        if pairs:
            return
    raise ConfigError(f"{name} must be an interval such as '[3,inf)' or '(0,5]', not {value!r}")


# ---- RecBole's models -----------------------------------------------------------------------------------------

# Defaults that are whole numbers, of settings that need not be.
_REAL = frozenset(
    """
    reg_weight negative_weight global_ratio spatial_ratio topk_factor w_max q dropout_prob hidden_dropout_prob
    """.split()
)
# Settings that take values of several types.
_ANYTHING = frozenset(["use_proj_bias", "xgb_verbose_eval"])
_TYPES: dict[str, Any] = {
    "hidden_act": Literal["gelu", "relu", "swish", "tanh", "sigmoid"],
    "reranker_CAN_NUM": Annotated[str, BeforeValidator(_with_commas)],
}
_SIZES = ("_size", "_heads", "_dim", "latent_dimension", "hidden_dimension")


class _RecBoleModelConfig(TypedConfig):
    @model_validator(mode="after")
    def _heads_divide_the_size(self) -> _RecBoleModelConfig:
        heads = next((name for name in ("n_heads", "num_heads") if name in type(self).model_fields), None)
        sizes = ("hidden_size", "attention_size", "embedding_size")
        size = next((name for name in sizes if name in type(self).model_fields), None)
        if heads and size and getattr(self, size) % getattr(self, heads):
            raise ConfigError(f"{size} ({getattr(self, size)}) must be a multiple of {heads} ({getattr(self, heads)})")
        return self


@cache
def recbole_model_settings(model: str) -> type[TypedConfig] | None:
    """Derive types and ranges of the settings of one of RecBole's models from their defaults; None for other models."""
    if model not in recbole_models():
        return None
    known = RecBoleConfig.model_fields
    fields: dict[str, Any] = {
        name: (_type_of(name, default), default)
        for name, default in recbole_model_defaults(model).items()
        if name not in known and name.isidentifier()
    }
    return create_model(f"{model}Config", __base__=_RecBoleModelConfig, **fields)


def _type_of(name: str, default: Any) -> Any:
    """Return the type of a model's setting whose default is known, with its range as far as the name tells it."""
    if default is None or name in _ANYTHING:
        return Any
    if name in _TYPES:
        return _TYPES[name]
    if isinstance(default, list):
        return list[_type_of(name, default[0])] if default else list[Any]  # type: ignore[misc]
    if isinstance(default, dict):
        return dict[str, Any]
    if isinstance(default, bool | str):
        return type(default) if default != "None" else str | None
    if isinstance(default, int) and name not in _REAL:
        return int if default < 0 else Size if name.endswith(_SIZES) else Count
    if "drop" in name or name.endswith("_prob"):
        return Share
    if name == "temperature" or "tau" in name or name.endswith("_temp"):
        return Annotated[float, Field(gt=0)]
    positive = any(word in name for word in ("weight", "reg", "ratio", "eps", "range", "noise"))
    return NotNegative if positive else float
