"""The scores of a run's model for users, histories and texts, ranked as its evaluation ranks them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from recbole.data.interaction import Interaction
from recbole.utils import ModelType
from torch import Tensor

from recbole_xling.data.catalog import catalog_of
from recbole_xling.data.columns import column_kinds
from recbole_xling.errors import ConfigError
from recbole_xling.evaluator.streaming import Factors, Pairs, rank_groups, rank_scores
from recbole_xling.model.base import ModelHooks, hooks_of
from recbole_xling.model.factors import UserOfVectors, factors_of
from recbole_xling.model.layers.language_embedding import LANGUAGES, language_numbers
from recbole_xling.serve.catalog import IntArray
from recbole_xling.serve.new_items import Intake
from recbole_xling.serve.scorer import Best, Given, Rows
from recbole_xling.serve.vectors import FloatArray, Tower, VectorScorer, View, highest
from recbole_xling.trainer.mixin import Evaluation

if TYPE_CHECKING:
    from recbole_xling.quick_start.build import Run

# RecBole's sequential models that learn something of each user besides the histories.
_OF_USERS = frozenset(("Caser", "DIEN", "DIN", "Fossil", "FPMC", "HGN", "HRM", "NPE", "SHAN", "TransRec"))

_Rank: TypeAlias = Callable[[int], tuple[Tensor, Tensor]]  # length -> the best items and their scores, (B, length)

_MOST_EQUAL = 1000  # items of one score behind the end of a list, among which the first ones are found


class ModelScorer:
    """Scores of a run's model, ranked as its evaluation ranks them (:class:`~recbole_xling.serve.scorer.Scorer`).

    Args:
        run: loaded, or built and trained.
    """

    def __init__(self, run: Run) -> None:
        self._run, self._hooks, self.name = run, hooks_of(run.model), str(run.config["model"])
        self.by_history = run.config["MODEL_TYPE"] == ModelType.SEQUENTIAL
        self.by_user = not self.by_history or self.name in _OF_USERS
        self.without_history = self._hooks.ranks_without_history or not self.by_history
        self.longest = int(run.config["MAX_ITEM_LIST_LENGTH"]) if self.by_history else 0
        self._evaluation = Evaluation(run.config, run.model, run.train_data._dataset)
        self._evaluation.tot_item_num = run.dataset.item_num
        self._evaluation.item_tensor = run.dataset.get_item_feature().to(run.config["device"])

    @torch.no_grad()
    def best(self, view: int, rows: Rows | Given, candidates: IntArray, left_out: Sequence[IntArray], k: int) -> Best:
        """Return the best candidates for users; all of them share a view."""
        k = min(k, len(candidates))
        if isinstance(rows, Given):
            return self._best_for_vectors(view, rows, candidates, left_out, k)
        self._hooks.check_full_ranking(len(rows.users))
        items, scores = np.zeros((len(rows.users), k), dtype=np.int64), np.full((len(rows.users), k), -np.inf)
        for part in self._parts(len(rows.users)) if k else ():
            batch = self._batch(rows, part)
            groups = factors_of(self._run.model, batch)
            rank = (
                self._by_scores(batch, candidates, left_out[part])
                if groups is None
                else _by_factors(groups, candidates, left_out[part])
            )
            items[part], scores[part] = _in_order(rank, k, len(candidates))
        return Best(items, scores.astype(np.float32))

    def _best_for_vectors(
        self, view: int, given: Given, candidates: IntArray, left_out: Sequence[IntArray], k: int
    ) -> Best:
        device, n_rows = self._run.config["device"], len(given.vectors)
        of_one = torch.from_numpy(given.vectors)[:, None].to(device)  # (B, 1, size)
        written, read = (language_numbers(tags).to(device) for tags in (given.written, given.read))
        length = torch.ones(n_rows, dtype=torch.long, device=device)
        users = UserOfVectors(self._run.model)(of_one, length, written[:, None], read)
        own = self.factors(view if view < self.n_views else 0)
        groups = [(torch.arange(n_rows, device=device), Factors(users, own.items, own.bias))]  # of whole weight
        if not k or not n_rows:
            return Best(np.zeros((n_rows, 0), dtype=np.int64), np.zeros((n_rows, 0), dtype=np.float32))
        return Best(*_in_order(_by_factors(groups, candidates, left_out), k, len(candidates)))

    @torch.no_grad()
    def vectors_of_texts(self, texts: Sequence[str], languages: Sequence[str]) -> FloatArray:
        """Return vectors of texts that no item has, as histories consist of them.

        Raises:
            ConfigError: the model cannot tell them from the texts alone.
        """
        return self._read(self._hooks.vectors_of_texts(texts, languages, self._encode))

    @torch.no_grad()
    def vectors_of_items(self, texts: Sequence[Sequence[str]], languages: Sequence[Sequence[str]]) -> FloatArray:
        """Return vectors of items that training did not have, by the different texts of each.

        Raises:
            ConfigError: the model cannot tell them from the texts alone.
        """
        return self._read(self._hooks.vectors_of_items(texts, languages, self._encode))

    def _encode(self, texts: Sequence[str]) -> Tensor:
        catalog = catalog_of(self._run.train_data._dataset)
        return torch.from_numpy(catalog.encoder().encode(texts)).to(self._run.config["device"])

    def _read(self, found: Tensor | None) -> FloatArray:
        if found is None:
            raise ConfigError(
                f"{self.name} with these settings has no vectors of new texts: it does not read them, or prepares them "
                "by all texts of the catalog (text_projection: pca, text_whitening, text_centering)"
            )
        vectors: FloatArray = found.float().cpu().numpy()
        return vectors

    @property
    def intake(self) -> Intake | None:
        """How the model takes items that training did not have; None if it does not."""
        taken = self._hooks.scores_of_new()
        if taken is None:
            return None
        catalog = catalog_of(self._run.train_data._dataset)
        kinds = column_kinds(catalog.folder / f"{catalog.dataset}.item", catalog.config)
        separators = {name: catalog.config["seq_separator"] for name, kind in kinds.items() if kind == "token_seq"}
        return Intake(catalog.config["text_template"], catalog.text_view, *taken, separators)

    @property
    def history_size(self) -> int:
        """The size of the vectors that histories consist of."""
        return self.history_vectors(0).shape[1]

    @torch.no_grad()
    def history_vectors(self, view: int) -> FloatArray:
        """Return the vectors of all items that histories consist of, ``(n_items, size)``.

        Raises:
            ConfigError: the model's users are not made of such vectors.
        """
        found = UserOfVectors(self._run.model).history_vectors(view)
        if found is None:
            raise ConfigError(f"{self.name} does not make users of the vectors of their items: it needs torch")
        table: FloatArray = found.detach().float().cpu().numpy()
        return table

    @torch.no_grad()
    def item_vectors(self, view: int) -> tuple[FloatArray, FloatArray]:
        """Return what is scored in a view: vectors, ``(n_items, D)``, and their bias, ``(n_items,)``."""
        own = self.factors(view)
        found = own.items.float().cpu().numpy()
        return found, np.zeros(len(found), np.float32) if own.bias is None else own.bias.float().cpu().numpy()

    def _tower(self) -> Tower:
        """Return the model's user tower, which reads vectors of histories."""
        user_tower, hooks, device = UserOfVectors(self._run.model).eval(), self._hooks, self._run.config["device"]

        @torch.no_grad()
        def compute(given: Mapping[str, NDArray]) -> FloatArray:
            found: Tensor = user_tower(*(torch.from_numpy(part).to(device) for part in given.values()))
            users: FloatArray = found.float().cpu().numpy()
            return users

        def attend(given: Mapping[str, NDArray]) -> FloatArray | None:
            items, lengths, languages = [torch.from_numpy(part).to(device) for part in given.values()][:3]
            found = hooks.attention_of_vectors(items, lengths, languages)
            return None if found is None else found.float().cpu().numpy()

        numbers = {tag: number for number, tag in enumerate(LANGUAGES, start=1)}
        return Tower(compute, self.longest, numbers, attend)

    def _histories(self, view: int) -> View:
        """Return a view of the items as histories consist of them."""
        languages = self.text_languages(view)
        vectors = self.history_vectors(view)
        nothing = np.empty(0, dtype=np.int64)
        return View(vectors, vectors, language_numbers(languages).numpy(), self.known_items, nothing)

    def text_languages(self, view: int) -> list[str]:
        """Return the language of the text that the model sees of each item in a view, ``(n_items,)``."""
        return catalog_of(self._run.train_data._dataset).text_languages[view]

    @property
    def known_items(self) -> NDArray[np.bool_] | None:
        """Which items make the bias count for those who have them in their history; None if it counts alike for all."""
        known = self._hooks.known_items()
        return None if known is None else known.cpu().numpy()

    def attention(self, view: int, rows: Rows) -> FloatArray | None:
        """Return how much of a user's attention each item of his history has; None if the model has none."""
        if type(self._hooks).attention_of_vectors is ModelHooks.attention_of_vectors:
            return None
        tower = self._tower()
        return tower.attend(tower.inputs(self._histories(view if view < self.n_views else 0), rows))

    def grown(
        self, vectors: Sequence[FloatArray], languages: Sequence[Sequence[str]], skipped: int, bias: float
    ) -> VectorScorer:
        """Return a scorer of more items, whose users are those of the model (:class:`VectorScorer`)."""
        tables, tower = [self.item_vectors(view) for view in range(self.n_views)], self._tower()
        views = [replace(self._histories(view), items=items) for view, (items, _) in enumerate(tables)]
        kept: dict[str, Any] = {"without_history": self.without_history, "reader": self}
        size = self.vectors(0, np.ones(1, dtype=np.int64)).shape[1]
        own = VectorScorer(self.name, views, tables[0][1], size, tower, **kept)
        return own.grown(vectors, languages, skipped, bias)

    @torch.no_grad()
    def vectors(self, view: int, items: IntArray) -> FloatArray:
        """Return vectors of items in a view.

        Raises:
            ConfigError: the model has none.
        """
        table = self._hooks.item_table(view if view < self.n_views else 0)
        if table is None:
            table = self.factors(view).items
        return table[torch.from_numpy(items).to(table.device)].float().cpu().numpy()

    @torch.no_grad()
    def user_vectors(self, view: int, rows: Rows) -> FloatArray:
        """Return the vectors of users, whose inner products with those of items are scores, but for the bias.

        Raises:
            ConfigError: the model has none.
        """
        found = []
        for part in self._parts(len(rows.users)):
            groups = self._factors(rows, part)
            vectors = groups[0][1].users.new_empty(
                sum(len(places) for places, _ in groups), groups[0][1].users.shape[1]
            )
            for places, factors in groups:
                vectors[places] = factors.users
            found.append(vectors.float().cpu().numpy())
        return np.concatenate(found)

    @property
    def n_views(self) -> int:
        """The number of views in which the model sees items: 1, or as many as the catalog has."""
        return int(getattr(getattr(self._run.model, "views", None), "number", 1))

    def factors(self, view: int) -> Factors:
        """Return the vectors and the bias of all items in a view of the model, with those of a user who has it.

        Raises:
            ConfigError: the model has none, or no user has the view.
        """
        of_user = getattr(getattr(self._run.model, "views", None), "of_user", None)
        users = [1] if of_user is None else (of_user == view).nonzero().flatten().tolist()
        if not users:
            raise ConfigError(
                "no user of the dataset reads one of the languages of its .user file: take users without interactions "
                "out of that file, or name it in load_col, such as user: [user_id, user_language]"
            )
        rows = Rows(np.array(users[-1:]), ["und"], [np.ones(1, dtype=np.int64)])
        return self._factors(rows, slice(0, 1))[0][1]

    def _factors(self, rows: Rows, part: slice) -> list[tuple[Tensor, Factors]]:
        groups = factors_of(self._run.model, self._batch(rows, part))
        if groups is None:
            raise ConfigError(f"the scores of {self.name} are no inner products: it has no vectors of users and items")
        return groups

    def _parts(self, n_rows: int) -> Iterator[slice]:
        return self._evaluation._rows_at_once(n_rows)

    def _batch(self, rows: Rows, part: slice) -> Interaction:
        """Return some rows as the model reads them."""
        dataset, config = self._run.dataset, self._run.config
        batch = {dataset.uid_field: torch.from_numpy(rows.users[part])}
        if self.by_history:
            recent = [history[-self.longest :] for history in rows.histories[part]]
            item_seq = torch.zeros(len(recent), self.longest, dtype=torch.long)
            for row, history in zip(item_seq, recent, strict=True):
                row[: len(history)] = torch.from_numpy(history)
            batch[dataset.iid_field + config["LIST_SUFFIX"]] = item_seq
            batch[config["ITEM_LIST_LENGTH_FIELD"]] = torch.tensor([len(history) for history in recent])
        return dataset.join(Interaction(batch)).to(config["device"])

    def _by_scores(self, batch: Interaction, candidates: IntArray, left_out: Sequence[IntArray]) -> _Rank:
        """Score the candidates of a batch, and return what ranks them."""
        nothing = torch.empty(0, dtype=torch.long)
        _, scores, _, _ = self._evaluation._full_sort_batch_eval((batch, None, nothing, nothing))
        is_candidate = torch.zeros(scores.shape[1], dtype=torch.bool, device=scores.device)
        is_candidate[torch.from_numpy(candidates).to(scores.device)] = True
        scores[:, ~is_candidate] = -torch.inf
        pairs = _pairs(left_out, scores.device)
        scores[pairs.rows, pairs.items] = -torch.inf

        def rank(k: int) -> tuple[Tensor, Tensor]:
            ranked = rank_scores(scores, Pairs(nothing, nothing), k, with_ranks=False)
            return ranked.best, ranked.scores

        return rank


