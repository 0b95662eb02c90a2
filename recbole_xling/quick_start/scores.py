"""The scores of finished runs, row by row, with rows and items numbered as those of one of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from recbole.data.dataloader import FullSortEvalDataLoader
from recbole.data.interaction import Interaction
from torch import Tensor

from recbole_xling.errors import ConfigError, DataError
from recbole_xling.evaluator.collector import excluded_items
from recbole_xling.evaluator.slices import ROW_KEY, row_difference, with_row_keys
from recbole_xling.model.base import hooks_of
from recbole_xling.quick_start.build import Run
from recbole_xling.trainer.mixin import Evaluation

IntArray = NDArray[np.int64]


class RunScores:
    """The scores of a run, whose rows and items are numbered as those of the first run."""

    def __init__(self, folder: Path, run: Run) -> None:
        self.folder, self.run = folder, run
        self.loader = run.test_data
        self._evaluation = Evaluation(run.config, run.model, run.train_data._dataset)
        self._evaluation.tot_item_num = run.dataset.item_num
        self._evaluation.item_tensor = run.dataset.get_item_feature().to(run.config["device"])
        self._row: IntArray | None = None  # this run's number of each row of the first run
        self._item: Tensor | None = None
        absent = getattr(run.dataset, "absent", {}).get(run.dataset.iid_field, ())
        self._absent = torch.as_tensor(np.asarray(absent, dtype=np.int64))

    @property
    def item_tokens(self) -> list[str]:
        """External ids in the order of this run's ids."""
        return [str(token) for token in self.run.dataset.field2id_token[self.run.dataset.iid_field]]

    def follow(self, first: RunScores) -> None:
        """Number items as the first run does.

        Raises:
            DataError: the items are others.
        """
        own, wanted = ({token: item for item, token in enumerate(part.item_tokens)} for part in (self, first))
        if own.keys() != wanted.keys():
            more, less = (sorted(a.keys() - b.keys()) for a, b in ((own, wanted), (wanted, own)))
            differ = [f"{len(names)} only in '{part.folder}', such as '{names[0]}'"
                      for part, names in ((self, more), (first, less)) if names]  # fmt: skip
            raise DataError(f"the items of '{first.folder}' and '{self.folder}' differ: {'; '.join(differ)}")
        self._item = torch.tensor([own[token] for token in wanted])

    def rank(self, phase: str, first: RunScores) -> None:
        """Take up validation or test, with rows numbered as the first run's.

        Raises:
            ConfigError: the run ranks drawn candidates, or its labels.
            DataError: the rows are others.
        """
        self.loader = self.run.valid_data if phase == "valid" else self.run.test_data
        if not isinstance(self.loader, FullSortEvalDataLoader):
            raise ConfigError(f"'{self.folder}' does not rank all items: here eval_args needs {{mode: full}}")
        own, wanted = (part.rows.with_row_index("row") for part in (self, first))
        joined = wanted.join(own, on=ROW_KEY, how="left")
        if len(own) != len(wanted) or joined["row_right"].null_count():
            name = "test" if phase == "test" else "validation"
            told = row_difference(name, {str(first.folder): wanted, str(self.folder): own})
            raise DataError(told if phase == "test" else f"{told}. Only tuned weights need these rows: give weights")
        self._row = joined.sort("row")["row_right"].to_numpy().astype(np.int64)

    @property
    def rows(self) -> pl.DataFrame:
        """The rows in order: the user, the targets, and which one it is of several equal ones."""
        dataset = self.loader._dataset
        users, items = (np.asarray(dataset.field2id_token[field]) for field in (dataset.uid_field, dataset.iid_field))
        if self.loader.is_sequential:
            of_row = dataset.inter_feat[dataset.uid_field].numpy()
            targets = [str(token) for token in items[dataset.inter_feat[dataset.iid_field].numpy()]]
        else:
            of_row = self.loader.uid_list.numpy()
            found = (self.loader.uid2positive_item[user].tolist() for user in of_row)
            targets = [" ".join(sorted(str(items[item]) for item in chosen)) for chosen in found]
        table = pl.DataFrame({"user_id": [str(token) for token in users[of_row]], "target_item": targets})
        return with_row_keys(table)

    def __call__(self, rows: IntArray) -> Tensor:
        """Return the scores of rows of the first run, ``(B, n_items)``; minus infinity for what is not ranked."""
        assert self._row is not None
        interaction, scores, _, _ = self._evaluation._full_sort_batch_eval(self.loader.collate_fn(self._row[rows]))
        if (known := excluded_items(self.run.config, interaction)) is not None:
            scores.scatter_(1, known.to(scores.device), -torch.inf)
        scores[:, self._absent] = -torch.inf
        return scores.float() if self._item is None else scores[:, self._item].float()

    def of_candidates(self, rows: IntArray, items: Tensor) -> Tensor:
        """Return the scores of some items for each row, ``(B, K)``, as :meth:`__call__` does of all.

        Args:
            rows: of the first run.
            items: ``(B, K)``, by the first run's numbers.
        """
        assert self._row is not None
        if not hooks_of(self.run.model).scores_pairs:
            return self(rows).gather(1, items)
        own = items.cpu() if self._item is None else self._item[items.cpu()]
        interaction = self.loader.collate_fn(self._row[rows])[0]
        pairs = interaction[torch.arange(len(rows)).repeat_interleave(own.shape[1])]
        pairs.update(Interaction({self.run.dataset.iid_field: own.flatten()}))
        scores = self.run.model.predict(pairs.to(self.run.config["device"])).view(own.shape).float()
        left_out = torch.isin(own, self._absent)
        if (known := excluded_items(self.run.config, interaction)) is not None:
            left_out |= (own[:, :, None] == known[:, None, :]).any(dim=2)
        return scores.masked_fill(left_out.to(scores.device), -torch.inf).to(items.device)
