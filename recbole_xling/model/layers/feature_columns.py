"""Learned vectors of the columns of users or items that a dataset loads: tokens, lists of tokens, and numbers."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch
from recbole.data.interaction import Interaction
from recbole.utils import FeatureType
from torch import Tensor, nn


class FeatureColumns(nn.Module):
    """One vector per column of a table of users or items.

    A token has an embedding, a list of tokens the mean of theirs, and a number, scaled to mean 0 and variance 1 over
    the table, is multiplied by a vector. Lists of numbers are left out. Trained vectors belong to the scale that their
    column had then, whatever the table holds now: :attr:`scales` goes into checkpoints.

    Args:
        dataset: knows the columns' types and how many tokens they have.
        table: one row per user or item, in the order of their internal ids; the first is padding.
        without: columns that are left out.
        size: of a vector.

    Attributes:
        names: the columns.
    """

    def __init__(self, dataset: Any, table: Interaction, without: Collection[str], size: int) -> None:
        super().__init__()
        self.names: list[str] = []
        self.vectors = nn.ModuleDict()
        for name in table.columns:
            kind, values = dataset.field2type[name], table[name]
            if name in without or kind == FeatureType.FLOAT_SEQ:
                continue
            if kind == FeatureType.FLOAT:
                values = values.reshape(len(values), -1)[:, :1].float()  # RecBole's discretization adds a second column
                known = values[1:]
                spread = known.std() if len(known) > 1 else known.new_ones(())
                spread = spread if spread > 1e-6 else torch.ones_like(spread)  # a constant tells nothing
                scale = torch.stack([known.mean(), spread])
                self.register_buffer(f"scale_{len(self.names)}", scale, persistent=False)
                self.vectors[str(len(self.names))] = nn.Linear(1, size, bias=False)
            else:
                values = values.reshape(len(values), -1)  # (n, longest list)
                self.vectors[str(len(self.names))] = nn.Embedding(dataset.num(name), size, padding_idx=0)
            self.register_buffer(f"values_{len(self.names)}", values, persistent=False)
            self.names.append(name)

    @property
    def scales(self) -> dict[str, Tensor]:
        """Mean and standard deviation by which each column of numbers is scaled, ``(2,)`` by name."""
        return {self.names[number]: self.get_buffer(f"scale_{number}") for number in self._numbers()}

    @scales.setter
    def scales(self, scales: Mapping[str, Tensor]) -> None:
        for number in self._numbers():
            if (known := scales.get(self.names[number])) is not None:
                self.get_buffer(f"scale_{number}").copy_(known)

    def _numbers(self) -> list[int]:
        return [number for number in range(len(self.names)) if isinstance(self.vectors[str(number)], nn.Linear)]

    def forward(self, ids: Tensor) -> list[Tensor]:
        """Return the vectors of each column, ``(B, size)``, given ids, ``(B,)``."""
        found = []
        for number in range(len(self.names)):
            values, vectors = self.get_buffer(f"values_{number}")[ids], self.vectors[str(number)]
            if isinstance(vectors, nn.Linear):
                mean, spread = self.get_buffer(f"scale_{number}")
                found.append(vectors((values - mean) / spread))
            else:
                filled = (values > 0).sum(dim=1, keepdim=True).clamp_min(1)  # (B, 1)
                found.append(vectors(values).sum(dim=1) / filled)
        return found
