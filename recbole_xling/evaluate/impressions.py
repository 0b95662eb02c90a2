"""Ranking the candidates of impressions with a trained model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from recbole.data.interaction import Interaction

from recbole_xling.data.impressions import Histories, Impressions
from recbole_xling.evaluate.candidates import METRICS, candidate_metrics
from recbole_xling.evaluate.significance import bootstrap_interval
from recbole_xling.evaluate.slices import MIXED, UNKNOWN_LANGUAGE

IntArray = NDArray[np.int64]

_SCORES_AT_ONCE = 1 << 24  # of users times items, held at a time


@dataclass
class LeftOut:
    """Impressions that say nothing: nothing to find, nothing to tell apart, or nothing to go by."""

    no_click: int = 0
    only_clicks: int = 0
    no_history: int = 0


@dataclass
class ImpressionRanker:
    """Ranks candidates by the scores a model gives to all items; each history of a block is scored once.

    Args:
        model: in evaluation mode. Users without a history are ranked where its ``ranks_without_history`` is true; it
            then gets a history of length 0.
        dataset: names the fields of a batch.
        histories: of the users of ``dataset``.
        user_languages: of each user, ``(n_users,)``.
        item_languages: of each item, ``(n_items,)``.
    """

    model: Any
    dataset: Any
    histories: Histories
    user_languages: Sequence[str]
    item_languages: Sequence[str]
    left_out: LeftOut = field(default_factory=LeftOut)

    def rank(self, blocks: Iterable[Impressions]) -> pl.DataFrame:
        """Return one line per impression: its id, its user, languages, and the metrics.

        What cannot be ranked is left out and counted in :attr:`left_out`.
        """
        columns = ("impression_id", "user_id", "user_language", "candidate_language")
        schema = pl.Schema({**dict.fromkeys(columns, pl.String), **dict.fromkeys(METRICS, pl.Float64)})
        return pl.concat([schema.to_frame(), *(self._ranked(block).cast(schema) for block in blocks)])

    def _ranked(self, block: Impressions) -> pl.DataFrame:
        block = self._usable(block)
        start, end = self.histories.before(block.users, block.times)
        scores = self._scores(block, start, end)
        return pl.DataFrame(
            {
                "impression_id": block.impression_ids,
                "user_id": block.user_tokens,
                "user_language": [self.user_languages[user] for user in block.users],
                "candidate_language": self._candidate_languages(block),
                **candidate_metrics(scores, block.clicked, block.sizes),
            }
        )

    def _usable(self, block: Impressions) -> Impressions:
        clicked = block.n_clicked
        none, every = clicked == 0, clicked == block.sizes
        start, end = self.histories.before(block.users, block.times)
        new = (start == end) & ~none & ~every & (not getattr(self.model, "ranks_without_history", False))
        self.left_out.no_click += int(none.sum())
        self.left_out.only_clicks += int((every & ~none).sum())
        self.left_out.no_history += int(new.sum())
        return block.where(~(none | every | new))

    def _scores(self, block: Impressions, start: IntArray, end: IntArray) -> NDArray[np.float32]:
        """Return the scores of all candidates, ``(n,)``."""
        same = np.unique(np.stack([block.users, end], axis=1), axis=0, return_index=True, return_inverse=True)
        users, start, end = (rows[same[1]] for rows in (block.users, start, end))
        of_candidate = same[2].reshape(-1)[block.impression_of_candidate]
        order = np.argsort(of_candidate, kind="stable")
        scores = np.empty(len(order), dtype=np.float32)
        at_once = max(1, _SCORES_AT_ONCE // len(self.item_languages))
        for low in range(0, len(users), at_once):
            part = slice(low, low + at_once)
            table = self._all_scores(users[part], start[part], end[part])  # (B, n_items)
            here = order[slice(*np.searchsorted(of_candidate[order], [low, low + at_once]))]
            scores[here] = table[of_candidate[here] - low, block.items[here]]
        return scores

    @torch.no_grad()
    def _all_scores(self, users: IntArray, start: IntArray, end: IntArray) -> NDArray[np.float32]:
        batch = {self.dataset.uid_field: torch.from_numpy(users)}
        if hasattr(self.dataset, "item_id_list_field"):  # a sequential data set
            items, length = self.histories.padded(start, end, self.dataset.max_item_list_len)
            batch[self.dataset.item_id_list_field] = torch.from_numpy(items)
            batch[self.dataset.item_list_length_field] = torch.from_numpy(length)
        scores = self.model.full_sort_predict(Interaction(batch).to(self.model.device))
        return scores.view(len(users), -1).float().cpu().numpy()  # type: ignore[no-any-return]

    def _candidate_languages(self, block: Impressions) -> list[str]:
        """Return the language that all candidates of an impression share, ``mixed`` where they differ."""
        if not len(block):
            return []
        names, number = np.unique(np.array(self.item_languages), return_inverse=True)
        begin = np.cumsum(block.sizes) - block.sizes
        lowest, highest = (f.reduceat(number[block.items], begin) for f in (np.minimum, np.maximum))
        return np.where(lowest == highest, names[lowest], MIXED).tolist()  # type: ignore[no-any-return]


def impression_results(table: pl.DataFrame, seed: int) -> dict[str, Any]:
    """Return means over impressions with their intervals over users, in all and by language.

    Args:
        table: as :meth:`ImpressionRanker.rank` returns it.
        seed: of the bootstrap.

    Returns:
        ``test``, ``intervals`` and ``n_test``; ``slices`` with ``n``, metrics and ``intervals`` each.
    """
    if not table.height:
        return {"test": {}, "intervals": {}, "n_test": 0, "slices": {}}
    slices = {}
    for column in ("user_language", "candidate_language"):
        for value, part in sorted(table.group_by(column), key=lambda item: str(item[0][0])):
            if value[0] != UNKNOWN_LANGUAGE:
                means, intervals = _means(part, seed)
                slices[f"{column}={value[0]}"] = {"n": part.height, **means, "intervals": intervals}
    means, intervals = _means(table, seed)
    return {"test": means, "intervals": intervals, "n_test": table.height, "slices": slices}


def _means(table: pl.DataFrame, seed: int) -> tuple[dict[str, float], dict[str, list[float]]]:
    users = table["user_id"].to_numpy()
    values = {metric: table[metric].to_numpy() for metric in METRICS}
    intervals = {metric: list(bootstrap_interval(column, users, seed)) for metric, column in values.items()}
    return {metric: float(column.mean()) for metric, column in values.items()}, intervals
