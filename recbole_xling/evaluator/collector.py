"""Collecting evaluation batches: the data of RecBole's metrics, and the user and the targets of each row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from recbole.data.interaction import Interaction
from recbole.evaluator.collector import Collector, DataStruct
from recbole.utils import EvaluatorType
from torch import Tensor


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
        rows: the evaluated rows; None for metrics that compare scores with labels.
        unreachable: how many targets are in their own history, which ``exclude_history`` takes out of the ranking; None
            without that setting.
    """

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.data_struct = BatchedStruct()
        self.rows: EvaluatedRows | None = None
        self.unreachable: int | None = None

    def eval_batch_collect(
        self, scores_tensor: Tensor, interaction: Interaction, positive_u: Tensor, positive_i: Tensor
    ) -> None:
        """Collect one batch: scores ``(B, n_items)``, changed in place, and the positives' row numbers and item ids."""
        if self.config["exclude_history"]:  # RecBole takes known items out of the ranking for its general models only
            history = self.config["ITEM_ID_FIELD"] + self.config["LIST_SUFFIX"]
            if history in interaction.columns and len(interaction) == len(scores_tensor):
                met = (interaction[history].to(positive_i.device)[positive_u] == positive_i[:, None]).any(dim=1)
                self.data_struct.update_tensor("rows.unreachable", met)
                scores_tensor.scatter_(1, interaction[history].to(scores_tensor.device), float("-inf"))
        super().eval_batch_collect(scores_tensor, interaction, positive_u, positive_i)
        if self.config["eval_type"] != EvaluatorType.RANKING:
            return
        users = interaction[self.config["USER_ID_FIELD"]]
        n_rows = len(scores_tensor)
        if len(users) != n_rows:  # sampled negatives: the users of the targets, which the lists' rows begin with
            of_targets = users[interaction[self.config["LABEL_FIELD"]] == 1]
            users = users[:n_rows].clone()
            users[positive_u.to(users.device)] = of_targets
        self.data_struct.update_tensor("rows.users", users)
        self.data_struct.update_tensor("rows.n_targets", torch.bincount(positive_u.cpu(), minlength=n_rows))
        self.data_struct.update_tensor("rows.targets", positive_i)

    def finish(self, n_rows: int) -> DataStruct:
        """Return the struct for the metrics and set :attr:`rows` and :attr:`unreachable`.

        Args:
            n_rows: number of rows of the evaluated data over all processes; RecBole's sampler repeats some rows so
                that all processes have equally many, and these repetitions are dropped here.
        """
        joined = self.data_struct.drain()
        if not self.config["single_spec"]:
            joined = _gather(joined, n_rows)
        met = joined.pop("rows.unreachable", None)
        excluded = self.config["exclude_history"]
        self.unreachable = (0 if met is None else int(met.sum())) if excluded else None
        if "rows.users" in joined:
            parts = (joined.pop(f"rows.{name}").numpy() for name in ("users", "n_targets", "targets"))
            self.rows = EvaluatedRows(*parts)
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
