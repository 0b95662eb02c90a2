"""AuxiliaryTasks: what a user's state is to tell besides the next item, and how much each task counts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, field_validator
from torch import Tensor, nn

from recbole_xling.data.columns import item_values
from recbole_xling.errors import ConfigError, DataError
from recbole_xling.language.tags import UNDETERMINED
from recbole_xling.utils.typed_config import TypedConfig

LANGUAGE = "language"
"""The name in ``auxiliary_fields`` of the language of an item's display text."""

_MOST_VALUES = 1024
NEXT_ITEM, ALIGNMENT = "next_item", "alignment"


class AuxiliaryTasksConfig(TypedConfig):
    """What users' states are to tell besides the next item."""

    section: ClassVar[str] = "auxiliary tasks"

    auxiliary_fields: list[str] | None = Field(
        None,
        description="What to predict of the next item as well: `language` (of its display text), columns of `.item`.",
        examples=[["language", "category"]],
    )
    auxiliary_weight: float = Field(0.1, gt=0, description="Weight of each of these tasks; that of the next item is 1.")
    task_weights: Literal["fixed", "uncertainty"] = Field(
        "fixed", description="Keep the weights of tasks, or start from them and learn them (homoscedastic uncertainty)."
    )

    @field_validator("auxiliary_fields")
    @classmethod
    def _each_once(cls, value: list[str] | None) -> list[str] | None:
        if value and len(set(value)) < len(value):
            raise ConfigError(f"auxiliary_fields names something twice: {', '.join(value)}")
        return value


class AuxiliaryTasks(nn.Module):
    """Linear classifiers of users' states, and weights of all tasks of a model.

    With ``task_weights: uncertainty`` the loss of a task is multiplied by ``exp(-s)``, and ``s / 2`` is added; ``s`` is
    a learned logarithm of its variance (Kendall, Gal & Cipolla, "Multi-Task Learning Using Uncertainty to Weigh Losses
    for Scene Geometry and Semantics", CVPR 2018); it starts where ``exp(-s)`` is the fixed weight.

    Classifiers have the same size on every dataset, so that trained weights load everywhere; they take no part in
    scoring.

    Args:
        settings: fields and weights.
        dataset: the training split; without interactions nothing is trained, and no column is read.
        size: of users' states.
        others: weights of the model's other tasks by name; those of weight 0 are none.

    Raises:
        ConfigError: a column does not exist or is no column of tokens, or there is one task only to be weighed.
        DataError: items have too few or too many different values.
    """

    def __init__(self, settings: AuxiliaryTasksConfig, dataset: Any, size: int, others: Mapping[str, float]) -> None:
        super().__init__()
        self.fields = tuple(settings.auxiliary_fields or ())
        weights = {name: weight for name, weight in others.items() if weight}
        # a column may have the name of a task
        weights |= {f"field_{number}": settings.auxiliary_weight for number in range(len(self.fields))}
        self._weights = weights
        self.log_variance: nn.ParameterDict | None = None
        if settings.task_weights == "uncertainty":
            if len(weights) < 2:
                raise ConfigError(
                    "task_weights=uncertainty weighs several tasks, but there is one only: set auxiliary_fields"
                )
            starts = {name: nn.Parameter(torch.tensor(-math.log(weight))) for name, weight in weights.items()}
            self.log_variance = nn.ParameterDict(starts)
        self.classifiers = nn.ModuleList(nn.Linear(size, _MOST_VALUES) for _ in self.fields)
        self.n_values: list[int] = []
        if len(dataset.inter_feat):
            for number, field in enumerate(self.fields):
                classes = _classes(dataset, field)
                self.register_buffer(f"classes_{number}", classes, persistent=False)
                self.n_values.append(int(classes.max()))

    def weighed(self, name: str, loss: Tensor) -> Tensor:
        """Return the loss of a task multiplied by its weight."""
        return loss * (self._weights[name] if self.log_variance is None else torch.exp(-self.log_variance[name]))

    def penalty(self) -> Tensor | float:
        """Return what keeps learned weights from vanishing, once per batch."""
        return 0.0 if self.log_variance is None else sum(self.log_variance.values()) / 2

    def forward(self, states: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        """Return the weighed cross entropies of all classifiers, a scalar; 0 if there are none.

        Args:
            states: ``(N, D)`` users.
            target: ``(N,)`` items that they chose next; those without a value do not count.
            weight: ``(N,)`` of the positions in the loss.
        """
        total = states.new_zeros(())
        for number, classifier in enumerate(self.classifiers):
            label, n_values = self.get_buffer(f"classes_{number}")[target] - 1, self.n_values[number]
            assert isinstance(classifier, nn.Linear)
            logits = F.linear(states, classifier.weight[:n_values], classifier.bias[:n_values]).float()  # (N, values)
            error = F.cross_entropy(logits, label, ignore_index=-1, reduction="none")  # (N,), 0 without a value
            total = total + self.weighed(f"field_{number}", (error * weight).sum())
        return total


def _classes(dataset: Any, field: str) -> Tensor:
    """Return the number of each item's value, from 1; 0 where it has none, ``(n_items,)``."""
    catalog = dataset.catalog
    if field == LANGUAGE:
        cells = ["" if tag == UNDETERMINED else tag for tag in catalog.languages]
    else:
        cells = item_values(dataset.config, field, catalog.tokens)
    cells = ["", *cells[1:]]  # the padding item
    number = {value: number for number, value in enumerate(sorted(set(cells) - {""}), start=1)}
    if not 1 < len(number) <= _MOST_VALUES:
        raise DataError(
            f"auxiliary_fields: {len(number):,} different values of '{field}' in '{dataset.dataset_name}'; there must "
            f"be at least 2 and at most {_MOST_VALUES:,}: leave it out"
        )
    return torch.tensor([number.get(value, 0) for value in cells])
