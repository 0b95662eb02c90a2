"""Collecting evaluation batches: the data of RecBole's metrics, and the user and the targets of each row."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from recbole.data.interaction import Interaction
from recbole.evaluator.collector import Collector, DataStruct
from recbole.utils import EvaluatorType
from torch import Tensor

from recbole_xling.data.sequences import EARLIER_LIST
from recbole_xling.evaluator.streaming import Factors, Pairs, Ranked, rank_groups, rank_scores
from recbole_xling.utils.devices import to_device

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EvaluatedRows:
    """The evaluated rows in order: internal ids of the users and of the items to be found.

    ``users`` and ``n_targets`` are ``(n_rows,)``; ``targets`` are the rows' items, one row after the other.
    """

    users: NDArray[np.int64]
    n_targets: NDArray[np.int64]
    targets: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.users)

    @property
    def row_of_target(self) -> NDArray[np.int64]:
        """Row number of each entry of ``targets``."""
        return np.repeat(np.arange(len(self)), self.n_targets)


def excluded_items(config: Any, interaction: Interaction) -> Tensor | None:
    """Return the items that are not to be ranked because users have met them, ``(B, L)``; None if all are ranked.

    RecBole takes known items out of the ranking for its general models only.

    Args:
        config: ``exclude_history`` is read.
        interaction: a batch of rows. What comes before the history that models read is in a field of its own.
    """
    history = config["ITEM_ID_FIELD"] + config["LIST_SUFFIX"]
    if not config["exclude_history"] or history not in interaction.columns:
        return None
    parts = [interaction[field] for field in (history, EARLIER_LIST) if field in interaction.columns]
    return torch.cat(parts, dim=1)


class BatchedStruct(DataStruct):
    """RecBole's ``DataStruct`` that joins the batches once at the end instead of copying all of them per batch."""

    def __init__(self) -> None:
        super().__init__()
        self._batches: dict[str, list[Tensor]] = {}

    def update_tensor(self, name: str, value: Tensor) -> None:
        """Add a batch."""
        self._batches.setdefault(name, []).append(value.detach().cpu())

    def drain(self) -> dict[str, Tensor]:
        """Return the joined batches, and forget them."""
        joined = {name: torch.cat(batches) for name, batches in self._batches.items()}
        self._batches = {}
        return joined


