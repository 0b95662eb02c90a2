"""Item texts, languages and text vectors in the order of a dataset's item ids."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recbole_xling.data.columns import column_kinds, read_cells
from recbole_xling.data.item_vectors import averaged, distinct_texts, unit_norm
from recbole_xling.data.text_variants import with_variants
from recbole_xling.data.text_views import Text, TextViews, check_languages, is_left_out, known_language, texts_in
from recbole_xling.encode.base import Encoder, Identity, create_encoder
from recbole_xling.encode.cache import EmbeddingCache
from recbole_xling.encode.vector_table import vector_table
from recbole_xling.errors import DataError, NoTextError
from recbole_xling.language.tags import UNDETERMINED, asked_language, covers, stated_language, tag_among
from recbole_xling.language.users import LANGUAGE_SOURCE, USER_LANGUAGE, Readers
from recbole_xling.text.atomic_files import file_format, read_atomic_file
from recbole_xling.text.record import DISPLAY, ItemText
from recbole_xling.text.store import ItemTextStore, find_item_text
from recbole_xling.text.template import TextTemplate
from recbole_xling.text.view import ALL, AUTO, LANGUAGE, OWN, READER, TextView
from recbole_xling.utils.paths import user_cache_folder

logger = logging.getLogger(__name__)

_MAPPED_FROM = 100_000  # items: vectors of fewer are read into memory


class ItemCatalog:
    """The items of a dataset without the interactions: their texts, languages and text vectors.

    Each of these is read when it is first used.

    Args:
        config: the configuration (``text_fields``, ``text_template``, ``encoder``, ...).
        tokens: external item ids in the order of internal ids; the first is the padding item.
        folder: the dataset's folder.
        dataset: the dataset's name.
        known_languages: languages that a trained model has numbered; they keep their numbers.

    Attributes:
        encoded_by: identity of the encoder whose vectors somebody has asked for; None if nobody has.
    """

    encoded_by: Identity | None = None

    def __init__(
        self, config: Any, tokens: Sequence[str], folder: Path, dataset: str, known_languages: Sequence[str] = ()
    ) -> None:
        self.config = config
        self.tokens = tokens
        self.folder = folder
        self.dataset = dataset
        self.known_languages = tuple(known_languages)

    @cached_property
    def store(self) -> ItemTextStore:
        """The item texts.

        Raises:
            NoTextError: the dataset has neither an itemtext file nor the columns named by ``text_fields``.
            DataError: the file is wrong; the message names its line.
        """
        return find_item_text(
            self.folder,
            self.dataset,
            self.config["text_fields"] or [],
            item_id_field=self.config["ITEM_ID_FIELD"],
            language_field=self.config["ITEM_LANGUAGE_FIELD"] or "item_language",
            **file_format(self.config),
        )

    @cached_property
    def any_texts(self) -> ItemTextStore:
        """The item texts; empty if the dataset has none, which matters only to models that read them.

        Raises:
            DataError: the file is wrong; the message names its line.
        """
        try:
            return self.store
        except NoTextError:
            return ItemTextStore()

    @cached_property
    def languages(self) -> list[str]:
        """Language of each item: of its display text, or as the ``.item`` file states it; ``und`` where unknown.

        Raises:
            DataError: a file of texts or items is wrong; the message names its line.
        """
        stated, problem = self._stated_item_languages(), None
        try:
            store = self.store
        except NoTextError as error:
            store, problem = ItemTextStore(), error
        known = [(token, store.display_language(token) or UNDETERMINED) for token in self.tokens]
        languages = [stated.get(token, tag) if tag == UNDETERMINED else tag for token, tag in known]
        if problem is not None and set(languages) == {UNDETERMINED}:
            logger.warning("item languages are unknown, so results per language are left out: %s", problem)
        return languages

    def _stated_item_languages(self) -> dict[str, str]:
        """Return the language of each item whose row of the ``.item`` file states one."""
        path = self.folder / f"{self.dataset}.item"
        columns = [self.config["ITEM_ID_FIELD"], self.config["ITEM_LANGUAGE_FIELD"] or "item_language"]
        file = read_atomic_file(path, columns, **file_format(self.config)) if path.is_file() else None
        if file is None or len(file.types) < len(columns):
            return {}
        cells: dict[str, str] = {}
        for item, tag in file.cells.select(columns).drop_nulls(columns[0]).iter_rows():
            cells.setdefault(item, tag or "")  # as of RecBole's features: of several rows of an item the first counts
        return {item: stated_language(tag) for item, tag in cells.items() if tag}

    @cached_property
    def language_names(self) -> tuple[str, ...]:
        """The languages in which models see items, in the order of their numbers from 1: known ones, then others."""
        seen = set(self.languages).union(*self.text_languages[: None if self.has_reader_vectors else 1])
        seen = seen.union(*self.training_languages)
        return (*self.known_languages, *sorted(seen - {UNDETERMINED, *self.known_languages}))

    @property
    def language_ids(self) -> NDArray[np.int64]:
        """Number of the language of each item's text in :attr:`language_names`; 0 where unknown, ``(n_items,)``."""
        return self.model_language_ids[0]

    # ---- readers ----------------------------------------------------------------------------------------------

    @property
    def _user_file(self) -> Path:
        return self.folder / f"{self.dataset}.user"

    @cached_property
    def _language_cells(self) -> dict[str, str]:
        """The cell of column ``user_language`` of each user by external id; empty where there is no such column."""
        if USER_LANGUAGE not in column_kinds(self._user_file, self.config):
            return {}
        return read_cells(self._user_file, self.config["USER_ID_FIELD"], USER_LANGUAGE, self.config)

    @cached_property
    def stated_languages(self) -> dict[str, str]:
        """The language of each user who states one, by external id: column ``user_language`` of the ``.user`` file.

        The file is read raw, whether or not ``load_col`` names the column. A value that names no language counts as not
        stated, and so does one that a profile has derived (column ``language_source``).

        Raises:
            DataError: a row of the file is wrong.
        """
        path, cells = self._user_file, self._language_cells
        if LANGUAGE_SOURCE in column_kinds(path, self.config):
            source = read_cells(path, self.config["USER_ID_FIELD"], LANGUAGE_SOURCE, self.config)
            cells = {user: value for user, value in cells.items() if source[user] != "derived"}
        known = set(self.languages)
        tags = {value: tag_among(value, known) for value in set(cells.values())}
        odd = sorted(value for value, tag in tags.items() if tag == UNDETERMINED and value not in ("", UNDETERMINED))
        if odd:
            logger.warning(
                "%s: %s in column %s names no language, so those users' languages are derived from their histories",
                *(path, ", ".join(map(repr, odd[:5])), USER_LANGUAGE),
            )
        return {user: tags[value] for user, value in cells.items() if tags[value] != UNDETERMINED}

    @property
    def _some_state_none(self) -> bool:
        """Whether some users see display texts because they state no language, or have no row to state it in."""
        if not self.stated_languages or len(self.stated_languages) < len(self._language_cells):
            return True
        columns = self.config["load_col"]
        if self.config["filter_inter_by_user_or_item"] and (columns is None or columns.get("user")):
            return False  # interactions of users without a row are left out
        return not self._interacting_users <= self._language_cells.keys()

    @property
    def _interacting_users(self) -> set[str]:
        """External ids of the users in the files of interactions."""
        name, found = self.config["USER_ID_FIELD"], set[str]()
        for part in self.config["benchmark_filename"] or [""]:
            path = self.folder / ".".join(filter(None, (self.dataset, part, "inter")))
            if path.is_file():
                file = read_atomic_file(path, [name], **file_format(self.config))
                found.update(file.cells[name].drop_nulls().unique() if name in file.types else ())
        return found

    @cached_property
    def _own(self) -> dict[str, NDArray[np.bool_]]:
        """Which items have an own text (no translation) in the languages that users state, ``(n_items,)`` each.

        Languages in which all users would see the display texts anyway are left out.
        """
        if not self.stated_languages or set(self.languages) == {UNDETERMINED}:
            return {}
        return texts_in(self.stated_languages.values(), self.any_texts, self.tokens, self.languages, self._template)

    @cached_property
    def text_view(self) -> str:
        """The setting ``text_view``, where it is ``auto`` what that stands for.

        That is ``reader`` if any item has a text in a language that a user states besides a display text in another
        one, else ``display``.
        """
        view: str = self.config["text_view"] or AUTO  # RecBole's own configuration lacks it
        if view == AUTO:
            view = READER if self._own else DISPLAY
        return view

    def readers(self, user_tokens: Sequence[str]) -> Readers:
        """Return what users state and see, given their external ids in the order of internal ids.

        To a user who states ``en``, an item in a variant of it, such as ``en-GB``, is in ``en``.
        """
        views = self.readers_of_views(user_tokens)
        own = dict(views.own)
        for language in sorted({*views.stated} - {UNDETERMINED, *own}):
            variants = {tag for tag in set(self.languages) if covers(language, tag)}
            if variants - {language}:
                own[language] = np.array([tag in variants for tag in self.languages])
        return replace(views, own=own)

    def readers_of_views(self, user_tokens: Sequence[str]) -> Readers:
        """Return :meth:`readers` as models have them: a language has a view of its own only if its texts are others."""
        stated = [self.stated_languages.get(token, UNDETERMINED) for token in user_tokens]
        return Readers(stated, self.languages, self._own if self.text_view == READER else {})

    # ---- texts ------------------------------------------------------------------------------------------------

    def text_in(self, token: str, language: str) -> ItemText | None:
        """Return the text of an item that readers of a language see: their own, or else the display text.

        None if it has neither.
        """
        own = TextView(f"{LANGUAGE}:{language}").choose(self.any_texts, token, self._template)
        return own or self.any_texts.display(token)

    @cached_property
    def _template(self) -> TextTemplate:
        return TextTemplate(self.config["text_template"])

    @property
    def texts(self) -> list[str]:
        """The rendered text of each item in the first view, empty where the item has no text.

        Raises:
            DataError: ``text_view`` is ``pivot:<x>`` and items have no text in x.
        """
        return self.texts_of_views[0]

    @property
    def texts_of_views(self) -> list[list[str]]:
        """The rendered texts of all items in each view of :attr:`views`."""
        return self.views.texts

    @cached_property
    def views(self) -> TextViews:
        """The views of the items in evaluation and serving.

        There is one view, the one that ``text_view`` names, or for ``reader`` that of display texts and then one per
        language of :meth:`readers`.

        Raises:
            DataError: ``text_view`` is ``pivot:<x>`` and items have no text in x.
        """
        template, view = self._template, TextView(self.text_view)
        absent = sorted(set(template.fields) - set(self.store.fields))
        if absent and self.store.fields:
            raise DataError(
                f"text_template {template.template!r}: no item of '{self.dataset}' has a field '{absent[0]}'; "
                f"items have {', '.join(self.store.fields)}"
            )
        rendered = [view.render(self.store, token, template) for token in self.tokens]
        viewed = [text for text in rendered if text is not None]
        if len(viewed) < len(rendered):
            called = asked_language(view.language)
            renamed = "" if called == view.language else f" and set text_view to pivot:{called}, as it calls them then"
            raise DataError(
                f"text_view {self.text_view}: {len(rendered) - len(viewed)} of {len(rendered) - 1} items have no text "
                f"in {view.language} (the first is '{self.tokens[rendered.index(None)]}'): translate them "
                f"with 'recbole-xling translate {self.dataset} --to {view.language} --system ...'{renamed}"
            )
        empty = [token for token, (text, _) in zip(self.tokens[1:], viewed[1:], strict=True) if not text]
        if 0 < len(empty) < len(viewed) - 1:
            what = "%d of %d items have no text (the first is '%s'): of them a model has nothing but the id"
            logger.warning(what, len(empty), len(viewed) - 1, empty[0])
        own = self._own if self.text_view == READER else {}
        return TextViews(self.store, self.tokens, template, viewed, own, first=view)

    @cached_property
    def training_views(self) -> TextViews | None:
        """The views of the items in training where ``train_text_view`` asks for others than evaluation's, else None.

        The first is the one of everybody in evaluation, each further one that of a language: those that users state,
        those of display texts if some user states none, and those that ``train_text_languages`` names.

        Raises:
            DataError: ``train_text_languages`` names a language in which no item has a text.
        """
        if (self.config["train_text_view"] or OWN) == OWN:  # RecBole's own configuration lacks it
            return None
        translations = bool(self.config["train_text_translations"])
        shown = [known_language(text, tag) for text, tag in zip(self.views.shown, self.languages, strict=True)]
        weights = self.training_language_weights
        check_languages(self.config["train_text_languages"] or (), self.store, self.dataset, translations=translations)
        template, seen = self.views.template, [tag for _, tag in shown]
        wanted = [language for language, weight in weights.items() if weight]
        own = texts_in(wanted, self.store, self.tokens, seen, template, translations=translations)
        views = TextViews(self.store, self.tokens, template, shown, own, translations, self.views.first)
        if self.config["train_text_view"] == ALL and len(wanted) < len(weights):
            views = replace(views, shown=self._without_left_out(views, weights))
        views = with_variants(views, self.config, views.chances(weights), weights)
        if not own and not views.variants and len(self.texts_of_views) == 1:
            logger.warning(
                "train_text_view: %s has no effect: no item has a second text in %s",
                *(self.config["train_text_view"], ", ".join(sorted(weights)) or "any language"),
            )
            return None
        return views

    @staticmethod
    def _without_left_out(views: TextViews, weights: Mapping[str, float]) -> list[Text]:
        """Return each item's text in the first view, or one in another language where its own has weight 0."""
        place = views.chances(weights).argmax(axis=0).tolist()
        return [
            views.rendered[view][item] if is_left_out(text[1], weights) else text
            for item, (view, text) in enumerate(zip(place, views.shown, strict=True))
        ]

    @cached_property
    def training_language_weights(self) -> dict[str, float]:
        """The languages of :attr:`training_views`, and how often each is drawn compared to the others."""
        read = set(self.stated_languages.values())
        if self._some_state_none:
            read |= set(self.languages) - {UNDETERMINED}
        named = self.config["train_text_languages"] or {}
        named = named if isinstance(named, dict) else dict.fromkeys(named, 1.0)
        return {**dict.fromkeys(sorted(read), 1.0), **named}

    @cached_property
    def vectors(self) -> NDArray[np.float32]:
        """Text vectors, ``(n_items, dimension)``; zero for the padding item and items without text.

        They are read from the embedding cache; texts that it lacks are encoded first. An item that has different texts
        in several views has the mean of their vectors, as long as they are on average.

        Raises:
            DataError: no item has text.
        """
        vectors, row = averaged(*self._encoded(self.texts_of_views))
        return vectors[row[0]]

    def encode(self) -> None:
        """Put the vectors of all texts, those of training too, into the embedding cache as far as it lacks them.

        Raises:
            DataError: no item has text.
        """
        training = self.training_views
        texts, _ = self._to_encode([*self.texts_of_views, *(training.texts if training else ())])
        _cache(self.config).fill(self.encoder(), texts, show_progress=bool(self.config["show_progress"]))

    @property
    def has_reader_vectors(self) -> bool:
        """Whether models see each item as its reader does: ``reader_vectors``, where there are several views."""
        return self.config["reader_vectors"] == READER == self.text_view and bool(self._own)

    @property
    def model_vectors(self) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """The text vectors that models see: vectors ``(n, dimension)``, and each item's row in them in each view.

        Rows have the shape ``(n_views, n_items)``. The first views are those of evaluation: one view unless
        :attr:`has_reader_vectors`. Those of :attr:`training_views` follow: one if ``train_text_view`` is ``all``.

        Raises:
            DataError: no item has text.
        """
        training = self.training_views
        if training is None and not self.has_reader_vectors:
            return self.vectors, np.arange(len(self.tokens))[None]
        views = self.texts_of_views
        vectors, row = self._encoded([*views, *(training.texts if training else ())])
        served, trained = row[: len(views)], row[len(views) :]
        if not self.has_reader_vectors:
            vectors, served = averaged(vectors, served)
        if self.config["train_text_view"] == ALL and training:
            vectors, trained = averaged(vectors, trained)
        used, row = np.unique(np.concatenate([served, trained]), return_inverse=True)
        return vectors[used], row.reshape(-1, len(self.tokens))

    @property
    def unit_vectors(self) -> tuple[NDArray[Any], NDArray[np.int64], float | None]:
        """:attr:`model_vectors` at unit scale, and what they were divided by.

        Those of a large catalog with one view are mapped from a file, which has the numbers of ``vector_dtype``; what
        they were divided by is not known then.

        Raises:
            DataError: no item has text.
        """
        several = self.training_views is not None or len(self.texts_of_views) > 1
        if several or len(self.tokens) < _MAPPED_FROM:
            vectors, row = self.model_vectors
            norm = unit_norm(vectors)
            return vectors / np.float32(norm), row, norm
        texts, (row,) = self._to_encode(self.texts_of_views)
        options = {"dtype": self.config["vector_dtype"] or "float32", "show_progress": self.config["show_progress"]}
        table = vector_table(_cache(self.config), self.encoder(), texts, row, **options)
        return table, np.arange(len(row))[None], None

    @property
    def view_languages(self) -> list[list[str]]:
        """The language in which readers see each item in each view of :attr:`views`, ``(n_views, n_items)``."""
        readers = self.readers([])
        return [readers.seen_by(view) for view in range(1 + len(readers.own))]

    @property
    def text_languages(self) -> list[list[str]]:
        """The language of the text that models see of each item in each view of :attr:`views`, ``(n_views, n_items)``.

        It is :attr:`view_languages` unless ``text_view`` names a language in which models see all items that have it.
        """
        if not TextView(self.text_view).language:
            return self.view_languages
        tags = zip(self.views.languages[0], self.languages, strict=True)
        return [[of_item if tag == UNDETERMINED else tag for tag, of_item in tags]]

    @property
    def training_languages(self) -> list[list[str]]:
        """The same of each view of :attr:`training_views`, ``(n_views, n_items)``; empty if there are none."""
        return [] if self.training_views is None else self.training_views.languages

    @property
    def model_language_ids(self) -> NDArray[np.int64]:
        """:attr:`language_ids` in each view that models see, as for :attr:`model_vectors`, ``(n_views, n_items)``.

        They are the languages of the texts. A mean of texts has the language of the one that everybody sees.
        """
        index = {name: number for number, name in enumerate(self.language_names, start=1)}
        served = self.text_languages[: None if self.has_reader_vectors else 1]
        trained = self.training_languages[: 1 if self.config["train_text_view"] == ALL else None]
        return np.array([[index.get(tag, 0) for tag in languages] for languages in served + trained], dtype=np.int64)

    def _encoded(self, texts_of_views: list[list[str]]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Return the vectors of distinct texts, and each item's row in them in each view (:func:`distinct_texts`).

        Raises:
            DataError: no item has text.
        """
        texts, row = self._to_encode(texts_of_views)
        encoded = _cached_vectors(self.config, self.encoder(), texts)
        return np.concatenate([np.zeros_like(encoded[:1]), encoded]), row

    def _to_encode(self, texts_of_views: list[list[str]]) -> tuple[list[str], NDArray[np.int64]]:
        """Return distinct texts, and which of them each item has in each view (:func:`distinct_texts`).

        Raises:
            DataError: no item has text.
        """
        texts, row = distinct_texts(texts_of_views)
        if not texts:
            raise DataError(
                f"no item of '{self.dataset}' has text under text_template={self.config['text_template']!r}: "
                "name fields that the item texts have"
            )
        missing = int((row == 0).all(axis=0).sum()) - 1
        if missing:
            logger.warning("%d of %d items have no text and get a zero vector", missing, row.shape[1] - 1)
        return texts, row

    def encoder(self) -> Encoder:
        """Build the encoder that the configuration names; warn about languages that it does not know."""
        encoder = configured_encoder(self.config)
        self.encoded_by = encoder.identity
        known = encoder.languages
        if known is not None:
            views = [self.views, *([self.training_views] if self.training_views else ())]
            read = set().union(*(view.text_languages for view in views))
            unknown = {lang for lang in read if lang.split("-")[0] not in known} - {UNDETERMINED}
            if unknown:
                logger.warning(
                    "encoder '%s' does not know %s; texts in %s may get poor vectors",
                    self.config["encoder"],
                    ", ".join(sorted(unknown)),
                    "it" if len(unknown) == 1 else "them",
                )
        return encoder


def encode_texts(config: Any, texts: Sequence[str]) -> NDArray[np.float32]:
    """Return the vectors of texts by the configured encoder, ``(n, dimension)``, as far as possible from the cache.

    Raises:
        EncoderError: the encoder cannot be built.
    """
    return _cached_vectors(config, configured_encoder(config), texts)


def configured_encoder(config: Any) -> Encoder:
    """Return the encoder that the settings name; its weights are loaded when they are needed."""
    return create_encoder(
        config["encoder"],
        max_length=config["encoder_max_length"],
        batch_size=config["encoder_batch_size"] or 64,
        prompt=config["encoder_prompt"],
        **(config["encoder_options"] or {}),
    )


def _cache(config: Any) -> EmbeddingCache:
    return EmbeddingCache(config["embedding_cache_dir"] or user_cache_folder("embeddings"))


def _cached_vectors(config: Any, encoder: Encoder, texts: Sequence[str]) -> NDArray[np.float32]:
    return _cache(config).vectors(encoder, texts, show_progress=bool(config["show_progress"]))


def catalog_of(dataset: Any) -> ItemCatalog:
    """Return the catalog of a dataset's items in the order of its item ids; it is built for RecBole's own datasets."""
    if hasattr(type(dataset), "catalog"):
        catalog: ItemCatalog = dataset.catalog
        return catalog
    if "catalog" not in vars(dataset):
        tokens = [str(token) for token in dataset.field2id_token[dataset.iid_field]]
        dataset.catalog = ItemCatalog(dataset.config, tokens, Path(dataset.dataset_path), dataset.dataset_name)
    built: ItemCatalog = dataset.catalog
    return built


def dataset_catalog(config: Any) -> ItemCatalog:
    """Return the catalog of all items with text of the configured dataset, in the order of its text file."""
    catalog = ItemCatalog(config, [], Path(config["data_path"]), config["dataset"])
    catalog.tokens = ["[PAD]", *catalog.store]
    return catalog
