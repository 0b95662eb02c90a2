"""What the trainer and the evaluation ask of a model beyond RecBole's interface, with a default for each question."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field, model_validator
from recbole.data.interaction import Interaction
from recbole.model.abstract_recommender import SequentialRecommender
from recbole.utils import InputType
from torch import Tensor, nn

from recbole_xling.data.item_vectors import averaged
from recbole_xling.errors import ConfigError
from recbole_xling.evaluator.streaming import Factors
from recbole_xling.utils.typed_config import TypedConfig


class WindowsConfig(TypedConfig):
    """How histories become training rows: for every model that is trained on this package's dataset."""

    section: ClassVar[str] = "training windows"

    train_stride: int | None = Field(
        None, ge=1, description="New targets per training window; half `MAX_ITEM_LIST_LENGTH` if not set."
    )
    language_temperature: float = Field(
        1.0,
        gt=0,
        description="Temperature T of sampling: a language with n targets has a share of n^(1/T) of an epoch.",
    )
    language_temperature_end: float | None = Field(
        None, gt=0, description="Temperature of the last epoch, to which it changes evenly; constant if not set."
    )
    language_weights: Literal["none", "inverse", "effective"] = Field(
        "none", description="Weights of languages in the loss, by the number of their targets or its effective number."
    )
    language_weight_beta: float = Field(0.999, gt=0, lt=1, description="Beta of the `effective` number of targets.")
    train_history: Literal["sequence", "set"] = Field(
        "sequence", description="Train histories in their order, or as sets, each epoch in another random order."
    )
    history_crop: float = Field(
        0.0, ge=0, le=1, description="Chance that a training history is cut in two, each piece trained by itself."
    )
    history_mask: float = Field(
        0.0, ge=0, lt=1, description="Share of the items of training histories that are hidden, except their first."
    )
    history_reorder: float = Field(
        0.0, ge=0, le=1, description="Share of each training history that is shuffled, a stretch of it."
    )

    @model_validator(mode="after")
    def _reordered_once(self) -> WindowsConfig:
        if self.train_history == "set" and self.history_reorder:
            raise ConfigError("train_history=set shuffles histories as a whole already: set history_reorder to 0")
        return self

    @model_validator(mode="after")
    def _balanced_once(self) -> WindowsConfig:
        sampled = self.language_temperature != 1 or self.language_temperature_end not in (None, 1)
        if sampled and self.language_weights != "none":
            raise ConfigError(
                f"language_temperature and language_weights={self.language_weights} both favor small languages: set one"
            )
        return self


# as RecBole's models call them; what only training reads, such as weights of losses, may change
_OF_NETWORKS = (
    "n_heads num_heads hidden_act hid_activation mlp_act_func layer_norm_eps n_layers num_layers step lightgcn_layer "
    "n_hops n_hop context_hops n_iterations neighbor_sample_size aggregator aggregator_type pooling_mode pooling_type "
    "pooling_type_layer_1 pooling_type_layer_2 history_len global_ratio spatial_ratio"
).split()


