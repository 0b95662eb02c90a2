"""TextViews: the texts of all items as they are shown to everybody, and as readers of each language see them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property

import numpy as np
from numpy.typing import NDArray

from recbole_xling.errors import DataError
from recbole_xling.language.tags import UNDETERMINED, covers
from recbole_xling.text.record import DISPLAY, PARALLEL, ItemText
from recbole_xling.text.store import ItemTextStore
from recbole_xling.text.template import TextTemplate
from recbole_xling.text.view import LANGUAGE, PIVOT, TextView

Text = tuple[str, str]
"""A rendered text, and its language."""


def texts_in(
    languages: Iterable[str],
    store: ItemTextStore,
    tokens: Sequence[str],
    shown: Sequence[str],
    template: TextTemplate,
    *,
    translations: bool = False,
) -> dict[str, NDArray[np.bool_]]:
    """Return which items have a text in each language, ``(n_items,)`` each; one in other fields alone is none.

    Languages are left out in which no item has another text than the one that everybody sees anyway.

    Args:
        languages: BCP 47 tags, each of which covers its variants.
        store: the texts.
        tokens: the items.
        shown: language of the text of each item that everybody sees, ``(n_items,)``.
        template: how a text is made of an item's fields.
        translations: whether machine translations count.
    """
    wanted = sorted(set(languages))
    found = {language: np.zeros(len(tokens), dtype=bool) for language in wanted}
    fitting = cache(lambda tag: [language for language in wanted if covers(language, tag)])
    differs = set()
    for item, (token, seen) in enumerate(zip(tokens, shown, strict=True)):
        for text in (store.display(token), *store.parallel(token)):
            if text is None or (text.source not in (DISPLAY, PARALLEL) and not translations):
                continue
            if not any(text.fields.get(name, "").strip() for name in template.fields):
                continue
            for language in fitting(text.language):
                found[language][item] = True
                is_better = text.source != DISPLAY and text.language == language != seen  # than a variant that is shown
                if is_better or language not in fitting(seen):
                    differs.add(language)
    return {language: mask for language, mask in found.items() if language in differs}


def check_languages(named: Iterable[str], store: ItemTextStore, dataset: str, *, translations: bool) -> None:
    """Check that items have texts in the languages that ``train_text_languages`` names.

    Raises:
        DataError: no item has a text in one of them.
    """
    texts = store.texts() if named else ()
    has = {text.language for text in texts if translations or text.source in (DISPLAY, PARALLEL)}
    for language in named:
        if not any(covers(language, tag) for tag in has):
            raise DataError(
                f"train_text_languages: no item of '{dataset}' has a text of its own in '{language}', only in "
                f"{', '.join(sorted(has))}: leave it out, or fill it by 'recbole-xling translate {dataset} "
                f"--to {language} --system ...' and set train_text_translations: True"
            )


@dataclass(frozen=True)
class TextViews:
    """The texts of all items in several views: the first is everybody's, each further one that of a language's readers.

    Variants follow, which nobody reads: training may draw them.

    Attributes:
        store: where the texts come from.
        tokens: the items.
        template: how a text is made of an item's fields.
        shown: each item's text in the first view.
        own: the items that the view of a language shows in it, a mask ``(n_items,)`` by language. All others have there
            what everybody sees.
        translations: whether a machine translation will do where an item has no text of its own in the language.
        first: which text ``shown`` is of.
        variants: a further text of each item or None, ``(n_items,)``, and the chance that it is drawn where it exists.
    """

    store: ItemTextStore
    tokens: Sequence[str]
    template: TextTemplate
    shown: Sequence[Text]
    own: Mapping[str, NDArray[np.bool_]]
    translations: bool = False
    first: TextView = field(default_factory=lambda: TextView(DISPLAY))
    variants: Sequence[tuple[Sequence[Text | None], float]] = ()

    @cached_property
    def _views(self) -> list[TextView]:
        kind = PIVOT if self.translations else LANGUAGE
        return [self.first, *(TextView(f"{kind}:{language}") for language in self.own)]

    def text(self, view: int, item: int) -> ItemText | None:
        """Return the record of an item's text in a view of a language, or in the first one; None if it has none."""
        return self._views[view].choose(self.store, self.tokens[item], self.template)

    @cached_property
    def rendered(self) -> list[list[Text]]:
        """The text of each item and its language, in each view."""
        views = [list(self.shown)]
        for view, is_own in zip(self._views[1:], self.own.values(), strict=True):
            views.append(list(self.shown))
            for item in np.flatnonzero(is_own).tolist():
                text = view.render(self.store, self.tokens[item], self.template)
                views[-1][item] = text or self.shown[item]
        for texts, _ in self.variants:
            views.append([text or shown for text, shown in zip(texts, self.shown, strict=True)])
        return views

    @property
    def texts(self) -> list[list[str]]:
        """The text of each item in each view."""
        return [[text for text, _ in texts] for texts in self.rendered]

    @cached_property
    def languages(self) -> list[list[str]]:
        """The language of each item's text in each view: the one that is asked for, where the text is in a variant."""
        asked = [view.language for view in self._views] + [""] * len(self.variants)
        return [
            [language if language and covers(language, tag) else tag for _, tag in texts]
            for language, texts in zip(asked, self.rendered, strict=True)
        ]

    @property
    def text_languages(self) -> set[str]:
        """The languages of all texts."""
        return {language for texts in self.rendered for text, language in texts if text}

    def chances(self, weights: Mapping[str, float]) -> NDArray[np.float32]:
        """Return the chance of each view of an item to be drawn, ``(n_views, n_items)``.

        Each text that an item really has in one of the languages is drawn in proportion to the weight of its language.
        An item without any has the text that everybody sees. Variants take their chances from all of these alike.

        Args:
            weights: by language, at least 0.
        """
        seen = [language for _, language in self.shown]
        of_shown = {tag: weighed_by(tag, weights) for tag in set(seen)}
        chance = np.zeros((1 + len(self.own), len(self.tokens)), dtype=np.float64)
        weight_of = cache(lambda tag: weights.get(weighed_by(tag, weights), 0.0))
        chance[0] = [weight_of(tag) if text.strip() else 0.0 for text, tag in self.shown]
        for view, (language, is_own) in enumerate(self.own.items(), start=1):
            texts = zip(self.rendered[view], self.shown, strict=True)
            differs = is_own & np.array([one[0] != shown[0] for one, shown in texts])
            is_shown = {tag: covers(language, tag) for tag in set(seen)}
            counts = differs | (is_own & ~np.array([is_shown[tag] for tag in seen]))
            weight = np.array([weight_of(tag) for _, tag in self.rendered[view]])
            chance[view] = weight * (counts & ~self._is_counted_elsewhere(view))
            chance[0, differs & np.array([of_shown[tag] == language for tag in seen])] = 0  # a variant that none reads
        chance[0, chance.sum(axis=0) == 0] = 1
        exists = np.array([[text is not None for text in texts] for texts, _ in self.variants]).reshape(-1, len(seen))
        drawn = exists * np.array([share for _, share in self.variants])[:, None]  # (n_variants, n_items)
        chance *= (1 - drawn.sum(axis=0)) / chance.sum(axis=0)
        return np.concatenate([chance, drawn]).astype(np.float32)

    def _is_counted_elsewhere(self, view: int) -> NDArray[np.bool_]:
        """Tell which texts of a language's view are those of a nearer language, a variant that has readers as well."""
        languages = list(self.own)
        nearest = cache(lambda tag: 1 + languages.index(weighed_by(tag, dict.fromkeys(languages, 1.0))))
        found = np.zeros(len(self.tokens), dtype=bool)
        for item in np.flatnonzero(self.own[languages[view - 1]]).tolist():
            text = self.rendered[view][item]
            other = nearest(text[1])
            found[item] = other != view and self.own[languages[other - 1]][item] and self.rendered[other][item] == text
        return found


def weighed_by(tag: str, weights: Mapping[str, float]) -> str:
    """Return the language whose weight a text has: the longest tag that is its own or covers it; empty if none does."""
    return max((name for name in weights if covers(name, tag)), key=len, default="")


def is_left_out(tag: str, weights: Mapping[str, float]) -> bool:
    """Return whether texts in a language have weight 0; those of languages without a weight are not left out."""
    return weights.get(weighed_by(tag, weights), 1.0) == 0


def known_language(text: Text, stated: str) -> Text:
    """Return a text whose language, where unknown, is the one that is stated for its item."""
    return text if text[1] != UNDETERMINED else (text[0], stated)
