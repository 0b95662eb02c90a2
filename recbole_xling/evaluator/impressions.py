"""Evaluating impressions: a trained model ranks the candidates of each, and results are means over impressions."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from recbole.data.interaction import Interaction

from recbole_xling.data.catalog import catalog_of
from recbole_xling.data.columns import MIXED
from recbole_xling.data.impressions import Impressions, UserHistories, impressions_file, read_impressions
from recbole_xling.data.mixin import check_raw_times
from recbole_xling.errors import ConfigError, DataError
from recbole_xling.evaluator.impression_metrics import METRICS, candidate_metrics
from recbole_xling.evaluator.measure import MeanValues
from recbole_xling.evaluator.ranking import eval_context_of
from recbole_xling.evaluator.slices import EvalContext, slice_rows
from recbole_xling.evaluator.split_summary import target_pairs
from recbole_xling.language.tags import UNDETERMINED
from recbole_xling.utils.chunks import score_chunks

logger = logging.getLogger(__name__)

IntArray = NDArray[np.int64]

_PAIRS_AT_ONCE = 1 << 14  # candidates of a model that scores pairs


def check_impressions(config: Any, data: Any, split: str) -> None:
    """Check what :func:`evaluate_impressions` needs, before a model is built; arguments are the same.

    Raises:
        DataError: interactions have no times or normalized ones, or those of a part of the split are not kept, or the
            impressions cannot be read, or none of the split tells what was clicked and what was not.
    """
    dataset = data.dataset
    if data.interactions.times is None:
        raise DataError(
            f"impressions need the times of interactions, but '{dataset.dataset_name}' has no column "
            f"'{dataset.time_field}'; set TIME_FIELD to the column of times"
        )
    check_raw_times(dataset, "evaluating impressions")
    missing = getattr(dataset, "missing_times", 0)
    if missing and config["eval_args"]["order"] != "TO":  # else such interactions are left out
        raise DataError(
            f"impressions need the times of all interactions, but {missing:,} of '{dataset.dataset_name}' have no "
            f"{dataset.time_field}: leave them out of the file"
        )
    needed = {"test": [data.test_data], "valid": [data.valid_data, data.test_data]}.get(split, [])
    if any(dataset.time_field not in loader._dataset.inter_feat for loader in needed):
        raise DataError(
            f"impressions of split '{split}' are those since a user's first target, but the targets of "
            f"'{dataset.dataset_name}' have no '{dataset.time_field}' any more: evaluate --split all, or train with it "
            "named in load_col, as context-aware models drop it otherwise, and not in unused_col"
        )
    path = impressions_file(Path(config["data_path"]), config["dataset"])
    can_rank = False
    for block in _of_split(_read(path, dataset), data, split):  # all of it, for what is wrong at the end
        can_rank |= bool(((block.n_clicked > 0) & (block.n_clicked < block.sizes)).any())
    if not can_rank:
        raise DataError(f"{path}: no impression of split '{split}' has both clicked and other candidates")


def evaluate_impressions(
    config: Any,
    model: Any,
    data: Any,
    split: str,
    *,
    ranks_without_history: bool = False,
    scores_pairs: bool = False,
    knows_languages_alone: bool = False,
) -> tuple[dict[str, Any], pl.DataFrame]:
    """Rank the candidates of a dataset's impressions.

    Args:
        config: the configuration.
        model: trained, in evaluation mode.
        data: the dataset, as :func:`recbole_xling.quick_start.build.build_data` returns it.
        split: ``test``: each user's impressions from the first test target on; ``valid``: those from the first
            validation target on and before the first test target; ``all``: all.
        ranks_without_history: whether the model can score a history of length 0.
        scores_pairs: whether the model scores candidates one by one (``predict``), and not all items.
        knows_languages_alone: whether all that the model knows of a user, besides a history, is his language.

    Returns:
        ``test``, ``intervals``, ``slices``, ``n_test``, ``readers`` and ``left_out`` for ``result.json``; one line per
        impression.

    Raises:
        DataError: the impressions cannot be read, or none of them can be ranked.
    """
    dataset = data.dataset
    context = eval_context_of(data.train_data._dataset, data.used, target_pairs(data.test_data._dataset))
    path = impressions_file(Path(config["data_path"]), config["dataset"])
    ranker = ImpressionRanker(
        model,
        data.test_data._dataset,
        UserHistories(data.interactions, dataset.user_num),
        context,
        ranks_without_history,
        catalog_of(dataset).stated_languages,
        scores_pairs,
        knows_languages_alone or hasattr(data.test_data._dataset, "item_id_list_field"),
    )
    table = ranker.rank(_of_split(_read(path, dataset), data, split))
    left_out = asdict(ranker.left_out)
    logger.info("%d impressions ranked; left out: %s", table.height, left_out)
    if not table.height:
        raise DataError(f"{path}: no impression of split '{split}' can be ranked; left out: {left_out}")
    results = impression_results(table, config["seed"], context.columns)
    users = np.flatnonzero(np.isin(context.user_tokens, table["user_id"].unique().to_numpy()))
    return {**results, "readers": context.reader_summary(users), "left_out": left_out}, table


def _read(path: Path, dataset: Any) -> Iterator[Impressions]:
    """Read impressions; an item that the model was trained on and the files no longer have is none of the dataset's."""
    users, items = (list(dataset.field2id_token[field]) for field in (dataset.uid_field, dataset.iid_field))
    for gone in getattr(dataset, "absent", {}).get(dataset.iid_field, ()):
        items[gone] = None
    return read_impressions(path, users, items)


