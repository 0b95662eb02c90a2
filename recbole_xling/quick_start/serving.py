"""What a loaded run recommends: a Recommender whose scores are those of the trained model."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from recbole_xling.data.catalog import ItemCatalog, catalog_of
from recbole_xling.data.columns import column_kinds, read_cells
from recbole_xling.data.splits.files import has_histories
from recbole_xling.model.base import hooks_of
from recbole_xling.quick_start.model_scorer import ModelScorer
from recbole_xling.serve.added import add_items, intake_of
from recbole_xling.serve.answers import to_frame
from recbole_xling.serve.catalog import Catalog, Columns, Filters, Users
from recbole_xling.serve.explanations import Explanation, explain
from recbole_xling.serve.folder import as_remembered
from recbole_xling.serve.new_items import new_item
from recbole_xling.serve.recommender import Recommender
from recbole_xling.serve.withdrawn import withdraw

if TYPE_CHECKING:
    from recbole_xling.quick_start.build import Run

_TITLE = 200  # characters of a text without a field "title"


class Serving:
    """Lists of a run that was loaded from its folder; users are known by all their interactions, the test's included.

    Lists are DataFrames with the columns ``user``, ``rank``, ``item``, ``title``, ``language``, ``score`` and ``note``,
    which says what a list is not. All methods raise a ConfigError if an argument is wrong.
    """

    @cached_property
    def recommender(self) -> Recommender:
        """What answers, also without pandas."""
        run: Run = self  # type: ignore[assignment]
        catalog = catalog_of(run.train_data._dataset)
        scorer = ModelScorer(run)
        users = _served_users(run, catalog, by_user=scorer.by_user)
        own = Recommender(_served_items(run, catalog), users, scorer, scorer.intake)
        folder = run.config["run_dir"]
        return as_remembered(own, folder) if folder else own

    def recommend(
        self,
        users: Sequence[str],
        k: int = 10,
        *,
        reader: str | None = None,
        exclude_seen: bool = True,
        languages: Collection[str] | None = None,
        items: Collection[str] | None = None,
        block: Collection[str] = (),
        where: Mapping[str, Collection[str]] | None = None,
    ) -> Any:
        """Recommend items to users.

        Args:
            users: external ids; who is unknown gets what is chosen most.
            k: length of the lists.
            reader: the language that they read, of users whose language nobody knows.
            exclude_seen: leave out what a user has chosen already.
            languages: in which he is to see the items.
            items: no others than these.
            block: not these.
            where: values of which one must be the item's, by column of the ``.item`` file.
        """
        filters = Filters(languages, items, block, where or {})
        found = self.recommender.recommend(users, k, reader=reader, exclude_seen=exclude_seen, filters=filters)
        return to_frame(found)

    def recommend_histories(
        self,
        histories: Sequence[Sequence[str]],
        k: int = 10,
        *,
        users: Sequence[str | None] | None = None,
        reader: str | None = None,
        exclude_seen: bool = True,
        languages: Collection[str] | None = None,
        items: Collection[str] | None = None,
        block: Collection[str] = (),
        where: Mapping[str, Collection[str]] | None = None,
    ) -> Any:
        """Recommend items by histories, such as those of new users.

        Args:
            histories: ids of items, the oldest of each first.
            k: length of the lists.
            users: whose histories they are, for models and languages that depend on it.
            reader: language of users who are not named or unknown.
            exclude_seen: leave out the items of the history.
            languages: in which they are to see the items.
            items: no others than these.
            block: not these.
            where: values of which one must be the item's, by column of the ``.item`` file.
        """
        filters = Filters(languages, items, block, where or {})
        options: dict[str, Any] = {"users": users, "reader": reader, "exclude_seen": exclude_seen, "filters": filters}
        return to_frame(self.recommender.recommend_histories(histories, k, **options))

    def explain(
        self,
        item: str,
        *,
        user: str | None = None,
        history: Sequence[str] | None = None,
        reader: str | None = None,
        language: str = "en",
        words: bool = False,
    ) -> Explanation:
        """Tell what speaks for an item: what its score loses without each item of a user's history, and more.

        :func:`recbole_xling.serve.explain` tells what else there is.

        Args:
            item: that is explained.
            user: whose history counts, unless one is given.
            history: ids of items, the oldest first.
            reader: language of a user who is not known.
            language: of the sentence: da, de, en, es, fr, it, nl or pt.
            words: whether to leave out each word of the item's title in turn as well, for models that read texts.
        """
        given: dict[str, Any] = {"user": user, "history": history, "reader": reader, "language": language}
        return explain(self.recommender, item, **given, words=words)

    def add_items(self, items: Sequence[Mapping[str, Any]], *, replace: bool = False) -> None:
        """Serve items that training did not have from now on, by their texts or vectors; the run folder remembers them.

        Args:
            items: records such as ``{"item_id": "p99", "texts": {"de": "Teekanne", "fr": "Théière"}}`` or
                ``{"item_id": "p99", "text": "Teekanne", "language": "de"}``. The first language is the one that
                everybody sees. A text may be an object of fields, as ``text_template`` names them; ``vector`` is one
                that :meth:`encode_items` has made. All others are columns of the ``.item`` file.
            replace: whether they may take the place of items that were added before.
        """
        own, folder = self.recommender, self.config["run_dir"]  # type: ignore[attr-defined]
        intake = intake_of(own)
        add_items(own, folder, [new_item(item, intake, own.trained.catalog) for item in items], replace=replace)
        vars(self)["recommender"] = as_remembered(own, folder)

    def withdraw(self, items: Sequence[str]) -> None:
        """Show these items to nobody from now on; the run folder remembers it."""
        withdraw(self.recommender.catalog, self.config["run_dir"], add=items)  # type: ignore[attr-defined]

    def restore(self, items: Sequence[str]) -> None:
        """Show items again that were withdrawn."""
        withdraw(self.recommender.catalog, self.config["run_dir"], remove=items)  # type: ignore[attr-defined]

    def similar_items(self, item: str, k: int = 10, *, language: str | None = None) -> Any:
        """Return the items with the largest cosine of vectors, of one language or of all."""
        return to_frame([self.recommender.similar_items(item, k, language=language)]).drop(columns="user")

    def encode_items(self, texts: Sequence[str], languages: Sequence[str] | None = None) -> NDArray[np.float32]:
        """Return the vectors that new items with these texts have, ``(n, D)``.

        Args:
            texts: whole, as ``text_template`` makes them of the fields of an item.
            languages: of the texts, for models that center their vectors.
        """
        return self.recommender.scorer.vectors_of_texts(texts, languages or ["und"] * len(texts))

    def recommend_texts(
        self,
        texts: Sequence[str],
        k: int = 10,
        *,
        text_languages: Sequence[str] | None = None,
        reader: str | None = None,
        languages: Collection[str] | None = None,
        items: Collection[str] | None = None,
        block: Collection[str] = (),
        where: Mapping[str, Collection[str]] | None = None,
    ) -> Any:
        """Recommend items by texts, each as if it were the item that somebody has chosen.

        Args:
            texts: what somebody likes, in his words.
            k: length of the lists.
            text_languages: of the texts, for models that center their vectors.
            reader: language of the readers.
            languages: in which they are to see the items.
            items: no others than these.
            block: not these.
            where: values of which one must be the item's, by column of the ``.item`` file.
        """
        filters = Filters(languages, items, block, where or {})
        options: dict[str, Any] = {"text_languages": text_languages, "reader": reader, "filters": filters}
        return to_frame(self.recommender.recommend_texts(texts, k, **options))

    def user_vectors(
        self,
        histories: Sequence[Sequence[str]],
        *,
        users: Sequence[str | None] | None = None,
        reader: str | None = None,
    ) -> NDArray[np.float32]:
        """Return the vectors of users by their histories, ``(B, D)``, as for :meth:`recommend_histories`."""
        return self.recommender.user_vectors(histories, users=users, reader=reader)


# ---- items and users ------------------------------------------------------------------------------------------


def _served_items(run: Run, catalog: ItemCatalog) -> Catalog:
    """Return the items of a run as its readers see them."""
    readers = catalog.readers([])
    languages = [readers.seen_by(view) for view in range(1 + len(readers.own))]
    titles = [_titles(catalog, of_view) for of_view in languages]
    view_of = {language: view for view, language in enumerate(readers.own, start=1)}
    absent = getattr(run.dataset, "absent", {}).get(run.dataset.iid_field, ())
    counts = run.train_data._dataset.train_item_counts
    return Catalog(catalog.tokens, titles, languages, view_of, counts, absent, lambda: _columns(catalog))


def _titles(catalog: ItemCatalog, languages: Sequence[str]) -> list[str]:
    """Return the titles of all items, each in its language; empty where there is no text."""
    texts = [catalog.text_in(token, language) for token, language in zip(catalog.tokens, languages, strict=True)]
    return ["" if text is None else text.fields.get("title") or text.excerpt(_TITLE) for text in texts]


def _columns(catalog: ItemCatalog) -> Columns:
    """Read the columns of tokens of the ``.item`` file; those of texts are left out."""
    config, path = catalog.config, catalog.folder / f"{catalog.dataset}.item"
    several, found = config["seq_separator"], {}
    others = {config["ITEM_ID_FIELD"], *(config["text_fields"] or ())}
    for name, kind in column_kinds(path, config).items():
        if kind not in ("token", "token_seq") or name in others:
            continue
        cells = read_cells(path, config["ITEM_ID_FIELD"], name, config)
        of_items = [cells.get(token, "") for token in catalog.tokens]
        is_list = kind == "token_seq"
        found[name] = [(cell.split(several) if is_list else [cell]) if cell else [] for cell in of_items]
    return found


def _taught(run: Run) -> NDArray[np.bool_] | None:
    """Return which users a model that knows users by ids was trained on, ``(n_users,)``; None if it serves all."""
    if hooks_of(run.model).ranks_without_history:
        return None
    # a run that went on from another's weights keeps what that had learned of others
    users = run.interactions.users if run.config["init_from"] else run.train_data._dataset.training_pairs()[0]
    taught = np.bincount(users, minlength=run.dataset.user_num) > 0
    if (known := getattr(run.dataset, "trained_on", None)) is not None:
        taught[len(known.vocabulary.get(run.dataset.uid_field, taught)) :] = False
    return taught


def _served_users(run: Run, catalog: ItemCatalog, *, by_user: bool) -> Users:
    """Return the users of a run with all their interactions."""
    tokens = [str(token) for token in run.dataset.field2id_token[run.dataset.uid_field]]
    users = Users.of_interactions(tokens, catalog.readers(tokens).stated, *run.interactions)
    if by_user:
        users = replace(users, taught=_taught(run))
    if has_histories(run.dataset):
        missing = f"'{run.dataset.dataset_name}' states the history of each row, so there is none of each user"
        return replace(users, missing=missing)
    return users
