"""Going on from an earlier run on newer data: ids matched by token, and new rows for users and items that are new."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recbole_xling.data.identity import DataIdentity
from recbole_xling.data.pinned_ids import PinnedIds
from recbole_xling.errors import CheckpointError
from recbole_xling.model.base import hooks_of
from recbole_xling.model.layers.language_embedding import languages_kept
from recbole_xling.trainer.checkpoint import check_trained, data_of, load_trainable, trainable_state
from recbole_xling.utils.plain_data import from_plain
from recbole_xling.utils.run_folder import taking_from

Matches = dict[str, dict[str, int]]
"""How many items and users are ``matched``, ``new`` and ``gone``, by field."""


class Continuation:
    """What a model gets from an earlier run of it.

    Args:
        file: the earlier run's ``model.pt``.
        checkpoint: its content.
        model: of now, not trained yet.
        dataset: its training split. Numbers of ids are those of the run where it was built with
            ``trained_on`` (:class:`~recbole_xling.data.pinned_ids.PinnedIds`).
        config: the configuration.

    Attributes:
        matches: how many ids are the run's; empty where the data or the run do not know their ids.
        weights: in the shapes of the model of now.

    Raises:
        CheckpointError: the weights are those of another model, or cannot be used with the items and users of now.
    """

    def __init__(self, file: Path, checkpoint: Mapping[str, Any], model: Any, dataset: Any, config: Any) -> None:
        self._file, self._checkpoint, self._model, self._dataset = file, checkpoint, model, dataset
        self._trains = config["epochs"] > 0
        if checkpoint["model"] != config["model"]:
            raise CheckpointError(f"checkpoint '{file}' is of {checkpoint['model']}, not of {config['model']}")
        with taking_from(file):
            known = data_of(dict(checkpoint))
            check_trained(model, from_plain(checkpoint["config"]), known, dataset)
        self.matches: Matches = {}
        self._new: dict[str, int] = {}  # number of new ids of each field, also of columns
        self._reasons: list[str] = []
        if known is not None and isinstance(dataset, PinnedIds):
            self.matches = _matches(known, dataset)
            self._number(known, config)
            self._reasons = hooks_of(model).bound_to_ids(config)
        with taking_from(file):
            weights = hooks_of(model).extended(checkpoint["state_dict"])
            self.weights = _grown(weights, trainable_state(model), known, dataset) if self._new else weights

    def _number(self, known: DataIdentity, config: Any) -> None:
        """Find what is new, or refuse where ids of the run have other numbers now."""
        try:
            self._new = {field: len(tokens) for field, tokens in known.new_tokens(self._dataset).items()}
        except CheckpointError as error:
            if self._dataset.trained_on is None and hooks_of(self._model).bound_to_data(config):
                raise self._refusal(
                    "hardly an interaction of the run's is in these data, so the same ids may mean others. If they "
                    "mean the same, give the dataset the name that the run's had (its folder may be another)"
                ) from None
            if self._dataset.trained_on is not None:  # what a knowledge graph adds is numbered after the items
                raise self._refusal(str(error)) from error
        if self._dataset.iid_field in self._new and hasattr(self._model, "mask_token"):
            raise self._refusal("its mask token has the number after the last item, which is another one now")

    def _refusal(self, why: str) -> CheckpointError:
        return CheckpointError(
            f"init_from: '{self._file.parent}' cannot go on with '{self._dataset.dataset_name}' "
            f"({told(self.matches)}): {why}"
        )

    def load(self) -> None:
        """Give the model the weights and what else the run remembers.

        Raises:
            CheckpointError: they do not fit.
        """
        with taking_from(self._file):
            other = dict(from_plain(self._checkpoint["other_parameter"]) or {})
            if self._new:  # what graph models of RecBole keep of their last evaluation, and compute where it is missing
                other = {name: None if name.startswith("restore_") else value for name, value in other.items()}
            kept = [
                name
                for name, value in other.items()
                if getattr(value, "ndim", 0) or (isinstance(value, dict | list | tuple) and value)
            ]
        try:
            with languages_kept(self._model) if self._trains else nullcontext():
                load_trainable(self._model, dict(self.weights), self._file)
            with taking_from(self._file):
                if not hooks_of(self._model).go_on_from(other):
                    if self._new and self._reasons and kept:
                        raise CheckpointError(f"it keeps {', '.join(kept)}, which has no place for new ids")
                    self._model.load_other_parameter(other)
        except CheckpointError as error:
            if not self.matches:
                raise
            raise self._refusal(str(error)) from error


def told(matches: Matches) -> str:
    """Say how many ids are matched, such as ``item_id: 20 matched, 3 new, 1 gone; user_id: ...``."""
    return "; ".join(
        f"{field}: " + ", ".join(f"{number:,} {what}" for what, number in of_field.items())
        for field, of_field in matches.items()
    )


def _matches(known: DataIdentity, dataset: Any) -> Matches:
    found = {}
    for field in (dataset.iid_field, dataset.uid_field):
        if field in known.vocabulary and field in dataset.vocabulary:
            then = known.vocabulary[field][1:]
            here = np.delete(np.arange(len(dataset.vocabulary[field])), [0, *dataset.absent.get(field, ())])
            now = dataset.vocabulary[field][here]
            matched = int(np.isin(now, then).sum())
            found[field] = {"matched": matched, "new": len(now) - matched, "gone": len(then) - matched}
    return found


def _grown(
    weights: Mapping[str, Tensor], own: Mapping[str, Tensor], known: DataIdentity | None, dataset: Any
) -> dict[str, Tensor]:
    """Return weights with the mean of the trained rows for ids that are new; other shapes are left to who loads them.

    Of items those rows are trained that have training interactions, of others all but the padding.
    """
    assert known is not None
    trained: dict[tuple[int, int], Tensor] = {}
    for field, tokens in known.vocabulary.items():
        if field in dataset.vocabulary and len(tokens) > 1:
            rows = torch.arange(len(tokens)) > 0
            if field == known.item_field and known.item_counts is not None and known.item_counts.any():
                rows = torch.from_numpy(known.item_counts > 0)
            sizes = len(tokens), len(dataset.vocabulary[field])
            trained[sizes] = rows | trained.get(sizes, torch.zeros_like(rows))  # users and items may be as many
    result = dict(weights)
    for name in weights.keys() & own.keys():
        for axis in range(own[name].ndim if own[name].ndim == weights[name].ndim else 0):
            before = result[name]
            sizes = before.shape[axis], own[name].shape[axis]
            if sizes[0] < sizes[1] and sizes in trained:
                rows = trained[sizes].nonzero().flatten().to(before.device)
                mean = before.index_select(axis, rows).float().mean(dim=axis, keepdim=True).to(before.dtype)
                result[name] = torch.cat([before, *[mean] * (sizes[1] - sizes[0])], dim=axis)
    return result