class ModelHooks:
    """The optional hooks of a model; a model overrides those that it needs.

    Sequential models inherit from :class:`XLingRecommender`. For another kind of model this class goes before
    RecBole's: ``class MyModel(ModelHooks, GeneralRecommender)``.

    Attributes:
        config_class: type of the model's settings; None if they are not typed.
        ranks_without_history: whether the model can score a user whose history has length 0.
        trains_on_host: whether ``calculate_loss`` reads its batches on the CPU, and moves to the model's device what it
            makes of them; else it gets them there.
        scores_pairs: whether each pair of a history and an item costs a pass of its own: where candidates are few,
            ``predict`` scores them then, and not ``full_sort_predict`` all items.
        knows_languages_alone: whether all that the model knows of a user, besides a history, is his language.
        optional_parts: prefixes that ``learning_rates`` may name although some settings leave these parts out.
        warm_start_parts: name of a setting that names an earlier run -> submodule that starts from its weights.
    """

    config_class: ClassVar[type[Any] | None] = None
    ranks_without_history: ClassVar[bool] = False
    trains_on_host: ClassVar[bool] = False
    scores_pairs: ClassVar[bool] = False
    knows_languages_alone: bool = False
    optional_parts: ClassVar[tuple[str, ...]] = ()
    warm_start_parts: ClassVar[Mapping[str, str]] = {}

    @classmethod
    def network_settings(cls, config: Any) -> list[str]:
        """Return the settings that leave no trace in the shapes of weights, which mean nothing with other values.

        Args:
            config: the configuration, which decides what is in use.
        """
        return [] if cls.config_class is not None else [key for key in _OF_NETWORKS if key in config]

    @classmethod
    def idle_settings(cls, config: Any) -> list[str]:
        """Return the settings that change nothing beside the other ones; a run warns of those that are set.

        Args:
            config: the configuration.
        """
        return []

    @classmethod
    def bound_to_data(cls, config: Any) -> list[str]:
        """Return why trained weights mean nothing on another dataset; an empty list lets them be used there.

        Args:
            config: the configuration of the evaluation.
        """
        return [f"{config['model']} learns from ids, or does not say otherwise (class method bound_to_data)"]

    @classmethod
    def bound_to_ids(cls, config: Any) -> list[str]:
        """Return why a trained model cannot serve items that its dataset has got since; an empty list if it can.

        Args:
            config: the configuration of now.
        """
        return cls.bound_to_data(config)

    def extended(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return trained weights in the shapes of this model, which may be built for more items and languages.

        The ids of training keep their rows; new ones come after them.

        Args:
            weights: trained weights by name.
        """
        return dict(weights)

    def go_on_from(self, other_parameter: Mapping[str, Any]) -> bool:
        """Take over what an earlier run remembers besides weights, to train on with the items and users of now.

        The ids of the earlier run keep their numbers; new ones come after them.

        Args:
            other_parameter: what the earlier run's model returned from ``other_parameter()``.

        Returns:
            False if the model's ``load_other_parameter`` does it, as when the model is loaded.
        """
        return False

    def check_warm_start(self, part: str, other_parameter: Mapping[str, Any]) -> None:
        """Refuse the weights of an earlier run where they do not fit.

        Args:
            part: the submodule that is to get them, a value of ``warm_start_parts``.
            other_parameter: what the earlier run's model returned from ``other_parameter()``.

        Raises:
            CheckpointError: the weights do not fit.
        """

    def factors(self, interaction: Interaction) -> list[tuple[Tensor, Factors]] | None:
        """Return the vectors whose inner products are the scores of ``full_sort_predict``; None if they are not such.

        With them a catalog of any size is ranked in little memory.

        Args:
            interaction: a batch of ``B`` rows.

        Returns:
            For each group of rows that share item vectors their places in the batch, ``(n,)``, and their factors; each
            row is in one group.
        """
        return None

    def item_table(self, view: int = 0) -> Tensor | None:
        """Return the vectors of all items, ``(n_items, size)``; None if the model has none by which it knows them.

        Args:
            view: of evaluation, in which users see other texts of the items.
        """
        return None

    def history_vectors(self, view: int = 0) -> Tensor | None:
        """Return the vectors of all items by which :meth:`user_of_vectors` reads histories, ``(n_items, size)``.

        None if users are not made of vectors of items.

        Args:
            view: of evaluation.
        """
        return None

    def vectors_of_texts(
        self, texts: Sequence[str], languages: Sequence[str], encode: Callable[[Sequence[str]], Tensor]
    ) -> Tensor | None:
        """Return vectors of texts that no item has, as :meth:`history_vectors` has those of items, ``(n, size)``.

        None if items are more to the model than their texts.

        Args:
            texts: to be read.
            languages: of the texts, ``und`` where unknown.
            encode: returns the vectors of texts by the encoder that the settings name, ``(n, dimension)``.
        """
        return None

    def vectors_of_items(
        self,
        texts: Sequence[Sequence[str]],
        languages: Sequence[Sequence[str]],
        encode: Callable[[Sequence[str]], Tensor],
    ) -> Tensor | None:
        """Return vectors of items that training did not have, ``(n, size)``, as :meth:`vectors_of_texts` does.

        An item of several texts has the mean of their vectors by the encoder, as the catalog's items have.

        Args:
            texts: the different texts of each, at least one.
            languages: theirs.
            encode: as for :meth:`vectors_of_texts`.
        """

        def mean(_: Sequence[str]) -> Tensor:
            n_texts = max(len(of_item) for of_item in texts)
            flat = encode([text for of_item in texts for text in of_item])
            row, place = np.zeros((n_texts, len(texts)), dtype=np.int64), 1
            for item, of_item in enumerate(texts):
                row[: len(of_item), item] = np.arange(place, place + len(of_item))
                place += len(of_item)
            padded = np.concatenate([np.zeros((1, flat.shape[1]), np.float32), flat.float().cpu().numpy()])
            vectors, (chosen,) = averaged(padded, row)
            return torch.from_numpy(vectors[chosen]).to(flat)

        return self.vectors_of_texts([of_item[0] for of_item in texts], [tags[0] for tags in languages], mean)

    def scores_of_new(self) -> tuple[int, float] | None:
        """Return how items that training did not have are scored by their vectors (:meth:`vectors_of_items`).

        None if they are not, else how many of the first numbers of such a vector do not count, and the bias that is
        added to the inner product of the others and a user.
        """
        return None

    def known_items(self) -> Tensor | None:
        """Return which items make the bias of scores count for those who have them in their history, ``(n_items,)``.

        None if it counts alike for all (:func:`~recbole_xling.serve.vectors.bias_weight`).
        """
        return None

    def user_of_vectors(
        self, items: Tensor, item_seq_len: Tensor, item_language: Tensor, user_language: Tensor
    ) -> Tensor:
        """Return the users of :meth:`factors`, ``(B, D)``, by the vectors of their histories alone.

        Export writes this as a graph of ONNX, so it must not choose rows by a mask.

        Args:
            items: ``(B, L, size)``, oldest first; padded on the right.
            item_seq_len: ``(B,)`` number of items.
            item_language: ``(B, L)`` numbers of languages (:mod:`recbole_xling.model.layers.language_embedding`).
            user_language: ``(B,)`` the same of what users state.
        """
        raise NotImplementedError

    def attention_of_vectors(self, items: Tensor, item_seq_len: Tensor, item_language: Tensor) -> Tensor | None:
        """Return how much of a user's attention each item of his history has, ``(B, L)``; rows sum to 1.

        None if the model has no attention. Arguments as of :meth:`user_of_vectors`.
        """
        return None

    def check_full_ranking(self, n_rows: int) -> None:
        """Refuse to rank all items where that would take too long: called before training, and before it begins.

        Args:
            n_rows: histories for which all items are to be ranked.

        Raises:
            ConfigError: they are too many.
        """

    def compiled_parts(self) -> list[nn.Module]:
        """Return the modules that ``torch_compile`` compiles: those that take most of a step's time."""
        return []

    def take_sparse_gradients(self) -> list[nn.Parameter]:
        """Let the gradients of embeddings have the rows of a batch alone, where the model can.

        Called before the optimizer is built, where that one can make use of it.

        Returns:
            Those parameters whose gradients are sparse now.
        """
        return []

    def begin_training(self, total_steps: int, step: int) -> None:
        """Prepare for training: called once, before the first epoch.

        Args:
            total_steps: optimizer steps of all epochs.
            step: how many of them are done already, more than 0 in a resumed run.
        """

    def end_step(self, step: int) -> None:
        """Follow optimizer step ``step``, counted from 0: called before the gradients are cleared."""

    def end_epoch(self, epoch: int) -> None:
        """Derive from the weights what scoring needs.

        Called after each training epoch, in evaluation mode and without gradients, before the model is validated and
        saved.
        """

    def follow_settings(self, before: Mapping[str, Any]) -> None:
        """Derive again what follows from settings that are not those of training.

        Called when a trained model is loaded, in evaluation mode and without gradients.

        Args:
            before: the settings of training.
        """


class XLingRecommender(ModelHooks, SequentialRecommender):
    """Base class of sequential models that train on windows of histories.

    A subclass defines ``calculate_loss``, whose batches :class:`~recbole_xling.data.loader.WindowLoader` makes,
    ``predict``, which gives one score of each row, and for all scores either ``factors`` or ``full_sort_predict``.
    """

    input_type = InputType.POINTWISE

    def full_sort_predict(self, interaction: Interaction) -> Tensor:
        """Score all items per history, ``(B, n_items)``; the padding item gets minus infinity."""
        groups = self.factors(interaction)
        if groups is None:
            raise NotImplementedError(f"{type(self).__name__} defines neither factors nor full_sort_predict")
        scores = None
        for rows, factors in groups:
            part = factors.scores
            if len(groups) == 1:
                scores = part
            else:
                scores = part.new_empty(len(interaction), part.shape[1]) if scores is None else scores
                scores[rows] = part
        assert scores is not None
        scores[:, 0] = float("-inf")
        return scores


def hooks_of(model: Any) -> ModelHooks:
    """Return the hooks of any model, so that nobody else has to ask what a model defines.

    A model that inherits from :class:`ModelHooks` is returned as it is. RecBole's own models, and users' models that
    extend only RecBole's classes, get the defaults, except for the hooks that they define by name.

    Args:
        model: a model, or the class of one for what can be asked before it is built.
    """
    if isinstance(model, ModelHooks):
        return model
    hooks = ModelHooks()
    for name in vars(ModelHooks):
        if not name.startswith("_") and hasattr(model, name):
            setattr(hooks, name, getattr(model, name))
    return hooks