def _of_split(blocks: Iterator[Impressions], data: Any, split: str) -> Iterator[Impressions]:
    """Keep the impressions in each user's period of a split."""
    if split == "all":
        yield from blocks
        return
    begin = test = _first_times(data, data.test_data._dataset)
    end = np.full_like(test, np.inf)
    if split == "valid":
        begin, end = _first_times(data, data.valid_data._dataset), test
    for block in blocks:
        yield block.where((begin[block.users] <= block.times) & (block.times < end[block.users]))


def _first_times(data: Any, part: Any) -> NDArray[np.float64]:
    """Return when each user's first target was, ``(n_users,)``; infinity for users without one."""
    first = np.full(data.dataset.user_num, np.inf)
    np.minimum.at(first, part.inter_feat[part.uid_field].numpy(), part.inter_feat[part.time_field].numpy())
    return first


# ---- ranking --------------------------------------------------------------------------------------------------


@dataclass
class LeftOut:
    """Number of impressions that cannot be ranked, by reason: no click, nothing but clicks, a user without history."""

    no_click: int = 0
    only_clicks: int = 0
    no_history: int = 0


@dataclass
class ImpressionRanker:
    """Ranks candidates by the scores that a model gives to all items; each history of a block is scored once.

    Of a model that scores pairs of a history and an item one by one, candidates alone are scored; so they are of one
    that has no ``full_sort_predict``.

    Args:
        model: in evaluation mode.
        dataset: names the fields of a batch.
        histories: of the users of ``dataset``.
        context: languages of users and items, and further columns to slice by.
        ranks_without_history: whether users without a history are ranked; the model then gets a history of length 0.
        stated: languages that users state, by external id; for those whom ``dataset`` does not have.
        scores_pairs: whether the model scores candidates one by one (``predict``).
        users_are_alike: whether users without interactions are scored as any reader of their language.
    """

    model: Any
    dataset: Any
    histories: UserHistories
    context: EvalContext
    ranks_without_history: bool = False
    stated: Mapping[str, str] = field(default_factory=dict)
    scores_pairs: bool = False
    users_are_alike: bool = False
    left_out: LeftOut = field(default_factory=LeftOut)

    def rank(self, blocks: Iterable[Impressions]) -> pl.DataFrame:
        """Return one line per impression: its id, its user, languages, the columns to slice by, and the metrics.

        The language of candidates is the one in which the user sees them. Impressions that cannot be ranked are left
        out and counted in :attr:`left_out`.
        """
        columns = ("impression_id", "user_id", "user_language", "candidate_language", "bilingual")
        more = {name: column.dtype for name, column in self.context.columns.items()}
        schema = pl.Schema({**dict.fromkeys(columns, pl.String), **more, **dict.fromkeys(METRICS, pl.Float64)})
        return pl.concat([schema.to_frame(), *(self._rank_block(block).cast(schema) for block in blocks)])

    def _rank_block(self, block: Impressions) -> pl.DataFrame:
        no_click, only_clicks = block.n_clicked == 0, block.n_clicked == block.sizes
        start, end = self.histories.before(block.users, block.times)
        no_history = (start == end) & (not self.ranks_without_history)
        self.left_out.no_click += int(no_click.sum())
        self.left_out.only_clicks += int((only_clicks & ~no_click).sum())
        self.left_out.no_history += int((no_history & ~only_clicks & ~no_click).sum())
        usable = ~(no_click | only_clicks | no_history)
        block, start, end = block.where(usable), start[usable], end[usable]
        languages = [
            self.context.user_languages[user] if user else self.stated.get(token, UNDETERMINED)
            for user, token in zip(block.users, block.user_tokens, strict=True)
        ]
        scored = block
        if self.users_are_alike:  # but for their histories and languages
            alike = [user or self._example_of.get(tag, 0) for user, tag in zip(block.users, languages, strict=True)]
            scored = replace(block, users=np.array(alike, dtype=np.int64))
        names = np.array(self.context.readers.names)
        number = self.context.readers.seen(scored.users[block.impression_of_candidate], block.items)
        begin = np.cumsum(block.sizes) - block.sizes
        lowest, highest = (f.reduceat(number, begin) for f in (np.minimum, np.maximum))
        candidates = [block.items[at : at + n] for at, n in zip(begin, block.sizes, strict=True)]
        more = {
            name: pl.Series([column.value(ids) for ids in owners], dtype=column.dtype)
            for name, column in self.context.columns.items()
            for owners in (block.users[:, None] if column.of == "user" else candidates,)
        }
        return pl.DataFrame(
            {
                "impression_id": block.impression_ids,
                "user_id": block.user_tokens,
                "user_language": languages,
                "candidate_language": np.where(lowest == highest, names[lowest], MIXED),
                "bilingual": [
                    self.context.stated_bilingual.get(token, self.context.bilingual[user])
                    for user, token in zip(block.users, block.user_tokens, strict=True)
                ],
                **more,
                **candidate_metrics(self._scores(scored, start, end), block.clicked, block.sizes),
            }
        )

    @cached_property
    def _example_of(self) -> dict[str, int]:
        """The first user of a language, by language: one of whom nothing else is known is scored as its reader."""
        found: dict[str, int] = {}
        for user, language in enumerate(self.context.readers.stated):
            if user and language != UNDETERMINED:
                found.setdefault(language, user)
        return found

    def _scores(self, block: Impressions, start: IntArray, end: IntArray) -> NDArray[np.float32]:
        """Return the scores of all candidates, ``(n,)``."""
        if not self.scores_pairs:
            try:
                return self._scores_of_all_items(block, start, end)
            except NotImplementedError:  # of RecBole's base class: the model has ``predict`` only
                self.scores_pairs = True
        return self._pair_scores(block, start, end)

    def _scores_of_all_items(self, block: Impressions, start: IntArray, end: IntArray) -> NDArray[np.float32]:
        """Return the scores of all candidates, ``(n,)``, each history scored once."""
        same = np.unique(np.stack([block.users, end], axis=1), axis=0, return_index=True, return_inverse=True)
        users, start, end = (rows[same[1]] for rows in (block.users, start, end))
        of_candidate = same[2].reshape(-1)[block.impression_of_candidate]
        order = np.argsort(of_candidate, kind="stable")
        scores = np.empty(len(order), dtype=np.float32)
        for part in score_chunks(len(users), len(self.context.item_tokens)):
            table = self._all_scores(users[part], start[part], end[part])  # (B, n_items)
            here = order[slice(*np.searchsorted(of_candidate[order], [part.start, part.stop]))]
            scores[here] = table[of_candidate[here] - part.start, block.items[here]]
        return scores

    @torch.no_grad()
    def _pair_scores(self, block: Impressions, start: IntArray, end: IntArray) -> NDArray[np.float32]:
        """Return the scores of all candidates, ``(n,)``, each with its history one by one.

        Raises:
            ConfigError: the model reads a column of interactions that impressions do not have.
        """
        scores = [np.empty(0, dtype=np.float32)]
        for at in range(0, len(block.items), _PAIRS_AT_ONCE):
            part = slice(at, at + _PAIRS_AT_ONCE)
            row = block.impression_of_candidate[part]
            more = {self.dataset.iid_field: torch.from_numpy(block.items[part])}
            if (time := self.dataset.time_field) is not None:
                more[time] = torch.from_numpy(block.times[row].astype(np.float32))
            rows = self._rows(block.users[row], start[row], end[row], more)
            try:
                scores.append(self.model.predict(rows.to(self.model.device)).float().cpu().numpy().reshape(-1))
            except KeyError as error:
                raise ConfigError(
                    f"{type(self.model).__name__} reads the column {error} of interactions, which impressions do not "
                    "have: leave it out of load_col in training"
                ) from error
        return np.concatenate(scores)

    @torch.no_grad()
    def _all_scores(self, users: IntArray, start: IntArray, end: IntArray) -> NDArray[np.float32]:
        """Return the scores of all items, ``(B, n_items)``."""
        scores = self.model.full_sort_predict(self._rows(users, start, end).to(self.model.device))
        return scores.view(len(users), -1).float().cpu().numpy()  # type: ignore[no-any-return]

    def _rows(
        self, users: IntArray, start: IntArray, end: IntArray, more: Mapping[str, torch.Tensor] | None = None
    ) -> Interaction:
        """Return histories as rows of a batch, with ``more`` columns and the features of users and items."""
        no_item = torch.zeros(len(users), dtype=torch.int64)  # some models read a target, for a loss that is not used
        batch = {self.dataset.uid_field: torch.from_numpy(users), self.dataset.iid_field: no_item, **(more or {})}
        if hasattr(self.dataset, "item_id_list_field"):  # a sequential dataset
            items, length = self.histories.padded(start, end, self.dataset.max_item_list_len)
            batch[self.dataset.item_id_list_field] = torch.from_numpy(items)
            batch[self.dataset.item_list_length_field] = torch.from_numpy(length)
            drawn = self.dataset.config["NEG_PREFIX"] + self.dataset.item_id_list_field  # DIEN's, for a loss as well
            batch[drawn] = torch.zeros_like(batch[self.dataset.item_id_list_field])
        return self.dataset.join(Interaction(batch))


# ---- results --------------------------------------------------------------------------------------------------


def impression_results(table: pl.DataFrame, seed: int, columns: Iterable[str] = ()) -> dict[str, Any]:
    """Return means over impressions with their bootstrap intervals over users, in all and by slice.

    Args:
        table: as :meth:`ImpressionRanker.rank` returns it.
        seed: of the resampling.
        columns: further columns to slice by, besides languages.

    Returns:
        ``test``, ``intervals`` and ``n_test``; ``slices`` with ``n``, metrics and ``intervals`` each.
    """
    if not table.height:
        return {"test": {}, "intervals": {}, "n_test": 0, "slices": {}}
    measure = MeanValues(table, METRICS, seed)
    slices = {
        name: {"n": len(rows), **measure.entry(measure(rows))}
        for name, rows in slice_rows(table, ("user_language", "candidate_language", "bilingual", *columns)).items()
        if name not in (f"user_language={UNDETERMINED}", f"candidate_language={UNDETERMINED}")
    }
    test = measure.entry(measure())
    return {"intervals": test.pop("intervals"), "test": test, "n_test": table.height, "slices": slices}