def _in_order(rank: _Rank, k: int, n_candidates: int) -> tuple[IntArray, FloatArray]:
    """Return the ``k`` best items of each row and their scores, of equal ones the first items, as an export does.

    ``torch.topk`` takes any of those that are equal, and others for another ``k``. So one more is asked for, and where
    it has the score of the last one, up to ``_MOST_EQUAL`` more.

    Args:
        rank: of a batch.
        k: length of the lists.
        n_candidates: how many items there are.
    """

    def ranked(length: int) -> tuple[IntArray, FloatArray]:
        places, values = rank(min(length, n_candidates))
        return places.cpu().numpy(), values.float().cpu().numpy()

    items, scores = ranked(k + 1)
    if k and scores.shape[1] > k and bool(((scores[:, k] == scores[:, k - 1]) & np.isfinite(scores[:, k])).any()):
        items, scores = ranked(k + _MOST_EQUAL)
    return highest(items, scores, k)


def _by_factors(groups: list[tuple[Tensor, Factors]], candidates: IntArray, left_out: Sequence[IntArray]) -> _Rank:
    """Return what ranks by inner products of candidates alone; they are numbered anew, after a padding item."""
    device, n_items = groups[0][1].users.device, len(groups[0][1].items)
    chosen = torch.from_numpy(np.concatenate([[0], candidates])).to(device)
    if len(chosen) < n_items:
        parts = {id(factors.items): factors.items[chosen] for _, factors in groups}
        groups = [
            (rows, own._replace(items=parts[id(own.items)], bias=None if own.bias is None else own.bias[chosen]))
            for rows, own in groups
        ]
    place = torch.full((n_items,), -1, device=device)
    place[chosen] = torch.arange(len(chosen), device=device)
    pairs = _pairs(left_out, device)
    there = place[pairs.items] > 0
    nothing = torch.empty(0, dtype=torch.long, device=device)
    pairs = Pairs(pairs.rows[there], place[pairs.items[there]])

    def rank(k: int) -> tuple[Tensor, Tensor]:
        ranked = rank_groups(groups, pairs, Pairs(nothing, nothing), k, with_ranks=False)
        return chosen[ranked.best], ranked.scores

    return rank


def _pairs(left_out: Sequence[IntArray], device: torch.device) -> Pairs:
    """Return what is left out for each row as pairs."""
    lengths = torch.tensor([len(items) for items in left_out])
    rows = torch.arange(len(left_out)).repeat_interleave(lengths)
    items = np.concatenate([*left_out, np.empty(0, dtype=np.int64)])
    return Pairs(rows.to(device), torch.from_numpy(items).to(device))
