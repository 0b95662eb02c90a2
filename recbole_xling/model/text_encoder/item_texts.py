"""ItemTexts: all texts of a catalog as an encoder reads them, in evaluation and in training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recbole_xling.data.catalog import ItemCatalog
from recbole_xling.model.layers.language_centering import LanguageCentering
from recbole_xling.model.layers.language_embedding import language_numbers
from recbole_xling.model.text_encoder.distinct_texts import DistinctTexts
from recbole_xling.model.text_encoder.text_units import TextUnits
from recbole_xling.model.text_encoder.tokens import TokenizedTexts
from recbole_xling.utils.distributed import gather_rows, process


class ItemTexts(nn.Module):
    """Texts of items in all views, and further ones, with their languages and the units that they make.

    Args:
        catalog: the items.
        tokenize: texts to tokens.
        n_views: numbers of views in which users see items, in evaluation and in training.
        further: texts that no item needs to have.
        centering: whether vectors are taken without what all texts of their language have in common.

    Attributes:
        tokens: of the distinct texts.
        further: number of the distinct text of each further one.
        served: the units of evaluation.
        trained: those of training.
        item_language: language numbers of items in the views of evaluation, ``(n_views, n_items)``.
        trained_language: in those of training.
        text_language: of a distinct text: that of an item which has it, ``(n_texts,)``.
    """

    item_language: Tensor
    trained_language: Tensor
    text_language: Tensor

    def __init__(
        self,
        catalog: ItemCatalog,
        tokenize: Callable[[Sequence[str]], TokenizedTexts],
        n_views: tuple[int, int],
        further: Sequence[str],
        *,
        centering: bool,
    ) -> None:
        super().__init__()
        self.centering = LanguageCentering() if centering else None
        served, trained = catalog.texts_of_views, catalog.training_views.texts if catalog.training_views else []
        self.tokens = tokenize([*chain.from_iterable(served + trained), *further])
        tags = catalog.text_languages + catalog.training_languages
        language = torch.stack([language_numbers(of_view) for of_view in tags])  # (n_views, n_items)
        text_row = self.tokens.text_of_row[: language.numel()].view_as(language)
        self.further = self.tokens.text_of_row[language.numel() :]
        self._empty = int(text_row[0, 0])
        text_language = torch.zeros(self.tokens.n_texts, dtype=torch.long)
        text_language.scatter_reduce_(0, text_row.flatten(), language.flatten(), "amax")
        self.register_buffer("text_language", text_language, persistent=False)

        for_users, for_training = n_views
        self.served = self.trained = TextUnits(text_row[: len(served)], self.tokens.n_texts, by_reader=for_users > 1)
        item_language = trained_language = language[:for_users]
        if trained:
            rows = text_row[len(served) :]
            self.trained = TextUnits(rows, self.tokens.n_texts, by_reader=for_training > 1)
            trained_language = language[len(served) :][:for_training]
        self.register_buffer("item_language", item_language, persistent=False)
        self.register_buffer("trained_language", trained_language, persistent=False)

    def centered(self, encoded: DistinctTexts, candidates: Tensor) -> DistinctTexts:
        """Return vectors without what the candidates of their language have in common, if that is wanted.

        Args:
            encoded: the vectors of distinct texts, ``(U, D)``.
            candidates: those of them that count in the means, each once, unless empty. In training, processes that have
                the same candidate share its weight, so that it counts once.
        """
        if self.centering is None:
            return encoded
        means = self.means(encoded, candidates)
        vectors = F.normalize(encoded.vectors - means[self.text_language[encoded.texts]], dim=-1)
        return DistinctTexts(encoded.texts, vectors)

    def languages_of(self, texts: Tensor) -> Tensor:
        """Return the language of each text, ``(U,)``; 0 for the empty one, which items of any language may have."""
        return self.text_language[texts] * (texts != self._empty)

    def means(self, encoded: DistinctTexts, candidates: Tensor) -> Tensor:
        """Return what is taken from the vectors of each language, ``(languages, D)``; arguments as above."""
        assert self.centering is not None
        texts = encoded.texts
        weight = torch.isin(texts, candidates, assume_unique=True) & (texts != self._empty)  # (U,)
        if self.training and process()[1] > 1:
            everyone, n_processes = torch.unique(gather_rows(candidates), return_counts=True)
            weight = weight / n_processes[torch.searchsorted(everyone, texts) * weight]
        return self.centering.means(encoded.vectors, self.text_language[texts], weight)


class ItemTable:
    """The vectors of all items in a view; their texts are encoded once for given weights.

    Args:
        texts: of the items.
        encode: tokens and numbers of texts to vectors, ``(U, D)``.
        autocast: whether to encode in the reduced precision of the device.
    """

    def __init__(self, texts: ItemTexts, encode: Callable[..., Tensor], *, autocast: bool = False) -> None:
        self._texts, self._encode, self._autocast = texts, encode, autocast
        self._version: object = None
        self._units: DistinctTexts | None = None
        self._means: Tensor | None = None
        self._table: tuple[int, Tensor] | None = None

    def clear(self) -> None:
        """Forget the vectors, for which memory has better uses in training."""
        self._units = self._table = None

    def __call__(self, view: int, version: object = None, *, together: bool = False) -> Tensor:
        """Return the vectors of items in a view of evaluation, ``(n_items, D)``.

        Args:
            view: its number.
            version: of the weights; vectors of another version are encoded again.
            together: whether all processes are here, each to encode its share; the encoder must take the argument.
        """
        units = self._texts.served
        if self._units is None or self._version != version:
            distinct = torch.unique(units.of_item)
            texts = units.texts_of(distinct)
            with torch.autocast(device_type=texts.device.type, enabled=self._autocast):
                shared = {"together": True} if together else {}
                encoded = DistinctTexts(texts, self._encode(self._texts.tokens, texts, **shared))
            self._means = None if self._texts.centering is None else self._texts.means(encoded, texts)
            vectors = units.vectors(distinct, self._texts.centered(encoded, texts))
            self._units, self._version, self._table = DistinctTexts(distinct, vectors), version, None
        if self._table is None or self._table[0] != view:
            self._table = view, self._units.look_up(units.of_item[view])
        return self._table[1]

    def means(self, version: object = None) -> Tensor | None:
        """Return what texts of each language have in common in the catalog, ``(languages, D)``; None if it stays."""
        self(0, version)
        return self._means

    def of_new(self, tokens: TokenizedTexts, language: Tensor, version: object = None) -> Tensor:
        """Return vectors of texts that no item needs to have, as those of items are made, ``(N, D)``.

        Args:
            tokens: of the texts.
            language: numbers of their languages, ``(N,)``.
            version: of the weights.
        """
        means = self.means(version)
        with torch.autocast(device_type=language.device.type, enabled=self._autocast):
            vectors = self._encode(tokens, tokens.text_of_row)
        return vectors if means is None else F.normalize(vectors - means[language], dim=-1)