class XLingCollector(Collector):
    """RecBole's ``Collector`` that also collects the rows' users and targets and works under several processes.

    Attributes:
        rows: the evaluated rows; for metrics that compare scores with labels one for each interaction.
        keeps_lists: whether :attr:`lists` are wanted.
        lists: the ranked items of each row, ``(n_rows, max(topk))``, if they are wanted.
        unreachable: how many targets are in their own history, which ``exclude_history`` takes out of the ranking; None
            without that setting.
    """

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.data_struct = BatchedStruct()
        self.rows: EvaluatedRows | None = None
        self.keeps_lists = False
        self.lists: NDArray[np.int64] | None = None
        self.unreachable: int | None = None

    def eval_batch_collect(
        self, scores_tensor: Tensor, interaction: Interaction, positive_u: Tensor, positive_i: Tensor
    ) -> None:
        """Collect one batch: scores ``(B, n_items)``, changed in place, and the positives' row numbers and item ids."""
        if self.config["eval_type"] != EvaluatorType.RANKING:  # a row is one interaction, whose label is known
            super().eval_batch_collect(scores_tensor, interaction, positive_u, positive_i)
            self.data_struct.update_tensor("rows.users", interaction[self.config["USER_ID_FIELD"]])
            self.data_struct.update_tensor("rows.n_targets", torch.ones(len(interaction), dtype=torch.int64))
            self.data_struct.update_tensor("rows.targets", interaction[self.config["ITEM_ID_FIELD"]])
            return
        targets, device = Pairs(positive_u, positive_i), scores_tensor.device
        history = self._history(interaction, len(scores_tensor), targets)
        if history is not None:
            scores_tensor.scatter_(1, to_device(history, device), float("-inf"))
        self._collect_ranking(partial(rank_scores, scores_tensor), interaction, targets, device)

    def collect_factors(
        self,
        groups: list[tuple[Tensor, Factors]],
        interaction: Interaction,
        left_out: Pairs,
        positive_u: Tensor,
        positive_i: Tensor,
    ) -> None:
        """Collect one batch whose scores are inner products.

        Args:
            groups: what :func:`~recbole_xling.model.factors.factors_of` returned for the batch.
            interaction: the batch.
            left_out: items that are not ranked for a row, besides those of ``exclude_history``.
            positive_u: rows of the targets.
            positive_i: items to be found.
        """
        device, n_rows = groups[0][1].users.device, len(interaction)
        targets = Pairs(positive_u, positive_i)
        history = self._history(interaction, n_rows, targets)
        if history is not None:
            rows = torch.arange(n_rows, device=device).repeat_interleave(history.shape[1])
            known = Pairs(rows, to_device(history, device).flatten())
            left_out = Pairs(*(torch.cat(both) for both in zip(left_out, known, strict=True)))
        self._collect_ranking(partial(rank_groups, groups, left_out), interaction, targets, device)

    def _history(self, interaction: Interaction, n_rows: int, targets: Pairs) -> Tensor | None:
        """Return the :func:`excluded_items` of rows, none of sampled ones; count the targets among them."""
        items = excluded_items(self.config, interaction) if len(interaction) == n_rows else None
        if items is None:
            return None
        rows, wanted = targets.on(items.device)
        self.data_struct.update_tensor("rows.unreachable", (items[rows] == wanted[:, None]).any(dim=1))
        return items

    def _collect_ranking(
        self, rank: Callable[..., Ranked], interaction: Interaction, targets: Pairs, device: torch.device
    ) -> None:
        """Rank, and keep what RecBole's ranking metrics need, in the form in which its own collector keeps it.

        Args:
            rank: by scores on ``device``.
            interaction: the batch.
            targets: on the CPU, where the loader has made them.
            device: that of the scores.
        """
        once = targets.distinct()
        distinct = once.on(device)
        ranked = rank(distinct, max(self.topk), with_ranks=bool(self.register.need("rec.meanrank")))
        n_rows = len(ranked.best)
        n_distinct = to_device(torch.bincount(once.rows, minlength=n_rows)[:, None], device)
        is_ranked = ranked.scores > -torch.inf  # the others fill lists that are longer than what is left to rank
        if self.keeps_lists:
            self.data_struct.update_tensor("rows.lists", ranked.best.masked_fill(~is_ranked, 0))
        if self.register.need("rec.items"):
            self.data_struct.update_tensor("rec.items", ranked.best)
            self.data_struct.update_tensor("rows.short", ~is_ranked.all(dim=1))
        if self.register.need("rec.topk"):
            found = torch.zeros_like(ranked.best, dtype=torch.int)
            hit = (ranked.best[distinct.rows] == distinct.items[:, None]) & is_ranked[distinct.rows]  # (n_targets, k)
            found.index_add_(0, distinct.rows, hit.int())
            self.data_struct.update_tensor("rec.topk", torch.cat([found, n_distinct.int()], dim=1))
        if ranked.ranks is not None and ranked.n_ranked is not None:
            total = torch.zeros(n_rows, 1, dtype=torch.float64, device=distinct.rows.device)
            total.index_add_(0, distinct.rows, ranked.ranks[:, None])
            self.data_struct.update_tensor(
                "rec.meanrank", torch.cat([total, ranked.n_ranked[:, None], n_distinct], dim=1).float()
            )
        users = interaction[self.config["USER_ID_FIELD"]]
        if len(users) != n_rows:  # sampled negatives: the users of the targets, which the lists' rows begin with
            of_targets = users[interaction[self.config["LABEL_FIELD"]] == 1]
            users = users[:n_rows].clone()
            users[targets.rows.to(users.device)] = of_targets
        self.data_struct.update_tensor("rows.users", users)
        self.data_struct.update_tensor("rows.n_targets", torch.bincount(targets.rows, minlength=n_rows))
        self.data_struct.update_tensor("rows.targets", targets.items)

    def finish(self, n_rows: int) -> DataStruct:
        """Return the struct for the metrics and set :attr:`rows`, :attr:`lists` and :attr:`unreachable`.

        Args:
            n_rows: number of rows of the evaluated data over all processes; RecBole's sampler repeats some rows so
                that all processes have equally many, and these repetitions are dropped here.
        """
        joined = self.data_struct.drain()
        if not self.config["single_spec"]:
            joined = _gather(joined, n_rows)
        short = joined.pop("rows.short", None)
        if short is not None and (n_short := int(short.sum())):
            logger.warning(
                "%d of %d lists have fewer items to rank than topk asks for: what counts the items of lists "
                "(ItemCoverage, AveragePopularity, ShannonEntropy, GiniIndex, TailPercentage) counts others as well",
                *(n_short, len(short)),
            )
        met = joined.pop("rows.unreachable", None)
        excluded = self.config["exclude_history"]
        self.unreachable = (0 if met is None else int(met.sum())) if excluded else None
        if "rows.users" in joined:
            parts = (joined.pop(f"rows.{name}").numpy() for name in ("users", "n_targets", "targets"))
            self.rows = EvaluatedRows(*parts)
        self.lists = joined.pop("rows.lists").numpy() if self.keeps_lists else None
        struct = DataStruct()
        for name, value in {**self.data_struct._data_dict, **joined}.items():
            struct.set(name, value)
        return struct


def _gather(mine: dict[str, Tensor], n_rows: int) -> dict[str, Tensor]:
    """Bring the rows of all processes together in their original order, without the sampler's repetitions."""
    world_size = torch.distributed.get_world_size()
    everyone: list[dict[str, Tensor]] = [{} for _ in range(world_size)]
    torch.distributed.all_gather_object(everyone, mine)
    result = {}
    for name in mine:
        by_row = [
            part[name].split(part["rows.n_targets"].tolist() if name == "rows.targets" else 1) for part in everyone
        ]
        ordered = [by_row[index % world_size][index // world_size] for index in range(n_rows)]
        result[name] = torch.cat(ordered)
    return result
